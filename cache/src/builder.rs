//! Builds a cache from its settings and the things that are no settings.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::Cache;
use crate::codec::{Codec, Encoding};
use crate::compression::Compression;
use crate::config::{CacheConfig, Coherence, ConfigError, Memory, Unit, check};
use crate::freshness::EarlyRefresh;
use crate::key::CacheKey;
use crate::memory::Weigher;
use crate::shared::SharedStore;

/// Builds a [`Cache`]; made by [`Cache::builder`].
pub struct CacheBuilder<K, V> {
    config: CacheConfig,
    parts: Parts<K, V>,
}

/// What is no setting.
pub(crate) struct Parts<K, V> {
    pub(crate) shared: Option<(Arc<dyn SharedStore>, Codec<V>)>,
    pub(crate) weigher: Option<Weigher<K, V>>,
}

impl<K, V> CacheBuilder<K, V> {
    pub(crate) fn new(config: CacheConfig) -> Self {
        Self { config, parts: Parts { shared: None, weigher: None } }
    }

    /// Sets [`CacheConfig::ttl`].
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.config.ttl = ttl;
        self
    }

    /// Sets [`CacheConfig::memory`].
    #[must_use]
    pub fn memory(mut self, memory: Memory) -> Self {
        self.config.memory = memory;
        self
    }

    /// Sets [`CacheConfig::shared_ttl`].
    #[must_use]
    pub fn shared_ttl(mut self, ttl: Duration) -> Self {
        self.config.shared_ttl = ttl;
        self
    }

    /// Sets [`CacheConfig::jitter`].
    #[must_use]
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.config.jitter = jitter;
        self
    }

    /// Sets [`CacheConfig::load_timeout`].
    #[must_use]
    pub fn load_timeout(mut self, timeout: Duration) -> Self {
        self.config.load_timeout = timeout;
        self
    }

    /// Sets [`CacheConfig::max_value_bytes`].
    #[must_use]
    pub fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.config.max_value_bytes = bytes;
        self
    }

    /// Sets [`CacheConfig::schema_version`].
    #[must_use]
    pub fn schema_version(mut self, version: u32) -> Self {
        self.config.schema_version = version;
        self
    }

    /// Sets [`CacheConfig::absent_ttl`].
    #[must_use]
    pub fn absent_ttl(mut self, ttl: Duration) -> Self {
        self.config.absent_ttl = ttl;
        self
    }

    /// Sets [`CacheConfig::stale`].
    #[must_use]
    pub fn stale(mut self, stale: Duration) -> Self {
        self.config.stale = stale;
        self
    }

    /// Sets [`CacheConfig::stale_while_revalidate`].
    #[must_use]
    pub fn stale_while_revalidate(mut self, stale: Duration) -> Self {
        self.config.stale_while_revalidate = stale;
        self
    }

    /// Sets [`CacheConfig::stale_throttle`].
    #[must_use]
    pub fn stale_throttle(mut self, throttle: Duration) -> Self {
        self.config.stale_throttle = throttle;
        self
    }

    /// Sets [`CacheConfig::early_refresh`].
    #[must_use]
    pub fn early_refresh(mut self, early: EarlyRefresh) -> Self {
        self.config.early_refresh = early;
        self
    }

    /// Sets [`CacheConfig::soft_timeout`].
    #[must_use]
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.config.soft_timeout = Some(timeout);
        self
    }

    /// Sets [`CacheConfig::hard_timeout`].
    #[must_use]
    pub fn hard_timeout(mut self, timeout: Duration) -> Self {
        self.config.hard_timeout = Some(timeout);
        self
    }

    /// Sets [`CacheConfig::load_lock`].
    #[must_use]
    pub fn load_lock(mut self, time: Duration) -> Self {
        self.config.load_lock = Some(time);
        self
    }

    /// Sets [`CacheConfig::coherence`].
    #[must_use]
    pub fn coherence(mut self, coherence: Coherence) -> Self {
        self.config.coherence = coherence;
        self
    }

    /// Sets [`CacheConfig::encoding`].
    #[must_use]
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.config.encoding = encoding;
        self
    }

    /// Sets [`CacheConfig::compression`].
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = compression;
        self
    }

    /// Puts a shared layer between memory and the source, values encoded by postcard.
    ///
    /// No fault of the store ever reaches a caller: what cannot be read is loaded.
    #[must_use]
    pub fn shared(mut self, store: impl SharedStore) -> Self
    where
        V: Serialize + DeserializeOwned,
    {
        self.parts.shared = Some((Arc::new(store), Codec::new()));
        self
    }

    /// Sets how many bytes a key and its value take, for [`Memory::bytes`]. It is asked once for
    /// each entry that goes into memory; 128 are added for the entry itself. An entry that weighs
    /// more than the whole memory is not kept.
    #[must_use]
    pub fn weigher(mut self, weigh: impl Fn(&K, &V) -> usize + Send + Sync + 'static) -> Self {
        let weigh = move |key: &K, value: &V| u32::try_from(weigh(key, value)).unwrap_or(u32::MAX);
        self.parts.weigher = Some(Arc::new(weigh));
        self
    }

    /// Builds the cache.
    ///
    /// # Errors
    /// The first setting that breaks its rule.
    pub fn build(self) -> Result<Cache<K, V>, ConfigError>
    where
        K: CacheKey + Hash + Eq + Clone + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        self.config.validate()?;
        let Self { config, parts } = self;
        let weighs = parts.weigher.is_some() == (config.memory.unit == Unit::Bytes);
        let rule = "bytes need a weigher, and a weigher needs bytes";
        check("memory.unit", config.memory.unit, weighs, rule)?;
        Ok(Cache::new(config, parts))
    }
}

impl<K, V> fmt::Debug for CacheBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("config", &self.config)
            .field("shared", &self.parts.shared.is_some())
            .finish_non_exhaustive()
    }
}
