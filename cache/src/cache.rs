//! The handle: every operation on a cache, and the order in which the layers see it.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::builder::CacheBuilder;
use crate::codec::Codec;
use crate::config::CacheConfig;
use crate::counters::{LoadCounts, Loads};
use crate::error::{LoadError, StoreError};
use crate::flight::{Flights, Hold, Join, Predecessors};
use crate::glob::Pattern;
use crate::key::CacheKey;
use crate::load;
use crate::memory::MemoryLayer;
use crate::shared::{Shared, SharedStore, wall_ms};
use crate::stats::CacheStats;

/// A cache of three layers: memory, a shared store, the source.
///
/// Clones are cheap and share everything. Reads go by any borrowed form of the key (`&str` for
/// `String`). Keep large values in an `Arc`: each hit clones the value.
///
/// # What it promises
/// - A read that begins after a removal has returned never sees what was there before, in this
///   process: a load, a read of the shared layer or a write to it that was under way when the
///   removal came is not stored. Across processes the shared layer is cleared too, but other
///   processes keep their copy in memory until it expires.
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
    core: Arc<Core<K, V>>,
}

/// What the handles and the tasks of one cache share.
pub(crate) struct Core<K, V> {
    pub(crate) name: Arc<str>,
    pub(crate) ttl: Duration,
    pub(crate) jitter: f64,
    pub(crate) load_timeout: Duration,
    pub(crate) memory: MemoryLayer<K, V>,
    pub(crate) shared: Option<Shared<V>>,
    pub(crate) flights: Arc<Flights<K, V>>,
    pub(crate) loads: Loads,
}

/// How far a removal went.
///
/// A removal never fails: memory is always cleared, and before anything else. Ignore this value
/// unless other processes matter at once.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Removal {
    /// Every layer is clear.
    Complete,
    /// The shared layer could not be reached. This process no longer reads what stands there
    /// from before; others may, until it expires there.
    MemoryOnly(StoreError),
}

