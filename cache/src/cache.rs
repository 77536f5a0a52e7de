//! The handle: how a cache is read, and the order in which the layers see it.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::builder::{CacheBuilder, Parts};
use crate::coherence::{self, Hearing};
use crate::config::{CacheConfig, WhileDeaf};
use crate::counters::{LoadCounts, Loads};
use crate::entry::Entry;
use crate::error::LoadError;
use crate::fetch::{Joins, Missing};
use crate::flight::{Flights, Join};
use crate::freshness::EarlyRefresh;
use crate::key::CacheKey;
use crate::load::{self, Landed, Leading, Previous};
use crate::memory::{MemoryLayer, Read};
use crate::removals::Removals;
use crate::shared::Shared;
use crate::stats::CacheStats;

/// A cache of three layers: memory, a shared store, the source.
///
/// Clones are cheap and share everything. Reads go by any borrowed form of the key (`&str` for
/// `String`). Keep large values in an `Arc`: each hit clones the value.
///
/// # What it promises
/// - A read that begins after a removal has returned never sees what was there before, in this
///   process: a load, a read of the shared layer or a write to it that was under way when the
///   removal came is not stored. In other processes the same holds as soon as they hear of it,
///   at the latest after one [heartbeat](crate::Coherence::heartbeat) with a shared store that
///   answers.
/// - All callers that miss one key at one time cause one load.
/// - No fault of the memory or shared layer reaches a caller.
///
/// # Cancellation
/// Loads, and the shared part of insertions and removals, run in tasks of their own: once begun
/// they end, whoever stops waiting.
///
/// # Runtime
/// What misses memory or writes the shared layer needs a Tokio runtime with time enabled.
pub struct Cache<K, V> {
    pub(crate) core: Arc<Core<K, V>>,
}

/// What the handles and the tasks of one cache share.
pub(crate) struct Core<K, V> {
    pub(crate) name: Arc<str>,
    pub(crate) ttl: Duration,
    pub(crate) absent_ttl: Duration,
    pub(crate) memory_ttl: Duration,
    pub(crate) shared_ttl: Duration,
    pub(crate) stale: Duration,
    pub(crate) stale_while_revalidate: Duration,
    pub(crate) stale_throttle: Duration,
    pub(crate) early: EarlyRefresh,
    pub(crate) jitter: f64,
    pub(crate) load_timeout: Duration,
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) hard_timeout: Option<Duration>,
    pub(crate) load_lock: Option<Duration>,
    pub(crate) while_deaf: WhileDeaf,
    /// Tells this handle's messages from those of other processes.
    pub(crate) source: u64,
    pub(crate) memory: MemoryLayer<K, V>,
    pub(crate) shared: Option<Arc<Shared<V>>>,
    pub(crate) flights: Arc<Flights<K, Landed<V>>>,
    pub(crate) removals: Removals,
    pub(crate) loads: Loads,
    pub(crate) hearing: Hearing,
}

/// What [`Cache::lookup`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found<V> {
    /// The value.
    pub value: V,
    /// Its lifetime is over, or it was [expired](Cache::expire): use it only if there is nothing
    /// better.
    pub stale: bool,
}

impl<K, V> Cache<K, V> {
    /// Starts to build a cache, from its name or a whole [`CacheConfig`].
    pub fn builder(config: impl Into<CacheConfig>) -> CacheBuilder<K, V> {
        CacheBuilder::new(config.into())
    }
}

