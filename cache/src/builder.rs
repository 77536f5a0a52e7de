//! Builds a cache from its settings and the things that are no settings.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::Cache;
use crate::codec::Codec;
use crate::config::{CacheConfig, ConfigError, Memory};
use crate::key::CacheKey;
use crate::shared::SharedStore;

/// Builds a [`Cache`]; made by [`Cache::builder`].
pub struct CacheBuilder<K, V> {
    config: CacheConfig,
    shared: Option<(Arc<dyn SharedStore>, Codec<V>)>,
    key: std::marker::PhantomData<fn() -> K>,
}

impl<K, V> CacheBuilder<K, V> {
    pub(crate) fn new(config: CacheConfig) -> Self {
        Self { config, shared: None, key: std::marker::PhantomData }
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

    /// Puts a shared layer between memory and the source, values encoded by postcard.
    ///
    /// No fault of the store ever reaches a caller: what cannot be read is loaded.
    #[must_use]
    pub fn shared(mut self, store: impl SharedStore) -> Self
    where
        V: Serialize + DeserializeOwned,
    {
        self.shared = Some((Arc::new(store), Codec::new()));
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
        Ok(Cache::new(self.config, self.shared))
    }
}

impl<K, V> fmt::Debug for CacheBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("config", &self.config)
            .field("shared", &self.shared.is_some())
            .finish_non_exhaustive()
    }
}
