//! The layer in memory: typed values, bounded in number, each with its own end.

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ahash::RandomState;
use moka::notification::RemovalCause;
use tokio::time::Instant;

use crate::config::Memory;
use crate::counters::Counter;
use crate::glob::Pattern;
use crate::key::CacheKey;
use crate::stats::LayerStats;

/// moka decides what stays; the end of an entry's life is ours.
///
/// moka's own clock cannot be paused by a test and its expiry costs twice our check, so an
/// expired entry is a miss here and leaves moka when it is replaced or no longer worth its room.
pub(crate) struct MemoryLayer<K, V> {
    entries: moka::sync::Cache<K, Entry<V>, RandomState>,
    capacity: u64,
    ttl: Duration,
    hits: Counter,
    misses: Counter,
    evictions: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    expires: Instant,
}

impl<K, V> MemoryLayer<K, V>
where
    K: CacheKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(config: Memory) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&evictions);
        let entries = moka::sync::Cache::builder()
            .max_capacity(config.capacity)
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build_with_hasher(RandomState::new());
        Self {
            entries,
            capacity: config.capacity,
            ttl: config.ttl,
            hits: Counter::default(),
            misses: Counter::default(),
            evictions,
        }
    }

    /// Reads and counts. On a hit: one hash, one clock read, one clone of the value.
    #[inline]
    pub(crate) fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = self.peek(key);
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.add_one();
        found
    }

    /// Reads without counting: the second look of a caller that has counted its miss.
    #[inline]
    pub(crate) fn peek<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.entries
            .get(key)
            .and_then(|entry| (Instant::now() < entry.expires).then_some(entry.value))
    }

    /// Stores for `life`, or for this layer's lifetime if that is shorter.
    pub(crate) fn insert(&self, key: K, value: V, life: Duration) {
        let expires = Instant::now() + life.min(self.ttl);
        self.entries.insert(key, Entry { value, expires });
    }

    pub(crate) fn remove<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.entries.invalidate(key);
    }

    /// Walks over all entries.
    pub(crate) fn remove_matching(&self, pattern: &Pattern) {
        let mut text = String::new();
        for (key, _) in &self.entries {
            text.clear();
            key.write_text(&mut text);
            if pattern.matches(&text) {
                self.entries.invalidate(&*key);
            }
        }
    }

    pub(crate) fn clear(&self) {
        self.entries.invalidate_all();
    }

    pub(crate) fn stats(&self) -> LayerStats {
        // moka counts in batches; without this a fresh entry shows up only later.
        self.entries.run_pending_tasks();
        LayerStats {
            hits: self.hits.get(),
            misses: self.misses.get(),
            entries: self.entries.entry_count(),
            capacity: self.capacity,
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }
}
