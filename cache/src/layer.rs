//! The layer that puts a cache in front of a service.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use crate::cache::Cache;
use crate::service::CacheService;

/// Answers requests from a [`Cache`] and joins concurrent misses of one key into one call.
///
/// Use it in front of reads whose answers may be a little old. Do not use it for requests with
/// effects: a joined request runs once for all its callers.
///
/// # Example
/// ```
/// use escala_cache::{Cache, CacheLayer};
/// use std::convert::Infallible;
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let cache = Cache::<String, usize>::builder("lengths").build()?;
/// // The key of a request; `None` passes the cache by.
/// let layer = CacheLayer::new(cache.clone(), |word: &String| {
///     (!word.is_empty()).then(|| word.clone())
/// });
/// let mut service = ServiceBuilder::new()
///     .layer(layer)
///     .service(service_fn(async |word: String| Ok::<_, Infallible>(word.len())));
/// assert_eq!(service.ready().await?.call("moon".to_owned()).await?, 4);
/// assert_eq!(service.ready().await?.call("moon".to_owned()).await?, 4);
/// assert_eq!(cache.stats().loads, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Readiness and clones
/// `poll_ready` asks the inner service, since a miss needs it. A hit leaves it ready. Clones and
/// all services made from clones of one layer share the cache.
///
/// # Cancellation
/// Dropping the response future affects nobody else: the call of a miss runs in a task of its
/// own and fills the cache.
///
/// # Errors
/// [`BoxError`](crate::BoxError): the inner service's error as it is for a request without a
/// key; for one with a key a [`LoadError`](crate::LoadError) of [`ServiceError`](crate::ServiceError), which holds
/// the inner error that all callers of the joined call share.
///
/// # Cost
/// A hit allocates nothing but what the key function does. A miss boxes its future and spawns a
/// task.
pub struct CacheLayer<K, V, F> {
    cache: Cache<K, V>,
    key: Arc<F>,
}

impl<K, V, F> CacheLayer<K, V, F> {
    /// A layer over `cache`; `key` gives the key of a request, or `None` to pass the cache by.
    pub fn new<Request>(cache: Cache<K, V>, key: F) -> Self
    where
        F: Fn(&Request) -> Option<K>,
    {
        Self { cache, key: Arc::new(key) }
    }
}

impl<S, K, V, F> Layer<S> for CacheLayer<K, V, F> {
    type Service = CacheService<S, K, V, F>;

    fn layer(&self, inner: S) -> Self::Service {
        CacheService::new(inner, self.cache.clone(), Arc::clone(&self.key))
    }
}

impl<K, V, F> Clone for CacheLayer<K, V, F> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), key: Arc::clone(&self.key) }
    }
}

impl<K, V, F> fmt::Debug for CacheLayer<K, V, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLayer").field("cache", &self.cache).finish_non_exhaustive()
    }
}
