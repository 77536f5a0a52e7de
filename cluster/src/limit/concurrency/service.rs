//! The service with a concurrency limit around it.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::turn::Turn;
use super::{Answer, ConcurrencyLimit, ConcurrencyLimitFuture};
use crate::Classify;

/// A service behind a concurrency limit; made by
/// [`ConcurrencyLimitLayer`](crate::ConcurrencyLimitLayer).
pub struct ConcurrencyLimitService<S, C, A> {
    inner: S,
    limit: ConcurrencyLimit,
    classify: C,
    count_abandoned: bool,
    /// Whether the inner service has said that it is ready and was not called since.
    inner_ready: bool,
    answer: PhantomData<fn() -> A>,
}

impl<S, C, A> ConcurrencyLimitService<S, C, A> {
    pub(super) fn new(
        inner: S,
        limit: ConcurrencyLimit,
        classify: C,
        count_abandoned: bool,
    ) -> Self {
        Self { inner, limit, classify, count_abandoned, inner_ready: false, answer: PhantomData }
    }

    /// The limit it obeys.
    pub fn limit(&self) -> &ConcurrencyLimit {
        &self.limit
    }
}

impl<S, C, A, Req> Service<Req> for ConcurrencyLimitService<S, C, A>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error> + Clone,
    A: Answer<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = A::Error;
    type Future = ConcurrencyLimitFuture<S, Req, C, A>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if !self.inner_ready && self.limit.core.is_full() {
            // The call will be refused without the inner service, or wait with a clone of it.
            return Poll::Ready(Ok(()));
        }
        let answer = self.inner.poll_ready(cx);
        self.inner_ready = matches!(answer, Poll::Ready(Ok(())));
        answer.map_err(A::passed_on)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let core = &self.limit.core;
        if self.inner_ready
            && let Some(permit) = self.limit.try_permit()
        {
            self.inner_ready = false;
            let inner = self.inner.call(request);
            let permit = permit.count_abandoned(self.count_abandoned);
            return ConcurrencyLimitFuture::admitted(inner, permit, self.classify.clone());
        }
        if std::mem::take(&mut self.inner_ready) {
            // The place went to somebody else since `poll_ready`. What was reserved there is dropped
            // with the old value: nobody may come to use it.
            let unready = self.inner.clone();
            drop(std::mem::replace(&mut self.inner, unready));
        }
        if core.may_wait() {
            let turn = Turn::new(Arc::clone(core)).count_abandoned(self.count_abandoned);
            let inner = self.inner.clone();
            return ConcurrencyLimitFuture::waiting(turn, inner, request, self.classify.clone());
        }
        // Also if a place has become free since `poll_ready` found none: the inner service was not
        // made ready.
        ConcurrencyLimitFuture::refused(core.reject(), self.classify.clone())
    }
}

impl<S: Clone, C: Clone, A> Clone for ConcurrencyLimitService<S, C, A> {
    /// The clone shares the limit, not the readiness: that belongs to one inner service.
    fn clone(&self) -> Self {
        let (limit, classify) = (self.limit.clone(), self.classify.clone());
        Self::new(self.inner.clone(), limit, classify, self.count_abandoned)
    }
}

impl<S: fmt::Debug, C, A> fmt::Debug for ConcurrencyLimitService<S, C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimitService")
            .field("inner", &self.inner)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
