//! The handle: what all layers over one HTTP cache share, and how to purge it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Uri};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::builder::CacheBuilder;
use crate::cache::Cache;
use crate::config::{CacheConfig, ConfigError, Memory};
use crate::http::config::HttpCacheConfig;
use crate::http::engine::UnixMs;
use crate::http::flight::Flights;
use crate::http::key;
use crate::http::landing::Landing;
use crate::http::marks::Marks;
use crate::http::stats::{Counts, Gauges, HttpCacheStats};
use crate::http::store::{LONGEST, Store};
use crate::http::stored::{SHAPE, StoredResponse};
use crate::shared::wall_ms;
use crate::write::Removal;

/// A cache of HTTP responses, behind any number of [`HttpCacheLayer`](crate::http::HttpCacheLayer)s.
///
/// Clones are cheap and share everything. Its responses stand in a [`Cache`] as tagged entries,
/// so it has that cache's layers, bounds and messages between processes.
///
/// # Purging
/// Every purge takes what is fresh and what is stale, all variants of a target, all layers, and
/// makes answers under way void: who asks after it has returned gets nothing from before it. A
/// soft purge makes responses stale instead: they are revalidated, and served where stale
/// responses may be.
///
/// Tenants cannot reach each other: `tenant` is what the layer's
/// [`tenant`](crate::http::HttpCacheLayer::tenant) function found, `None` for none.
#[derive(Clone)]
pub struct HttpCache {
    pub(crate) inner: Arc<Inner>,
}

/// Room for the longest body that is stored by default, and its head.
const LONGEST_VALUE: usize = 2 * 1024 * 1024;

/// What the handles, services and tasks of one HTTP cache share.
pub(crate) struct Inner {
    pub(crate) config: HttpCacheConfig,
    pub(crate) store: Store,
    pub(crate) flights: Arc<Flights<Landing>>,
    pub(crate) marks: Marks,
    pub(crate) counts: Arc<Counts>,
    pub(crate) background: Arc<Semaphore>,
    clock: Option<Clock>,
}

type Clock = Box<dyn Fn() -> SystemTime + Send + Sync>;

impl HttpCache {
    /// An HTTP cache whose responses stand in `cache`.
    ///
    /// # Errors
    /// The first setting that breaks its rule.
    pub fn new(
        cache: Cache<String, StoredResponse>,
        config: HttpCacheConfig,
    ) -> Result<Self, ConfigError> {
        Self::build(cache, config, None)
    }

    /// The same with a clock of its own, which ages and lifetimes are reckoned by: for tests.
    ///
    /// # Errors
    /// The first setting that breaks its rule.
    pub fn with_clock(
        cache: Cache<String, StoredResponse>,
        config: HttpCacheConfig,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        Self::build(cache, config, Some(Box::new(clock)))
    }

    /// Starts to build the cache for the responses: as [`Cache::builder`], with the lifetimes of
    /// its layers and its jitter out of the way, so that each response's own lifetime counts.
    ///
    /// Its capacity is that of [`Memory`]'s default. To set another, give the lifetime again, or
    /// [`Memory`]'s own of ten minutes ends what was found in the shared layer before its time:
    /// `.memory(Memory::entries(5_000).ttl(Duration::from_secs(7 * 24 * 3_600)))`. If bodies differ
    /// much in length, bound it by bytes, with [`StoredResponse::weight`].
    pub fn storage(name: impl Into<String>) -> CacheBuilder<String, StoredResponse> {
        Cache::builder(CacheConfig::new(name))
            .memory(Memory::default().ttl(LONGEST))
            .ttl(LONGEST)
            .shared_ttl(LONGEST)
            .jitter(0.0)
            .max_value_bytes(LONGEST_VALUE)
            .schema_version(SHAPE)
    }

    /// The cache in which the responses stand.
    #[must_use]
    pub fn cache(&self) -> &Cache<String, StoredResponse> {
        self.inner.store.cache()
    }

