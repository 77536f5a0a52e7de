//! Everything the HTTP cache asks of the core cache, in one place.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::cache::{Cache, Found as Stored};
use crate::entry::Entry;
use crate::http::engine::{Retention, UnixMs};
use crate::http::key;
use crate::http::stored::{StoredResponse, Whole};
use crate::write::{Fence as CoreFence, Removal};

/// The core calls nothing fresh that lives shorter; the engine has the last word on freshness.
const LEAST_FRESH: Duration = Duration::from_secs(1);

/// Nothing is kept longer, whatever its origin says: what nobody asked about for so long is not
/// worth the removals that must be remembered as long.
pub(crate) const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A stored response and where it was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) key: String,
    pub(crate) response: StoredResponse,
    /// Whether the core calls it stale: softly purged, or past its lifetime.
    pub(crate) stale: bool,
}

/// Where the answers to a request are stored.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) tenant: Option<String>,
    pub(crate) primary: String,
}

impl Target {
    /// The tags of an answer with these headers; `None` if they name too many, or none that can be
    /// read.
    pub(crate) fn tags(&self, headers: &HeaderMap) -> Option<Vec<String>> {
        let keys = key::surrogate_keys(headers)?;
        Some(keys.iter().map(|name| key::surrogate_tag(self.tenant.as_deref(), name)).collect())
    }
}

/// How long and with whom a response is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) life: Retention,
    pub(crate) now: UnixMs,
    pub(crate) max_variants: usize,
    /// The request fields that select it, and its request's hash of them.
    pub(crate) names: &'a [HeaderName],
    pub(crate) secondary: u128,
}

/// Tells removals that came before the origin was asked from later ones, which win.
pub(crate) type Fence = CoreFence<String, StoredResponse>;

/// The core cache, as the HTTP cache uses it.
pub(crate) struct Store {
    cache: Cache<String, StoredResponse>,
}

impl Store {
    pub(crate) fn new(cache: Cache<String, StoredResponse>) -> Self {
        Self { cache }
    }

    pub(crate) fn cache(&self) -> &Cache<String, StoredResponse> {
        &self.cache
    }

    /// What memory has, without waiting; and whether it is stale.
    pub(crate) fn peek(&self, key: &str) -> Option<(StoredResponse, bool)> {
        self.cache.lookup_memory(key).map(|Stored { value, stale }| (value, stale))
    }

    /// What any layer has.
    pub(crate) async fn find(&self, key: &str) -> Option<(StoredResponse, bool)> {
        self.cache.lookup(key).await.map(|Stored { value, stale }| (value, stale))
    }

    /// To be taken before the origin is asked.
    pub(crate) async fn fence(&self, target: &Target) -> Fence {
        self.cache.fence(&target.primary).await
    }

