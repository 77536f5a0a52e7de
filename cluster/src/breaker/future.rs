//! The call under way: the inner future beside the permit it holds.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::{Classify, Open, Permit, Reject};

pin_project! {
    /// The response of a [`BreakerService`](crate::BreakerService).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C, R> {
        #[pin]
        call: Call<F, C>,
        reject: PhantomData<fn() -> R>,
    }
}

pin_project! {
    #[project = CallProjection]
    enum Call<F, C> {
        Admitted {
            #[pin]
            inner: F,
            permit: Permit,
            classify: C,
        },
        // `Some` until it has been handed out.
        Rejected { open: Option<Open> },
    }
}

impl<F, C, R> ResponseFuture<F, C, R> {
    #[inline]
    pub(super) fn admitted(inner: F, permit: Permit, classify: C) -> Self {
        let call = Call::Admitted { inner, permit, classify };
        Self { call, reject: PhantomData }
    }

    pub(super) fn rejected(open: Open) -> Self {
        Self { call: Call::Rejected { open: Some(open) }, reject: PhantomData }
    }
}

impl<F, C, R, Res, E> Future for ResponseFuture<F, C, R>
where
    F: Future<Output = Result<Res, E>>,
    C: Classify<Res, E>,
    R: Reject<Res, E>,
{
    type Output = Result<Res, R::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().call.project() {
            CallProjection::Admitted { inner, permit, classify } => {
                // If the inner future panics, the call ends by that, and not later when whoever
                // caught it drops this one.
                let guard = permit.guard();
                let Poll::Ready(result) = inner.poll(cx) else {
                    guard.defuse().start_age();
                    return Poll::Pending;
                };
                let judgement = classify.classify(result.as_ref());
                guard.defuse().settle(judgement);
                Poll::Ready(result.map_err(R::passed_on))
            }
            CallProjection::Rejected { open } => {
                Poll::Ready(R::rejected(open.take().expect("not polled after it has ended")))
            }
        }
    }
}

impl<F, C, R> fmt::Debug for ResponseFuture<F, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