    /// Removes every variant of a target. `uri` needs its authority as clients send it in `Host`,
    /// unless [`key_by_host`](HttpCacheConfig::key_by_host) is off.
    pub async fn purge_uri(&self, tenant: Option<&str>, uri: &Uri) -> Removal {
        self.take_uri(tenant, uri, false).await
    }

    /// Makes every variant of a target stale; see [`purge_uri`](Self::purge_uri).
    pub async fn soft_purge_uri(&self, tenant: Option<&str>, uri: &Uri) -> Removal {
        self.take_uri(tenant, uri, true).await
    }

    /// Removes every response that named `tag` in `Surrogate-Key` or `Cache-Tag`.
    pub async fn purge_tag(&self, tenant: Option<&str>, tag: &str) -> Removal {
        self.inner.take_tag(&key::surrogate_tag(tenant, tag), false).await
    }

    /// Makes every response that named `tag` stale.
    pub async fn soft_purge_tag(&self, tenant: Option<&str>, tag: &str) -> Removal {
        self.inner.take_tag(&key::surrogate_tag(tenant, tag), true).await
    }

    /// Removes every response of a tenant.
    pub async fn purge_tenant(&self, tenant: &str) -> Removal {
        self.inner.take_tag(&key::tenant_tag(tenant), false).await
    }

    /// Makes every response of a tenant stale.
    pub async fn soft_purge_tenant(&self, tenant: &str) -> Removal {
        self.inner.take_tag(&key::tenant_tag(tenant), true).await
    }

    /// Removes everything.
    pub async fn clear(&self) -> Removal {
        self.inner.flights.detach(|_| true);
        self.inner.store.clear().await
    }

    /// What the cache has done so far. The figures of the entries are those of
    /// [`cache`](Self::cache).
    #[must_use]
    pub fn stats(&self) -> HttpCacheStats {
        let inner = &*self.inner;
        let free = inner.background.available_permits();
        let gauges = Gauges {
            revalidations: inner.config.revalidations.saturating_sub(free),
            flights: inner.flights.under_way(),
        };
        inner.counts.read(&inner.config.name, gauges)
    }

    async fn take_uri(&self, tenant: Option<&str>, uri: &Uri, soft: bool) -> Removal {
        let by_host = self.inner.config.key_by_host;
        match key::primary(tenant, by_host, uri, &HeaderMap::new()) {
            Some(primary) => self.inner.take_target(&primary, soft).await,
            // Nothing is ever stored under such a target.
            None => Removal::Complete,
        }
    }

    fn build(
        cache: Cache<String, StoredResponse>,
        config: HttpCacheConfig,
        clock: Option<Clock>,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let inner = Inner {
            background: Arc::new(Semaphore::new(config.revalidations)),
            config,
            store: Store::new(cache),
            flights: Arc::new(Flights::new()),
            marks: Marks::new(Instant::now()),
            counts: Arc::default(),
            clock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Inner {
    pub(crate) fn now(&self) -> UnixMs {
        let Some(clock) = &self.clock else { return UnixMs(wall_ms()) };
        let since = clock().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Marks a key as one whose answers are not shared.
    pub(crate) fn mark(&self, key: &str) {
        if !self.config.hit_for_miss.is_zero() {
            self.marks.set(key, Instant::now(), self.config.hit_for_miss);
            self.counts.hit_for_miss.fetch_add(1, Ordering::Relaxed);
        }
    }

    // Flights leave the map before the removal begins: their origins may have been asked before
    // it. Who asks after that asks late enough, even while the removal is under way.

    pub(crate) async fn take_target(&self, primary: &str, soft: bool) -> Removal {
        self.flights.detach(|key| key::is_under(key, primary));
        self.store.remove_target(primary, soft).await
    }

    pub(crate) async fn take_tag(&self, tag: &str, soft: bool) -> Removal {
        // Which flights will have the tag is not known before they land.
        self.flights.detach(|_| true);
        self.store.remove_tag(tag, soft).await
    }
}

impl fmt::Debug for HttpCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCache").field("config", &self.inner.config).finish_non_exhaustive()
    }
}
