//! An entry made ready for both layers: its lifetimes decided, its tags hashed.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::Core;
use crate::change::{key_hash, tag_hash};
use crate::clock;
use crate::entry::{Content, Entry};
use crate::frame::{MAX_TAGS, MAX_VALIDATOR};
use crate::freshness::{Life, Moments};
use crate::key::CacheKey;
use crate::memory::{Extra, Slot};
use crate::removals::Guard;
use crate::shared::{Found, Outgoing};

/// An entry ready for both layers.
pub(crate) struct Prepared<V> {
    pub(crate) slot: Slot<V>,
    /// Whether it is to be stored at all.
    pub(crate) store: bool,
    /// How long it is fresh in the shared layer; zero keeps it out.
    pub(crate) shared_fresh: Duration,
    stale: Duration,
    load: Duration,
    origin: Origin,
    tags: Vec<u64>,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    /// The number of the last removal before its load began.
    pub(crate) loaded: u64,
    /// Milliseconds since 1970 when it began.
    pub(crate) created_ms: u64,
}

impl<V> Prepared<V> {
    pub(crate) fn outgoing(&self) -> Outgoing<'_, V> {
        Outgoing {
            content: self.slot.content.as_ref(),
            created_ms: self.origin.created_ms,
            load: self.load,
            fresh: Some(self.shared_fresh),
            stale: self.stale,
            tags: &self.tags,
            validator: self.slot.extra.as_ref().and_then(|extra| extra.validator.as_deref()),
        }
    }
}

impl<K, V> Core<K, V>
where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// `None` if the entry only says that nothing has changed, and there is no `previous`.
    pub(crate) fn prepare(
        &self,
        text: &str,
        entry: Entry<V>,
        origin: Origin,
        load: Duration,
        previous: Option<&Slot<V>>,
    ) -> Option<Prepared<V>> {
        let Entry { content, ttl, stale, memory_ttl, shared_ttl, tags, validator, store } = entry;
        let (content, old) = match content {
            Content::Value(value) => (Some(value), None),
            Content::Absent => (None, None),
            Content::Unchanged => (previous?.content.clone(), previous?.extra.as_deref()),
        };
        let ttl = ttl.unwrap_or(if content.is_some() { self.ttl } else { self.absent_ttl });
        let (fresh, stale) = (self.jittered(ttl), stale.unwrap_or(self.stale));
        let mut names: Vec<u64> = tags.iter().map(|tag| tag_hash(tag)).collect();
        if let Some(old) = old.filter(|_| names.is_empty()) {
            let key = key_hash(text);
            names.extend(old.guard.names().iter().filter(|name| **name != key));
        }
        let validator = validator
            .filter(|text| text.len() <= MAX_VALIDATOR)
            .or_else(|| old.and_then(|old| old.validator.clone()));
        let life = Life {
            fresh: fresh.min(memory_ttl.unwrap_or(self.memory_ttl)),
            revalidate: self.stale_while_revalidate,
            stale,
            load,
        };
        let moments = Moments::new(clock::now(), life, self.early);
        let extra = self.extra(text, moments, origin, validator, &names);
        Some(Prepared {
            slot: Slot::new(content, moments, load, extra),
            // Out of reach of one of its tags, it is better not stored.
            store: store && !fresh.is_zero() && names.len() <= MAX_TAGS,
            shared_fresh: fresh.min(shared_ttl.unwrap_or(self.shared_ttl)),
            stale,
            load,
            origin,
            tags: names,
        })
    }

    /// A value of the shared layer as it lies in memory, for the rest of its life there.
    pub(crate) fn slot_of(&self, found: Found<V>, loaded: u64, text: &str) -> Slot<V> {
        let Found { content, meta, fresh_left, stale_left } = found;
        let load = Duration::from_millis(meta.load_ms.into());
        let life = Life {
            fresh: fresh_left.min(self.memory_ttl),
            revalidate: self.stale_while_revalidate,
            stale: stale_left.saturating_sub(fresh_left),
            load,
        };
        let moments = Moments::new(clock::now(), life, self.early);
        let origin = Origin { loaded, created_ms: meta.created_ms };
        let extra = self.extra(text, moments, origin, meta.validator, &meta.tags);
        Slot::new(content, moments, load, extra)
    }

    fn extra(
        &self,
        text: &str,
        moments: Moments,
        origin: Origin,
        validator: Option<Box<str>>,
        tags: &[u64],
    ) -> Option<Arc<Extra>> {
        let Moments { fresh_until, revalidate_until, stale_until, .. } = moments;
        let plain = tags.is_empty() && validator.is_none() && stale_until == fresh_until;
        if plain && self.shared.is_none() {
            return None;
        }
        let key = self.shared.is_some().then(|| key_hash(text));
        let names = key.into_iter().chain(tags.iter().copied()).collect();
        self.removals.lives(stale_until.since(clock::now()));
        let Origin { loaded, created_ms } = origin;
        let guard = Guard::new(loaded, names);
        Some(Arc::new(Extra { revalidate_until, stale_until, created_ms, validator, guard }))
    }

    /// The text of a key, where anybody asks for it.
    pub(crate) fn text_of(&self, key: &K) -> String {
        if self.shared.is_some() { key.text() } else { String::new() }
    }
}
