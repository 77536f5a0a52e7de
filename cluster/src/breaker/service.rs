//! The tower face: readiness of the inner service, a permit for each call.

use std::fmt;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use tower_service::Service;

use super::{
    AtHead, Breaker, Classify, Divert, Guard, JudgeAt, Open, Permit, ReadRequest, Reject,
    ResponseFuture,
};

/// A service behind a breaker; made by [`BreakerLayer`](crate::BreakerLayer).
pub struct BreakerService<S, C, R, J = AtHead, G = Breaker> {
    inner: S,
    guard: G,
    classify: C,
    reject: R,
    /// Whether the inner service has said that it is ready and was not called since.
    inner_ready: bool,
    count_abandoned: bool,
    judge: PhantomData<fn() -> J>,
}

impl<S, C, R, J, G> BreakerService<S, C, R, J, G> {
    pub(super) fn new(
        inner: S,
        guard: G,
        (classify, reject): (C, R),
        count_abandoned: bool,
    ) -> Self {
        let judge = PhantomData;
        Self { inner, guard, classify, reject, inner_ready: false, count_abandoned, judge }
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
        match answer {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            // What keeps it busy may be the very calls that are reason to reject this one.
            Poll::Pending if self.guard.rejects_after_a_look() => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => {
                self.guard.unready(self.classify.classify(Err(&error)));
                Poll::Ready(Err(R::passed_on(error)))
            }
        }
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        // Ways that join before the future is made: one that goes on elsewhere would have to know
        // where it is to be, and so keep it in memory for all of them.
        let at_once = if self.inner_ready { self.guard.admit_at_once() } else { None };
        let mut permit = match at_once {
            Some(permit) => permit,
            None => match self.admit_slowly(&request) {
                Ok(permit) => permit,
                // An inner service that is ready stays so for the next call.
                Err(open) => return ResponseFuture::rejected(self.reject.divert(request, open)),
            },
        };
        if !self.count_abandoned {
            permit.excuse();
        }
        self.inner_ready = false;
        let bare = J::is_bare(&request);
        let inner = self.inner.call(request);
        ResponseFuture::admitted(inner, permit, self.classify.clone(), bare)
    }
}

impl<S, C, R, J, G> BreakerService<S, C, R, J, G> {
    #[cold]
    #[inline(never)]
    fn admit_slowly<Req>(&self, request: &Req) -> Result<Permit, Open>
    where
        G: Guard<Req>,
    {
        if self.inner_ready { self.guard.admit_slowly(request) } else { Err(self.guard.refuse()) }
    }
}

impl<S: Clone, C: Clone, R: Clone, J, G: Clone> Clone for BreakerService<S, C, R, J, G> {
    /// The clone shares the circuit, not the readiness: that belongs to one inner service.
    fn clone(&self) -> Self {
        let ways = (self.classify.clone(), self.reject.clone());
        Self::new(self.inner.clone(), self.guard.clone(), ways, self.count_abandoned)
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
