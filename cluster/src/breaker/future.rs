//! The call under way: the inner future beside the permit it holds, or the answer to a rejection.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::{Classify, JudgeAt, Permit, Reject};

pin_project! {
    /// The response of a [`BreakerService`](crate::BreakerService): that of its service, `F`, or
    /// of what answers a rejected request, `D`.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, D, C, R, J> {
        #[pin]
        call: Call<F, D, C>,
        kind: PhantomData<fn() -> (R, J)>,
    }
}

pin_project! {
    #[project = CallProjection]
    enum Call<F, D, C> {
        Admitted {
            #[pin]
            inner: F,
            permit: Permit,
            classify: C,
            // Whether nobody will read the body of the response.
            bare: bool,
        },
        Rejected { #[pin] answer: D },
    }
}

impl<F, D, C, R, J> ResponseFuture<F, D, C, R, J> {
    #[inline]
    pub(super) fn admitted(inner: F, permit: Permit, classify: C, bare: bool) -> Self {
        let call = Call::Admitted { inner, permit, classify, bare };
        Self { call, kind: PhantomData }
    }

    pub(super) fn rejected(answer: D) -> Self {
        Self { call: Call::Rejected { answer }, kind: PhantomData }
    }
}

impl<F, D, C, R, J, Res, E> Future for ResponseFuture<F, D, C, R, J>
where
    F: Future<Output = Result<Res, E>>,
    D: Future<Output = Result<Res, R::Error>>,
    C: Classify<Res, E>,
    R: Reject<E>,
    J: JudgeAt<Res>,
{
    type Output = Result<J::Response, R::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().call.project() {
            CallProjection::Admitted { inner, permit, classify, bare } => {
                // If the inner future panics, the call ends by that, and not later when whoever
                // caught it drops this one.
                let guard = permit.guard();
                let Poll::Ready(result) = inner.poll(cx) else {
                    guard.defuse().start_age();
                    return Poll::Pending;
                };
                let judgement = classify.classify(result.as_ref());
                let permit = guard.defuse();
                Poll::Ready(match result {
                    Ok(response) => Ok(J::judged(response, permit, judgement, *bare)),
                    Err(error) => {
                        permit.settle(judgement);
                        Err(R::passed_on(error))
                    }
                })
            }
            CallProjection::Rejected { answer } => {
                Poll::Ready(ready!(answer.poll(cx)).map(J::passed_on))
            }
        }
    }
}

impl<F, D, C, R, J> fmt::Debug for ResponseFuture<F, D, C, R, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
