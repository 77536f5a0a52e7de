//! The layer that puts an HTTP cache in front of a service.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use tower_layer::Layer;

use crate::http::engine::Policy;
use crate::http::handle::HttpCache;
use crate::http::purge::PurgeConfig;
use crate::http::route::Route;
use crate::http::service::HttpCacheService;

/// Answers `GET` and `HEAD` from an [`HttpCache`], by the rules of RFC 9111 for shared caches.
///
/// Use it in front of routes whose answers are the same for many. Do not put it outside of a layer
/// that authenticates, or inside of one that changes bodies by request (compression): see below.
///
/// # Example
/// ```
/// use axum::{Router, routing::get};
/// use escala_cache::http::{HttpCache, HttpCacheConfig, HttpCacheLayer};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), escala_cache::BoxError> {
/// let cache = HttpCache::new(HttpCache::storage("pages").build()?, HttpCacheConfig::default())?;
/// let minutes = |n: u64| HttpCacheLayer::new(cache.clone()).ttl(Duration::from_secs(n * 60));
///
/// let app: Router = Router::new()
///     .route("/prices", get(async || "42").layer(minutes(10)))
///     .route("/catalogue", get(async || "tea, coffee").layer(minutes(30)));
/// # Ok(())
/// # }
/// ```
///
/// # Readiness and clones
/// `poll_ready` asks the inner service, since a miss needs it. A hit leaves it ready; a request
/// that goes on takes the ready service and leaves a clone.
///
/// # State
/// All in the [`HttpCache`]. Layers over one share entries, purges and answers under way.
///
/// # Cancellation
/// A miss asks the origin in a task of its own: whoever goes away, the answer is stored and
/// whoever waits for it gets it. A request that is not to be shared (bypassed, unsafe, or marked as
/// uncacheable) is dropped with its future. If an unsafe one ends without an answer, its target is
/// removed, since its effect may have happened.
///
/// # Errors
/// The inner service's, as they are. A panic of the inner service goes on in the request that
/// caused it.
///
/// # Limits
/// Bodies over [`max_body_bytes`](crate::http::HttpCacheConfig::max_body_bytes) are served and not
/// stored. Targets over 8 KiB, and responses with more than 60 surrogate keys, are not stored.
///
/// # Cost
/// A fresh hit in memory: no lock of ours, no task, no box; the key, the headers and what is added
/// to them are allocated, the body is not copied. A miss boxes its future, spawns a task for the
/// question and one for the body, and copies the body once.
#[derive(Clone)]
pub struct HttpCacheLayer {
    route: Route,
}

impl HttpCacheLayer {
    /// A layer over `cache` with [`Policy::safe`].
    #[must_use]
    pub fn new(cache: HttpCache) -> Self {
        let policy = Policy::safe();
        Self { route: Route { cache, policy, bypass: None, tenant: None, purge: None } }
    }

    /// Sets the whole policy. One that comes from a file wants [`Policy::validate`] first.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.route.policy = policy;
        self
    }

    /// Sets [`Policy::default_ttl`]: the lifetime of a response that names none.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.route.policy.default_ttl = Some(ttl);
        self
    }

    /// Sets [`Policy::forced_ttl`]: the lifetime of a response, whatever it names.
    #[must_use]
    pub fn forced_ttl(mut self, ttl: Duration) -> Self {
        self.route.policy.forced_ttl = Some(ttl);
        self
    }

    /// Requests for which `bypass` is true are neither answered from the store nor stored, for
    /// instance those of administrators. Their unsafe requests invalidate as all others do.
    #[must_use]
    pub fn bypass(mut self, bypass: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.route.bypass = Some(Arc::new(bypass));
        self
    }

    /// Whose a request is, by something that the client cannot choose at will (what a layer
    /// outside of this one has verified). Tenants share nothing, not even the names of
    /// surrogate keys; requests without one share what is nobody's.
    #[must_use]
    pub fn tenant(
        mut self,
        tenant: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.route.tenant = Some(Arc::new(tenant));
        self
    }

    /// Answers the `PURGE` method. Without it, `PURGE` goes to the inner service.
    #[must_use]
    pub fn purge(mut self, purge: PurgeConfig) -> Self {
        self.route.purge = Some(purge);
        self
    }
}

impl<S> Layer<S> for HttpCacheLayer {
    type Service = HttpCacheService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        HttpCacheService::new(inner, Arc::new(self.route.clone()))
    }
}

impl fmt::Debug for HttpCacheLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCacheLayer").field("route", &self.route).finish()
    }
}
