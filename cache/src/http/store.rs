//! Everything the HTTP cache asks of the core cache, in one place.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderName;
use parking_lot::RwLock;

use crate::cache::{Cache, Removal};
use crate::http::engine::{Retention, UnixMs};
use crate::http::key;
use crate::http::stored::{StoredResponse, Whole};

/// The core calls nothing fresh that lives shorter; the engine has the last word on freshness.
const LEAST_FRESH: Duration = Duration::from_secs(1);

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
#[derive(Debug, Clone)]
pub(crate) struct Fence(u64);

/// The core cache, as the HTTP cache uses it.
pub(crate) struct Store {
    cache: Cache<String, StoredResponse>,
    is_layered: bool,
    clock: AtomicU64,
    gone: RwLock<HashMap<String, (u64, u64)>>,
    seals: RwLock<HashMap<String, (u64, Vec<String>)>>,
}

impl Store {
    pub(crate) fn new(cache: Cache<String, StoredResponse>) -> Self {
        let is_layered = cache.stats().shared.is_some();
        Self {
            cache,
            is_layered,
            clock: AtomicU64::new(1),
            gone: RwLock::default(),
            seals: RwLock::default(),
        }
    }

    pub(crate) fn cache(&self) -> &Cache<String, StoredResponse> {
        &self.cache
    }

    /// Whether there is more than memory, so that a miss there has to look further.
    pub(crate) fn is_layered(&self) -> bool {
        self.is_layered
    }

    /// What memory has, without waiting.
    pub(crate) fn peek(&self, key: &String) -> Option<(StoredResponse, bool)> {
        self.judge(key, self.cache.hit(key)?)
    }

    /// What any layer has.
    pub(crate) async fn find(&self, key: &str) -> Option<(StoredResponse, bool)> {
        self.judge(key, self.cache.get(key).await?)
    }

    /// To be taken before the origin is asked.
    pub(crate) fn fence(&self) -> Fence {
        Fence(self.clock.fetch_add(1, Ordering::SeqCst))
    }

    /// Stores a response whose origin was asked after `fence`; says whether it was.
    pub(crate) async fn insert(
        &self,
        target: &Target,
        whole: Whole,
        terms: Terms<'_>,
        fence: &Fence,
    ) -> bool {
        let index = match self.find(&target.primary).await {
            Some((found, _)) => found.as_variants().cloned(),
            None => None,
        };
        if terms.names.is_empty() && index.is_none() {
            let response = StoredResponse::whole(whole);
            return self.put(target, target.primary.clone(), response, terms.life, fence).await;
        }
        let until = terms.now.plus(millis(terms.life.fresh.saturating_add(terms.life.stale)));
        let mut index = index.unwrap_or_default();
        let (changed, crowded_out) =
            index.add(terms.names, terms.secondary, until, terms.max_variants);
        let variant = key::variant(&target.primary, terms.secondary);
        let response = StoredResponse::whole(whole);
        if !self.put(target, variant, response, terms.life, fence).await {
            return false;
        }
        for secondary in crowded_out {
            self.cache.remove(&key::variant(&target.primary, secondary)).await;
        }
        if !changed {
            return true;
        }
        // The index outlives its variants, softly purged or not: a variant without it is lost.
        let left = Duration::from_millis(index.until().since(terms.now));
        let life = Retention { fresh: left, stale: left };
        self.put(target, target.primary.clone(), StoredResponse::variants(index), life, fence).await
    }

    /// Replaces a stored response by its freshened self, under the key it was found.
    pub(crate) async fn replace(
        &self,
        target: &Target,
        key: String,
        whole: Whole,
        life: Retention,
        fence: &Fence,
    ) -> bool {
        self.put(target, key, StoredResponse::whole(whole), life, fence).await
    }

    /// Removes (or with `soft` makes stale) every variant of a target.
    pub(crate) async fn remove_target(&self, primary: &str, soft: bool) -> Removal {
        let by_tag = self.remove_tag(&key::target_tag(primary), soft).await;
        let by_key = self.remove_key(primary, soft).await;
        if by_tag.is_complete() { by_key } else { by_tag }
    }

    /// Removes (or with `soft` makes stale) one entry.
    pub(crate) async fn remove_key(&self, key: &str, soft: bool) -> Removal {
        self.note(key, soft);
        if soft { Removal::Complete } else { self.cache.remove(key).await }
    }

    /// Removes (or with `soft` makes stale) everything with a tag.
    pub(crate) async fn remove_tag(&self, tag: &str, soft: bool) -> Removal {
        self.note(tag, soft);
        Removal::Complete
    }

    /// Removes everything.
    pub(crate) async fn clear(&self) -> Removal {
        self.note("*", false);
        self.cache.clear().await
    }

    async fn put(
        &self,
        target: &Target,
        key: String,
        response: StoredResponse,
        life: Retention,
        fence: &Fence,
    ) -> bool {
        let mut tags = response.as_whole().map_or_else(Vec::new, |whole| whole.tags.clone());
        // The entry under the primary key itself is reached by its key.
        if key != target.primary {
            tags.push(key::target_tag(&target.primary));
        }
        tags.extend(target.tenant.as_deref().map(key::tenant_tag));
        self.seals.write().insert(key.clone(), (fence.0, tags));
        if self.judge(&key, response.clone()).is_none_or(|(_, stale)| stale) {
            return false;
        }
        let life = life.fresh.max(LEAST_FRESH).saturating_add(life.stale);
        self.cache.insert_with(key, response, life).await;
        true
    }

    fn note(&self, what: &str, soft: bool) {
        let now = self.clock.fetch_add(1, Ordering::SeqCst);
        let mut gone = self.gone.write();
        let at = gone.entry(what.to_owned()).or_default();
        if soft { at.1 = now } else { at.0 = now }
    }

    fn judge(&self, key: &str, response: StoredResponse) -> Option<(StoredResponse, bool)> {
        let gone = self.gone.read();
        let (mut hard, mut soft) = (0, 0);
        let seals = self.seals.read();
        let (at, tags) = seals.get(key)?;
        for what in tags.iter().map(String::as_str).chain([key, "*"]) {
            if let Some(&(one, other)) = gone.get(what) {
                (hard, soft) = (hard.max(one), soft.max(other));
            }
        }
        (*at >= hard).then_some((response, *at < soft))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