    /// Stores a response whose origin was asked after `fence`; says whether it was.
    pub(crate) async fn insert(
        &self,
        target: &Target,
        whole: Whole,
        terms: Terms<'_>,
        fence: Fence,
    ) -> bool {
        let trusts_shared = self.cache.trusts_shared(&target.primary);
        let index = match self.find(&target.primary).await {
            Some((found, _)) => found.as_variants().cloned(),
            None => None,
        };
        let asked_at = whole.head.request_at;
        let entry = entry(target, whole, terms.life);
        if index.is_none() {
            if self.has_newer(&target.primary, asked_at, terms.now) {
                return false;
            }
            if terms.names.is_empty() {
                return self.cache.insert_fenced(fence, entry);
            }
            // The shared layer may have an index that could not be asked for while something was
            // removed. A new one in its place would hide the variants it names.
            if !trusts_shared || !self.cache.trusts_shared(&target.primary) {
                return false;
            }
        }
        let variant = key::variant(&target.primary, terms.secondary);
        // Its key was not known when the origin was asked, so it is by tags that a removal since
        // then finds it.
        let entry = entry.tag(key::target_tag(&target.primary)).tag(key::EVERYTHING);
        let fence = self.cache.fence(&variant).await.backdated(&fence);
        if self.has_newer(&variant, asked_at, terms.now) || !self.cache.insert_fenced(fence, entry)
        {
            return false;
        }
        let life = terms.life.fresh.saturating_add(terms.life.stale).min(LONGEST);
        let mut index = index.unwrap_or_default();
        let until = terms.now.plus(u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
        let (changed, crowded_out) =
            index.add(terms.names, terms.secondary, until, terms.max_variants);
        for secondary in crowded_out {
            // Whether other processes were reached does not matter: it is not in the index.
            let _ = self.cache.remove(&key::variant(&target.primary, secondary)).await;
        }
        if changed {
            let left = Duration::from_millis(index.until().since(terms.now));
            // Softly purged or not, it outlives its variants: they cannot be found without it.
            let life = Retention { fresh: left, stale: left };
            let index = timed(target, StoredResponse::variants(index), life);
            self.cache.insert_with(target.primary.clone(), index).await;
        }
        true
    }

    /// Whether memory has what its origin was asked for later: an answer that took long does not
    /// replace it. What is stale may go; so may what is from the future, by a clock that was set back
    /// or that of another machine.
    fn has_newer(&self, key: &str, asked_at: UnixMs, now: UnixMs) -> bool {
        self.cache.look_again(key).filter(|held| !held.stale).is_some_and(|held| {
            let asked = held.value.as_whole().map(|held| held.head.request_at);
            asked.is_some_and(|asked| asked > asked_at && asked <= now)
        })
    }

    /// What was found as it stands there now, perhaps confirmed meanwhile; `None` if it is gone or
    /// was replaced.
    pub(crate) async fn still(&self, found: &Found) -> Option<Found> {
        let (response, stale) = match self.cache.look_again(&found.key) {
            Some(Stored { value, stale }) => (value, stale),
            None => self.find(&found.key).await?,
        };
        let key = found.key.clone();
        response.is(&found.response).then_some(Found { key, response, stale })
    }

    /// Removes (or with `soft` makes stale) every variant of a target.
    pub(crate) async fn remove_target(&self, primary: &str, soft: bool) -> Removal {
        let tag = key::target_tag(primary);
        // Both at once: memory is clear, and the rest under way, whenever this is dropped.
        let (by_tag, by_key) =
            tokio::join!(self.remove_tag(&tag, soft), self.remove_key(primary, soft));
        if by_tag.is_complete() { by_key } else { by_tag }
    }

    /// Removes (or with `soft` makes stale) one entry.
    pub(crate) async fn remove_key(&self, key: &str, soft: bool) -> Removal {
        if soft { self.cache.expire(key).await } else { self.cache.remove(key).await }
    }

    /// Removes (or with `soft` makes stale) everything with a tag.
    pub(crate) async fn remove_tag(&self, tag: &str, soft: bool) -> Removal {
        if soft { self.cache.expire_tag(tag).await } else { self.cache.remove_tag(tag).await }
    }

    /// Removes everything.
    pub(crate) async fn clear(&self) -> Removal {
        let (variants, all) =
            tokio::join!(self.remove_tag(key::EVERYTHING, false), self.cache.clear());
        if variants.is_complete() { all } else { variants }
    }
}

fn entry(target: &Target, whole: Whole, life: Retention) -> Entry<StoredResponse> {
    let tags = whole.tags.clone();
    timed(target, StoredResponse::whole(whole), life).tags(tags)
}

/// An entry of the target's tenant that lives as long in every layer.
fn timed(target: &Target, response: StoredResponse, life: Retention) -> Entry<StoredResponse> {
    let fresh = life.fresh.clamp(LEAST_FRESH, LONGEST);
    Entry::new(response)
        .ttl(fresh)
        .memory_ttl(fresh)
        .shared_ttl(fresh)
        .stale(life.stale.min(LONGEST))
        .tags(target.tenant.as_deref().map(key::tenant_tag))
}
