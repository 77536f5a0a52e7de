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
            // `Some` until the inner future has ended.
            permit: Option<Permit>,
            classify: C,
        },
        // `Some` until it has been handed out.
        Rejected { open: Option<Open> },
    }
}

impl<F, C, R> ResponseFuture<F, C, R> {
    pub(super) fn admitted(inner: F, permit: Permit, classify: C) -> Self {
        let call = Call::Admitted { inner, permit: Some(permit), classify };
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

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().call.project() {
            CallProjection::Admitted { inner, permit: slot, classify } => {
                // Taken out while the inner future runs: if that panics, the permit is dropped by
                // the panic itself, and not later by whoever caught it.
                let mut permit = slot.take().expect("not polled after it has ended");
                let Poll::Ready(result) = inner.poll(cx) else {
                    permit.start_age();
                    *slot = Some(permit);
                    return Poll::Pending;
                };
                let outcome = classify.classify(result.as_ref());
                permit.judged(outcome);
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
