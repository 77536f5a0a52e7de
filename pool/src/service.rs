//! The pool as a tower service: a request for `()` is answered with a lease.
//!
//! It is always ready. The wait for a connection happens in the returned future, with the pool's
//! deadline and bound, so that a caller who became ready and never called holds nothing.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tower_service::Service;

use crate::error::PoolError;
use crate::lease::Lease;
use crate::manager::Manager;
use crate::pool::Pool;

/// The wait for a lease.
pub struct AcquireFuture<L>(
    // Boxed, since bb8's future has no name. One allocation beside a round trip to a server.
    Pin<Box<dyn Future<Output = Result<L, PoolError>> + Send>>,
);

impl<L> AcquireFuture<L> {
    pub(crate) fn new(wait: impl Future<Output = Result<L, PoolError>> + Send + 'static) -> Self {
        Self(Box::pin(wait))
    }
}

impl<L> Future for AcquireFuture<L> {
    type Output = Result<L, PoolError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<L> fmt::Debug for AcquireFuture<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireFuture").finish_non_exhaustive()
    }
}

impl<M: Manager> Service<()> for Pool<M> {
    type Response = Lease<M>;
    type Error = PoolError;
    type Future = AcquireFuture<Lease<M>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), PoolError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let pool = self.clone();
        AcquireFuture::new(async move { pool.acquire().await })
    }
}
