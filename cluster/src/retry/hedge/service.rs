//! The service whose late requests are sent twice.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use tower::retry::budget::Budget;
use tower_service::Service;

use super::{HedgeFuture, Shared};
use crate::RetryRules;

/// A service with a hedge around it; made by [`HedgeLayer`](crate::HedgeLayer).
#[derive(Clone)]
pub struct HedgeService<S, R> {
    inner: S,
    shared: Arc<Shared>,
    rules: R,
}

impl<S, R> HedgeService<S, R> {
    pub(super) fn new(inner: S, shared: Arc<Shared>, rules: R) -> Self {
        Self { inner, shared, rules }
    }
}

impl<S, R, Req> Service<Req> for HedgeService<S, R>
where
    S: Service<Req> + Clone,
    R: RetryRules<Req, S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = HedgeFuture<S, Req, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        self.shared.requests.fetch_add(1, Relaxed);
        self.shared.budget.deposit();
        let copy =
            if self.rules.is_idempotent(&request) { self.rules.copy(&request) } else { None };
        // The service that was made ready sends the first. It then lies by, and is made ready anew if
        // it is needed.
        let unready = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, unready);
        let first = ready.call(request);
        let spare = copy.map(|copy| (copy, ready));
        HedgeFuture::new(first, spare, Arc::clone(&self.shared), self.rules.clone())
    }
}

impl<S: fmt::Debug, R> fmt::Debug for HedgeService<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeService").field("inner", &self.inner).finish_non_exhaustive()
    }
}
