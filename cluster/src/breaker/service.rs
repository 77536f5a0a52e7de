//! The tower face: readiness of the inner service, a permit for each call.

use std::fmt;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use tower_service::Service;

use super::{
    AtHead, Breaker, Classify, Divert, Guard, JudgeAt, Permit, ReadRequest, Reject, ResponseFuture,
};

/// A service behind a breaker; made by [`BreakerLayer`](crate::BreakerLayer).
pub struct BreakerService<S, C, R, J = AtHead, G = Breaker> {
    inner: S,
    guard: G,
    classify: C,
    reject: R,
    /// Whether the inner service has said that it is ready and was not called since.
    inner_ready: bool,
    judge: PhantomData<fn() -> J>,
}

impl<S, C, R, J, G> BreakerService<S, C, R, J, G> {
    pub(super) fn new(inner: S, guard: G, classify: C, reject: R) -> Self {
        Self { inner, guard, classify, reject, inner_ready: false, judge: PhantomData }
    }

    /// What lets its calls in: a [`Breaker`], or a registry of them.
    pub fn guard(&self) -> &G {
        &self.guard
    }
}

impl<S, C, R, J, G, Req> Service<Req> for BreakerService<S, C, R, J, G>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error> + Clone,
    R: Divert<Req, S::Response, S::Error>,
    J: JudgeAt<S::Response> + ReadRequest<Req>,
    G: Guard<Req>,
{
    type Response = J::Response;
    type Error = <R as Reject<S::Error>>::Error;
    type Future = ResponseFuture<S::Future, R::Future, C, R, J>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if !self.inner_ready && self.guard.rejects().is_some() {
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
            && let Some(permit) = self.guard.admit_at_once()
        {
            return self.pass(request, permit);
        }
        self.call_slowly(request)
    }
}

/// The future of a service for requests of one type.
type FutureOf<S, C, R, J, Req> = ResponseFuture<
    <S as Service<Req>>::Future,
    <R as Divert<Req, <S as Service<Req>>::Response, <S as Service<Req>>::Error>>::Future,
    C,
    R,
    J,
>;

impl<S, C: Clone, R, J, G> BreakerService<S, C, R, J, G> {
    #[cold]
    fn call_slowly<Req>(&mut self, request: Req) -> FutureOf<S, C, R, J, Req>
    where
        S: Service<Req>,
        R: Divert<Req, S::Response, S::Error>,
        J: ReadRequest<Req>,
        G: Guard<Req>,
    {
        if !self.inner_ready {
            let open = self.guard.refuse();
            return ResponseFuture::rejected(self.reject.divert(request, open));
        }
        match self.guard.admit_slowly(&request) {
            Ok(permit) => self.pass(request, permit),
            // The inner service stays ready for the next call.
            Err(open) => ResponseFuture::rejected(self.reject.divert(request, open)),
        }
    }

    #[inline]
    fn pass<Req>(&mut self, request: Req, permit: Permit) -> FutureOf<S, C, R, J, Req>
    where
        S: Service<Req>,
        R: Divert<Req, S::Response, S::Error>,
        J: ReadRequest<Req>,
    {
        self.inner_ready = false;
        let bare = J::is_bare(&request);
        let inner = self.inner.call(request);
        ResponseFuture::admitted(inner, permit, self.classify.clone(), bare)
    }
}

impl<S: Clone, C: Clone, R: Clone, J, G: Clone> Clone for BreakerService<S, C, R, J, G> {
    /// The clone shares the circuit, not the readiness: that belongs to one inner service.
    fn clone(&self) -> Self {
        let (guard, classify) = (self.guard.clone(), self.classify.clone());
        Self::new(self.inner.clone(), guard, classify, self.reject.clone())
    }
}

impl<S: fmt::Debug, C, R, J, G: fmt::Debug> fmt::Debug for BreakerService<S, C, R, J, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerService")
            .field("inner", &self.inner)
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}
