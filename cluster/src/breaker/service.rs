//! The service with a breaker around it.

use std::fmt;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use tower_service::Service;

use super::{Classify, Reject, ResponseFuture};
use crate::Breaker;

/// A service behind a breaker; made by [`BreakerLayer`](crate::BreakerLayer).
pub struct BreakerService<S, C, R> {
    inner: S,
    breaker: Breaker,
    classify: C,
    /// Whether the inner service has said that it is ready and was not called since.
    inner_ready: bool,
    reject: PhantomData<fn() -> R>,
}

impl<S, C, R> BreakerService<S, C, R> {
    pub(super) fn new(inner: S, breaker: Breaker, classify: C) -> Self {
        Self { inner, breaker, classify, inner_ready: false, reject: PhantomData }
    }

    /// The circuit it obeys.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }
}

impl<S, C, R, Req> Service<Req> for BreakerService<S, C, R>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error> + Clone,
    R: Reject<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = R::Error;
    type Future = ResponseFuture<S::Future, C, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if !self.inner_ready && self.breaker.rejects().is_some() {
            // The call will be rejected without the inner service, which may well be too busy with
            // calls that hang to become ready at all.
            return Poll::Ready(Ok(()));
        }
        let answer = self.inner.poll_ready(cx);
        self.inner_ready = matches!(answer, Poll::Ready(Ok(())));
        answer.map_err(R::passed_on)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        if self.inner_ready
            && let Some(permit) = self.breaker.admit_at_once()
        {
            self.inner_ready = false;
            let inner = self.inner.call(request);
            return ResponseFuture::admitted(inner, permit, self.classify.clone());
        }
        self.call_slowly(request)
    }
}

impl<S, C: Clone, R> BreakerService<S, C, R> {
    #[cold]
    fn call_slowly<Req>(&mut self, request: Req) -> ResponseFuture<S::Future, C, R>
    where
        S: Service<Req>,
    {
        if !self.inner_ready {
            return ResponseFuture::rejected(self.breaker.refuse());
        }
        match self.breaker.admit_slowly() {
            Ok(permit) => {
                self.inner_ready = false;
                let inner = self.inner.call(request);
                ResponseFuture::admitted(inner, permit, self.classify.clone())
            }
            // The inner service stays ready for the next call.
            Err(open) => ResponseFuture::rejected(open),
        }
    }
}

impl<S: Clone, C: Clone, R> Clone for BreakerService<S, C, R> {
    /// The clone shares the circuit, not the readiness: that belongs to one inner service.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.breaker.clone(), self.classify.clone())
    }
}

impl<S: fmt::Debug, C, R> fmt::Debug for BreakerService<S, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerService")
            .field("inner", &self.inner)
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}
