//! The service behind [`CacheLayer`](crate::CacheLayer).

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use crate::BoxError;
use crate::cache::Cache;
use crate::future::ResponseFuture;
use crate::key::CacheKey;
use crate::memory::Read;

/// A service whose responses are cached; made by [`CacheLayer`](crate::CacheLayer).
pub struct CacheService<S, K, V, F> {
    inner: S,
    cache: Cache<K, V>,
    key: Arc<F>,
}

/// The error of the inner service, shared by all callers of one call.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ServiceError(BoxError);

impl ServiceError {
    /// The inner error, to be downcast.
    #[must_use]
    pub fn get_ref(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl<S, K, V, F> CacheService<S, K, V, F> {
    pub(crate) fn new(inner: S, cache: Cache<K, V>, key: Arc<F>) -> Self {
        Self { inner, cache, key }
    }
}

impl<S, K, V, F, Request> Service<Request> for CacheService<S, K, V, F>
where
    S: Service<Request, Response = V> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    Request: Send + 'static,
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    F: Fn(&Request) -> Option<K>,
{
    type Response = V;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, V>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Some(key) = (self.key)(&request) else {
            return ResponseFuture::passed(self.inner.call(request));
        };
        let read = match self.cache.hit(&key) {
            Read::Hit(Some(value)) => return ResponseFuture::hit(value),
            read => read,
        };
        // The task takes the service that is ready and leaves a clone that is not: whether it
        // calls depends on the shared layer, long after this.
        let unready = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, unready);
        let load = move || {
            let call = ready.call(request);
            async move { call.await.map_err(|error| ServiceError(error.into())) }
        };
        let loaded = self.cache.load_missing(key, read, load);
        ResponseFuture::miss(async move { loaded.await.map_err(Into::into) })
    }
}

impl<S: Clone, K, V, F> Clone for CacheService<S, K, V, F> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), cache: self.cache.clone(), key: Arc::clone(&self.key) }
    }
}

impl<S: fmt::Debug, K, V, F> fmt::Debug for CacheService<S, K, V, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheService")
            .field("inner", &self.inner)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}