impl<K, V> Cache<K, V>
where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(config: CacheConfig, parts: Parts<K, V>) -> Self {
        let Parts { shared, weigher } = parts;
        let shared = shared.map(|(store, codec)| Arc::new(Shared::new(store, codec, &config)));
        let longest = config.memory.ttl.max(config.ttl);
        let core = Core {
            ttl: config.ttl,
            absent_ttl: config.absent_ttl,
            memory_ttl: config.memory.ttl,
            shared_ttl: config.shared_ttl,
            stale: config.stale,
            stale_while_revalidate: config.stale_while_revalidate,
            stale_throttle: config.stale_throttle,
            early: config.early_refresh,
            jitter: config.jitter,
            load_timeout: config.load_timeout,
            soft_timeout: config.soft_timeout,
            hard_timeout: config.hard_timeout,
            load_lock: config.load_lock,
            while_deaf: config.coherence.while_deaf,
            source: fastrand::u64(..),
            memory: MemoryLayer::new(config.memory, config.early_refresh, weigher),
            flights: Arc::new(Flights::new(shared.is_some())),
            shared,
            removals: Removals::new(longest.saturating_add(config.stale)),
            loads: Loads::default(),
            hearing: Hearing::new(config.coherence),
            name: config.name.into(),
        };
        Self { core: Arc::new(core) }
    }

    /// The value under `key` in memory or in the shared layer. What is found there goes into
    /// memory for the rest of its life; into a full memory only if it was asked for shortly before.
    pub async fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
    {
        let held = match self.core.memory.read(key, &self.core.removals) {
            Read::Hit(content) | Read::Renew(content) => return content,
            read => read.is_held(),
        };
        self.core.shared.as_ref()?;
        // Boxed, so that a hit does not carry the room for this.
        let found = Box::pin(self.core.promote(key, held)).await;
        found.filter(|found| found.fresh).and_then(|found| found.content)
    }

    /// The value under `key`, be it fresh or, within its stale time, stale.
    ///
    /// For callers that decide themselves what an old value is good for. It does not load.
    pub async fn lookup<Q>(&self, key: &Q) -> Option<Found<V>>
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
    {
        let (found, held) = self.glance(key);
        if found.as_ref().is_some_and(|found| !found.stale) || self.core.shared.is_none() {
            return found;
        }
        // Another process may have something fresh.
        let Some(promoted) = Box::pin(self.core.promote(key, held)).await else { return found };
        let stale = !promoted.fresh;
        if stale && found.is_some() {
            return found;
        }
        promoted.content.map(|value| Found { value, stale })
    }

    /// As [`lookup`](Self::lookup), in memory alone and without waiting.
    pub fn lookup_memory<Q>(&self, key: &Q) -> Option<Found<V>>
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
    {
        self.glance(key).0
    }

    /// What memory has under `key`, and whether anything lies there at all.
    fn glance<Q>(&self, key: &Q) -> (Option<Found<V>>, bool)
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
    {
        let read = self.core.memory.read(key, &self.core.removals);
        let held = read.is_held();
        (self.found(key, read), held)
    }

    /// As [`lookup_memory`](Self::lookup_memory), without counting: the second look of a caller that
    /// has counted.
    #[cfg(feature = "http")]
    pub(crate) fn look_again<Q>(&self, key: &Q) -> Option<Found<V>>
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
    {
        let read = self.core.memory.look(key, &self.core.removals);
        self.found(key, read)
    }

    /// Whether the shared layer can be asked for `key`, or there is none.
    #[cfg(feature = "http")]
    pub(crate) fn trusts_shared<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
    {
        self.core.shared.is_none() || self.core.flights.trusts_shared(key)
    }

    fn found<Q>(&self, key: &Q, read: Read<V>) -> Option<Found<V>>
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
    {
        let (content, stale) = match read {
            Read::Hit(content) => (content, false),
            Read::Renew(content) => (content, !self.core.memory.is_fresh(key, &self.core.removals)),
            Read::StandIn(slot) => (slot.content, true),
            Read::Suspect(_) | Read::Remains | Read::Miss => (None, true),
        };
        content.map(|value| Found { value, stale })
    }

    /// The value under `key`, loaded from the source if no layer has it.
    ///
    /// Callers that miss one key together share one load, made by the first one's `load`. It
    /// runs in a task of its own: it goes on if any of its callers, even the first, goes away.
    /// Callers of one load may have different error types, but only callers with the type of
    /// the load get its error; others get [`LoadError::Foreign`]. A load that asks this cache
    /// for its own key waits for itself, until it times out.
    ///
    /// # Errors
    /// [`LoadError`], only ever because of the load itself. Errors are not stored.
    ///
    /// # Cost
    /// A hit in memory: one hash, one coarse clock read, one clone of the value, no allocation.
    pub async fn get_or_load<Q, E, F, Fut>(&self, key: &Q, load: F) -> Result<V, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
    {
        match self.core.memory.read(key, &self.core.removals) {
            Read::Hit(Some(value)) => Ok(value),
            // Boxed, so that a hit does not carry the room for this.
            read => Box::pin(self.core.load(key, read, load)).await,
        }
    }

    /// As [`get_or_load`](Self::get_or_load), for a load that says more than a value: lifetimes,
    /// tags, that there is nothing, that nothing has changed since the [`Previous`] value, or
    /// that it is not to be stored. `None`: the source says that there is nothing.
    ///
    /// ```
    /// use escala_cache::{Cache, Entry, Previous};
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let users = Cache::<u64, String>::builder("users").build()?;
    /// let load = async |_: Previous<String>| {
    ///     let name = "Ada".to_owned(); // from the database
    ///     Ok::<_, std::io::Error>(Entry::new(name).ttl(Duration::from_secs(60)).tag("team:7"))
    /// };
    /// assert_eq!(users.get_or_load_with(&42, load).await?.as_deref(), Some("Ada"));
    /// users.remove_tag("team:7").await;
    /// assert_eq!(users.get(&42).await, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_with<Q, E, F, Fut>(
        &self,
        key: &Q,
        load: F,
    ) -> Result<Option<V>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Previous<V>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Entry<V>, E>> + Send + 'static,
    {
        match self.core.memory.read(key, &self.core.removals) {
            Read::Hit(content) => Ok(content),
            read => {
                // Boxed, so that a hit does not carry the room for this.
                Box::pin(self.core.fetch(key, read, false, load)).await
            }
        }
    }

    /// The values under many keys, those that no layer has loaded from the source together.
    ///
    /// The shared layer is asked once for all keys that memory does not have, and `load` once
    /// for all that it does not have either. A key that is being loaded already is waited for
    /// instead. Keys that `load` does not bring are remembered as absent, for
    /// [`absent_ttl`](CacheConfig::absent_ttl), and are not in the answer. `load` may bring
    /// plain values, or [`Entry`]s that say more.
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load): the first failure of a load that a key needs.
    pub async fn get_or_load_many<T, E, F, Fut>(
        &self,
        keys: &[K],
        load: F,
    ) -> Result<HashMap<K, V>, LoadError<E>>
    where
        T: Into<Entry<V>> + Send + 'static,
        E: Send + Sync + 'static,
        F: FnOnce(Vec<K>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<HashMap<K, T>, E>> + Send + 'static,
    {
        coherence::listen(&self.core).await;
        let mut found = HashMap::with_capacity(keys.len());
        let mut missing = Vec::new();
        for key in load::distinct(keys) {
            let read = self.core.memory.read(&key, &self.core.removals);
            let held = read.is_held();
            match read {
                Read::Hit(content) | Read::Renew(content) => {
                    found.extend(content.map(|value| (key, value)));
                }
                Read::Remains | Read::Miss => missing.push(Missing::new(key, held, false)),
                Read::StandIn(_) | Read::Suspect(_) => missing.push(Missing::new(key, held, true)),
            }
        }
        let missing = self.core.look_first_for_all(missing, &mut found).await;
        let mut waiting = Vec::new();
        let mut leads = Vec::new();
        for Missing { key, seen, admitted, .. } in missing {
            match self.core.join(&key, false, Joins::Current) {
                Join::Hit(content) => found.extend(content.map(|value| (key, value))),
                Join::Wait(landing) => waiting.push((key, landing)),
                Join::Lead(lead, landing) => {
                    leads.push(Leading { lead, seen, admitted });
                    waiting.push((key, landing));
                }
            }
        }
        if !leads.is_empty() {
            load::spawn(load::fly_many(Arc::clone(&self.core), leads, load));
        }
        for (key, landing) in waiting {
            let landed = self.core.patience(landing, false).await.map_err(LoadError::from)?;
            found.extend(landed.content.map(|value| (key, value)));
        }
        Ok(found)
    }

    /// The value under `key` in memory alone, without waiting.
    pub(crate) fn hit(&self, key: &K) -> Read<V> {
        self.core.memory.read(key, &self.core.removals)
    }

    /// Loads, or serves what `read` found and loads in the background.
    pub(crate) fn load_missing<E, F, Fut>(
        &self,
        key: K,
        read: Read<V>,
        load: F,
    ) -> impl Future<Output = Result<V, LoadError<E>>> + Send + use<K, V, E, F, Fut>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
    {
        let core = Arc::clone(&self.core);
        async move { core.load(&key, read, load).await }
    }

    /// What the cache has done so far.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let core = &*self.core;
        let LoadCounts { started, succeeded, failed, panicked, timed_out, aborted } =
            core.loads.read();
        let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        CacheStats {
            name: core.name.to_string(),
            memory: core.memory.stats(),
            shared: core.shared.as_ref().map(|shared| shared.stats()),
            coherence: core.shared.as_ref().map(|_| core.hearing.stats()),
            loads: started,
            load_successes: succeeded,
            load_errors: failed,
            load_panics: panicked,
            load_timeouts: timed_out,
            load_aborted: aborted,
            loads_in_flight: started - succeeded - failed - panicked - timed_out - aborted,
            load_seconds: core.loads.seconds(),
            coalesced: read(&core.loads.coalesced),
            refreshes: read(&core.loads.refreshes),
            stale_serves: read(&core.loads.stood_in),
            discarded: read(&core.loads.discarded),
            remembered_removals: core.removals.len() as u64,
        }
    }
}

impl<K, V> Clone for Cache<K, V> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core) }
    }
}

impl<K, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("name", &self.core.name).finish_non_exhaustive()
    }
}
