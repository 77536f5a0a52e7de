//! The request under way: waiting for a store, or with the inner service.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::Refund;
use super::reply::sealed::Reply;
use super::stack::{Ledger, Stack};
use super::waiting::{Waited, Waiting};

/// What a request has used, as long as it may be given back or told of.
type Kept<Req> = Option<(Arc<Stack<Req>>, Ledger)>;

/// What the service with limits around it answers.
type Answer<S, Req, R> = Result<
    <S as Service<Req>>::Response,
    <R as Reply<<S as Service<Req>>::Response, <S as Service<Req>>::Error>>::Error,
>;

pin_project! {
    /// The response of a [`RateLimitService`](crate::RateLimitService).
    #[must_use = "futures do nothing unless polled"]
    pub struct RateLimitFuture<S, Req, R, G>
    where
        S: Service<Req>,
        R: Reply<S::Response, S::Error>,
    {
        #[pin]
        state: State<S::Future, Answer<S, Req, R>, S, Req>,
        refund: Option<G>,
        reply: PhantomData<fn() -> R>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[project_replace = StateOwned]
    enum State<F, T, S, Req> {
        // In a box: it holds a whole service and a whole request, and goes with a round trip.
        Waiting { waiting: Box<Waiting<S, Req>> },
        Passed {
            #[pin]
            inner: F,
            kept: Kept<Req>,
        },
        // `Some` until it has been handed out.
        Done { result: Option<T> },
    }
}

impl<S, Req, R, G> RateLimitFuture<S, Req, R, G>
where
    S: Service<Req>,
    R: Reply<S::Response, S::Error>,
{
    pub(super) fn exempt(inner: S::Future, refund: G) -> Self {
        Self::passed(inner, None, refund)
    }

    pub(super) fn passed(inner: S::Future, kept: Kept<Req>, refund: G) -> Self {
        Self::new(State::Passed { inner, kept }, Some(refund))
    }

    pub(super) fn done(result: Answer<S, Req, R>) -> Self {
        Self::new(State::Done { result: Some(result) }, None)
    }

    pub(super) fn waiting(waiting: Waiting<S, Req>, refund: G) -> Self {
        Self::new(State::Waiting { waiting: Box::new(waiting) }, Some(refund))
    }

    fn new(state: State<S::Future, Answer<S, Req, R>, S, Req>, refund: Option<G>) -> Self {
        Self { state, refund, reply: PhantomData }
    }
}

impl<S, Req, R, G> Future for RateLimitFuture<S, Req, R, G>
where
    S: Service<Req>,
    R: Reply<S::Response, S::Error>,
    G: Refund<S::Response, S::Error>,
{
    type Output = Result<S::Response, R::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProjection::Waiting { waiting } => match ready!(waiting.poll(cx)) {
                    Waited::Passed { mut inner, request, stack, ledger } => {
                        State::Passed { inner: inner.call(request), kept: Some((stack, ledger)) }
                    }
                    Waited::Refused { refused, stack, ledger } => {
                        return Poll::Ready(R::refused(refused, &ledger, &stack));
                    }
                },
                StateProjection::Passed { inner, kept } => {
                    let result = ready!(inner.poll(cx));
                    return Poll::Ready(finish::<S, Req, R, G>(
                        result,
                        kept.take(),
                        this.refund.as_ref(),
                    ));
                }
                StateProjection::Done { result } => {
                    return Poll::Ready(result.take().expect("not polled after it has ended"));
                }
            };
            this.state.set(next);
        }
    }
}

fn finish<S, Req, R, G>(
    mut result: Result<S::Response, S::Error>,
    kept: Kept<Req>,
    refund: Option<&G>,
) -> Answer<S, Req, R>
where
    S: Service<Req>,
    R: Reply<S::Response, S::Error>,
    G: Refund<S::Response, S::Error>,
{
    if let Some((stack, ledger)) = kept {
        let refunded = refund.is_some_and(|refund| refund.is_due(result.as_ref()));
        if refunded {
            ledger.give_back(&stack);
        }
        if let Ok(response) = &mut result {
            R::advertise(response, &ledger, &stack, refunded);
        }
    }
    result.map_err(R::passed_on)
}

impl<S, Req, R, G> fmt::Debug for RateLimitFuture<S, Req, R, G>
where
    S: Service<Req>,
    R: Reply<S::Response, S::Error>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitFuture").finish_non_exhaustive()
    }
}