impl Removal {
    /// Whether every layer is clear.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Complete)
    }
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
    pub(crate) fn new(
        config: CacheConfig,
        shared: Option<(Arc<dyn SharedStore>, Codec<V>)>,
    ) -> Self {
        let shared = shared.map(|(store, codec)| Shared::new(store, codec, &config));
        let core = Core {
            name: config.name.into(),
            ttl: config.ttl,
            jitter: config.jitter,
            load_timeout: config.load_timeout,
            memory: MemoryLayer::new(config.memory),
            shared,
            flights: Arc::new(Flights::new()),
            loads: Loads::default(),
        };
        Self { core: Arc::new(core) }
    }

    /// The value under `key` in memory or in the shared layer, which then fills memory for the
    /// rest of its life.
    pub async fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(value) = self.core.memory.get(key) {
            return Some(value);
        }
        self.core.shared.as_ref()?;
        // Boxed, so that a hit does not carry the room for this.
        Box::pin(self.core.promote(key.to_owned())).await
    }

    /// The value under `key` in memory alone, without waiting.
    pub(crate) fn hit(&self, key: &K) -> Option<V> {
        self.core.memory.get(key)
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
    /// A hit in memory: one hash, one clock read, one clone of the value, no allocation.
    pub async fn get_or_load<Q, E, F, Fut>(&self, key: &Q, load: F) -> Result<V, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
    {
        if let Some(value) = self.core.memory.get(key) {
            return Ok(value);
        }
        self.load_missing(key.to_owned(), self.core.ttl, load).await
    }

    /// As [`get_or_load`](Self::get_or_load); a value loaded by this call lives `ttl`. With a
    /// `ttl` of zero it is handed to its callers and not stored.
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_with<Q, E, F, Fut>(
        &self,
        key: &Q,
        ttl: Duration,
        load: F,
    ) -> Result<V, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
    {
        if let Some(value) = self.core.memory.get(key) {
            return Ok(value);
        }
        self.load_missing(key.to_owned(), ttl, load).await
    }

    /// Joins or leads the flight for a key that memory does not have.
    pub(crate) fn load_missing<E, F, Fut>(
        &self,
        key: K,
        ttl: Duration,
        load: F,
    ) -> impl Future<Output = Result<V, LoadError<E>>> + Send + use<K, V, E, F, Fut>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
    {
        let core = Arc::clone(&self.core);
        // Boxed, so that a hit does not carry the room for this.
        Box::pin(async move {
            let landing = match core.flights.join(&key, || core.memory.peek(&key)) {
                Join::Hit(value) => return Ok(value),
                Join::Wait(landing) => {
                    core.loads.coalesced.fetch_add(1, Ordering::Relaxed);
                    landing
                }
                Join::Lead(lead, landing) => {
                    load::spawn(load::fly(core, lead, ttl, load));
                    landing
                }
            };
            landing.wait().await.map_err(LoadError::from)
        })
    }

    /// Stores a value for the cache's own lifetime. It replaces whatever is there and wins over
    /// a load under way.
    pub async fn insert(&self, key: K, value: V) {
        self.insert_with(key, value, self.core.ttl).await;
    }

    /// Stores a value for `ttl`. Zero removes the key.
    pub async fn insert_with(&self, key: K, value: V, ttl: Duration) {
        let life = self.core.lifetime(ttl);
        if life.is_zero() {
            self.remove(&key).await;
            return;
        }
        let core = &self.core;
        let store = || core.memory.insert(key.clone(), value.clone(), life);
        if core.shared.is_none() {
            core.flights.void(&key, store);
            return;
        }
        let (before, ticket) = core.flights.replace(&key, store);
        let core = Arc::clone(core);
        let write = async move {
            before.wait().await;
            if let Some(shared) = core.shared.as_ref().filter(|_| !ticket.is_void()) {
                let text = ticket.key().text();
                let written = shared.set(&text, &value, wall_ms(), life).await;
                // What it should have replaced may stand there still.
                shared.distrust_unless(&written);
            }
        };
        // The task is dropped only with its runtime, and then nobody reads what it left.
        load::spawn(write).await.ok();
    }

    /// Removes one key from every layer.
    pub async fn remove<Q>(&self, key: &Q) -> Removal
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
    {
        let core = &self.core;
        let hold = core.shared.as_ref().map(|_| core.flights.hold(key.to_owned()));
        let before = core.flights.void(key, || core.memory.remove(key));
        let Some(hold) = hold else { return Removal::Complete };
        self.clear_shared(before, hold, Target::Key(key.text())).await
    }

    /// Removes every key whose text matches `pattern`, from every layer; see [`Pattern`] for
    /// what it may hold, and [`Pattern::escape`] for parts that come from outside.
    ///
    /// No load under way anywhere in this cache is stored after it.
    ///
    /// # Cost
    /// Looks at every entry in memory, without waiting, and at every key in the shared store, in
    /// steps. Not for a hot path.
    pub async fn remove_matching(&self, pattern: &str) -> Removal {
        let pattern = Pattern::new(pattern);
        let (before, hold) = self.core.flights.sweep();
        self.core.memory.remove_matching(&pattern);
        self.clear_shared(before, hold, Target::Matching(pattern)).await
    }

    /// Removes everything, from every layer.
    ///
    /// # Cost
    /// Memory is cleared at once; the shared store is looked through in steps, as for
    /// [`remove_matching`](Self::remove_matching).
    pub async fn clear(&self) -> Removal {
        let (before, hold) = self.core.flights.sweep();
        self.core.memory.clear();
        self.clear_shared(before, hold, Target::Matching(Pattern::everything())).await
    }

    /// What the cache has done so far.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let core = &*self.core;
        let LoadCounts { started, succeeded, failed, panicked, timed_out, aborted } =
            core.loads.read();
        CacheStats {
            name: core.name.to_string(),
            memory: core.memory.stats(),
            shared: core.shared.as_ref().map(Shared::stats),
            loads: started,
            load_successes: succeeded,
            load_errors: failed,
            load_panics: panicked,
            load_timeouts: timed_out,
            load_aborted: aborted,
            loads_in_flight: started - succeeded - failed - panicked - timed_out - aborted,
            coalesced: core.loads.coalesced.load(Ordering::Relaxed),
            discarded: core.loads.discarded.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.core.ttl
    }

    /// Clears the shared layer after memory. `hold` keeps loads from reading there until then.
    async fn clear_shared(
        &self,
        before: Predecessors,
        hold: Hold<K, V>,
        target: Target,
    ) -> Removal {
        if self.core.shared.is_none() {
            return Removal::Complete;
        }
        let core = Arc::clone(&self.core);
        let clear = async move {
            before.wait().await;
            let outcome = match (&core.shared, target) {
                (Some(shared), Target::Key(text)) => shared.remove(&text).await,
                (Some(shared), Target::Matching(pattern)) => shared.remove_matching(&pattern).await,
                (None, _) => Ok(()),
            };
            drop(hold);
            outcome
        };
        match load::spawn(clear).await {
            Ok(Ok(())) => Removal::Complete,
            Ok(Err(error)) => Removal::MemoryOnly(error),
            Err(error) => Removal::MemoryOnly(StoreError::failed(error)),
        }
    }
}

impl<K, V> Core<K, V>
where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The lifetime of one value: never longer than `ttl`, nor than ten years, past which
    /// clocks overflow.
    pub(crate) fn lifetime(&self, ttl: Duration) -> Duration {
        ttl.min(MAX_LIFE).mul_f64(1.0 - self.jitter * fastrand::f64())
    }

    /// Reads the shared layer and fills memory from it.
    async fn promote(&self, key: K) -> Option<V> {
        let ticket = self.flights.promote(&key)?;
        let (value, left) = self.shared.as_ref()?.get(&key.text()).await?;
        let stored = ticket.publish(false, || {
            // A load that ended meanwhile brought something newer.
            if self.memory.peek(&key).is_none() {
                self.memory.insert(key.clone(), value.clone(), left);
            }
        });
        if !stored {
            self.loads.discarded.fetch_add(1, Ordering::Relaxed);
        }
        Some(value)
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

/// What to clear in the shared layer.
enum Target {
    Key(String),
    Matching(Pattern),
}

const MAX_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
