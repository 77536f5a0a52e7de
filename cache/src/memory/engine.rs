//! What decides which entries stay: moka, or quick_cache behind its feature.

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;
#[cfg(feature = "quick_cache")]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use moka::notification::RemovalCause;

use crate::config::{Engine, Memory};

/// Bytes that an entry takes, or one for each where entries are counted.
pub(crate) type Weigh<K, T> = Arc<dyn Fn(&K, &T) -> u32 + Send + Sync>;

/// Entries that left, by cause.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    pub(crate) evicted: AtomicU64,
    pub(crate) removed: AtomicU64,
    pub(crate) replaced: AtomicU64,
    /// The last to leave made room for another; of quick_cache alone. What was removed since leaves
    /// room for about as many: the first that comes in beyond it pushes another out.
    #[cfg(feature = "quick_cache")]
    full: AtomicBool,
}

/// A bounded map that chooses what to give up.
pub(crate) enum Entries<K, T> {
    Moka(moka::sync::Cache<K, T, RandomState>),
    #[cfg(feature = "quick_cache")]
    Quick(Box<quick::Cache<K, T>>, Arc<Departures>),
}

impl<K, T> Entries<K, T>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(
        config: Memory,
        weigh: Option<Weigh<K, T>>,
        departures: &Arc<Departures>,
    ) -> Self {
        match config.engine {
            Engine::Moka => Self::Moka(moka(config.capacity, weigh, departures)),
            #[cfg(feature = "quick_cache")]
            Engine::QuickCache => {
                let cache = quick::cache(config.capacity, weigh, departures);
                Self::Quick(Box::new(cache), Arc::clone(departures))
            }
        }
    }

    #[inline]
    pub(crate) fn get<Q>(&self, key: &Q) -> Option<T>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        match self {
            Self::Moka(cache) => cache.get(key),
            #[cfg(feature = "quick_cache")]
            Self::Quick(cache, _) => cache.get(key),
        }
    }

    pub(crate) fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        match self {
            Self::Moka(cache) => cache.contains_key(key),
            #[cfg(feature = "quick_cache")]
            Self::Quick(cache, _) => cache.contains_key(key),
        }
    }

    pub(crate) fn insert(&self, key: K, entry: T) {
        match self {
            Self::Moka(cache) => cache.insert(key, entry),
            #[cfg(feature = "quick_cache")]
            Self::Quick(cache, _) => cache.insert(key, entry),
        }
    }

    pub(crate) fn remove<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        match self {
            Self::Moka(cache) => cache.invalidate(key),
            #[cfg(feature = "quick_cache")]
            Self::Quick(cache, departures) => {
                // What was not there leaves no room.
                if cache.remove(key).is_some() {
                    departures.full.store(false, Ordering::Relaxed);
                }
            }
        }
    }

    /// Removes what does not meet `keep`. Walks over all entries.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&K) -> bool) {
        match self {
            Self::Moka(cache) => {
                for (key, _) in cache {
                    if !keep(&key) {
                        cache.invalidate(&*key);
                    }
                }
            }
            #[cfg(feature = "quick_cache")]
            Self::Quick(cache, departures) => {
                for (key, _) in cache.iter() {
                    if !keep(&key) && cache.remove(&key).is_some() {
                        departures.full.store(false, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    pub(crate) fn clear(&self) {
        match self {
            Self::Moka(cache) => cache.invalidate_all(),
            #[cfg(feature = "quick_cache")]
            Self::Quick(cache, departures) => {
                cache.clear();
                departures.full.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Whether one more entry, of the average weight, would push another out. Cheap, and as late
    /// as the engine's own accounts.
    pub(crate) fn is_full(&self, capacity: u64) -> bool {
        match self {
            Self::Moka(cache) => {
                let (entries, weight) = (cache.entry_count(), cache.weighted_size());
                let average = weight.checked_div(entries).unwrap_or(0);
                weight.saturating_add(average) > capacity
            }
            // To count what it holds would take the lock of every shard.
            #[cfg(feature = "quick_cache")]
            Self::Quick(_, departures) => departures.full.load(Ordering::Relaxed),
        }
    }

    /// Entries held, and their weight.
    pub(crate) fn size(&self) -> (u64, u64) {
        match self {
            Self::Moka(cache) => {
                // moka counts in batches; without this a fresh entry shows up only later.
                cache.run_pending_tasks();
                (cache.entry_count(), cache.weighted_size())
            }
            #[cfg(feature = "quick_cache")]
            Self::Quick(cache, _) => (cache.len() as u64, cache.weight()),
        }
    }
}

fn moka<K, T>(
    capacity: u64,
    weigh: Option<Weigh<K, T>>,
    departures: &Arc<Departures>,
) -> moka::sync::Cache<K, T, RandomState>
where
    K: Hash + Eq + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    let departures = Arc::clone(departures);
    let builder = moka::sync::Cache::builder().max_capacity(capacity).eviction_listener(
        move |_, _, cause| {
            let count = match cause {
                RemovalCause::Size | RemovalCause::Expired => &departures.evicted,
                RemovalCause::Explicit => &departures.removed,
                RemovalCause::Replaced => &departures.replaced,
            };
            count.fetch_add(1, Ordering::Relaxed);
        },
    );
    let builder = match weigh {
        Some(weigh) => builder.weigher(move |key, entry| weigh(key, entry)),
        None => builder,
    };
    builder.build_with_hasher(RandomState::new())
}

#[cfg(feature = "quick_cache")]
mod quick {
    //! The parts that quick_cache asks for.

    use std::hash::Hash;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use ahash::RandomState;
    use quick_cache::{Lifecycle, Weighter};

    use super::{Departures, Weigh};

    pub(crate) type Cache<K, T> =
        quick_cache::sync::Cache<K, T, Weights<K, T>, RandomState, Listener>;

    pub(crate) struct Weights<K, T>(Option<Weigh<K, T>>);

    impl<K, T> Clone for Weights<K, T> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }

    impl<K, T> Weighter<K, T> for Weights<K, T> {
        fn weight(&self, key: &K, entry: &T) -> u64 {
            // An entry of no weight would never be evicted.
            self.0.as_ref().map_or(1, |weigh| u64::from(weigh(key, entry)).max(1))
        }
    }

    #[derive(Clone)]
    pub(crate) struct Listener(Arc<Departures>);

    impl<K, T> Lifecycle<K, T> for Listener {
        type RequestState = ();

        fn on_evict(&self, _: &mut (), _: K, _: T) {
            self.0.evicted.fetch_add(1, Ordering::Relaxed);
            self.0.full.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn cache<K, T>(
        capacity: u64,
        weigh: Option<Weigh<K, T>>,
        departures: &Arc<Departures>,
    ) -> Cache<K, T>
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        T: Clone + Send + Sync + 'static,
    {
        // With weights, the number of entries is only a guess to begin with.
        let guess = if weigh.is_some() { capacity / 1_024 } else { capacity };
        let items = usize::try_from(guess.clamp(16, 1 << 20)).unwrap_or(1 << 20);
        let listener = Listener(Arc::clone(departures));
        Cache::with(items, capacity, Weights(weigh), RandomState::new(), listener)
    }
}
