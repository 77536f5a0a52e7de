//! The call under way: first in the queue, if it must, then the inner future beside its permit.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::turn::Turn;
use super::{Answer, ConcurrencyPermit, Overloaded};
use crate::Classify;

pin_project! {
    /// The response of a [`ConcurrencyLimitService`](crate::ConcurrencyLimitService).
    #[must_use = "futures do nothing unless polled"]
    pub struct ConcurrencyLimitFuture<S, Req, C, A>
    where
        S: Service<Req>,
    {
        #[pin]
        call: Call<S, Req, S::Future>,
        classify: C,
        answer: PhantomData<fn() -> A>,
    }
}

pin_project! {
    #[project = CallProjection]
    enum Call<S, Req, F> {
        // Boxed: most calls find a place at once.
        Waiting { waiting: Box<Waiting<S, Req>> },
        Admitted {
            #[pin]
            inner: F,
            // `Some` until the inner future has ended.
            permit: Option<ConcurrencyPermit>,
        },
        // `Some` until it has been handed out.
        Refused { overloaded: Option<Overloaded> },
    }
}

struct Waiting<S, Req> {
    /// `None` once its turn has come.
    turn: Option<Turn>,
    permit: Option<ConcurrencyPermit>,
    inner: S,
    /// `None` once it has been sent.
    request: Option<Req>,
}

impl<S: Service<Req>, Req, C, A> ConcurrencyLimitFuture<S, Req, C, A> {
    pub(super) fn admitted(inner: S::Future, permit: ConcurrencyPermit, classify: C) -> Self {
        Self::new(Call::Admitted { inner, permit: Some(permit) }, classify)
    }

    pub(super) fn waiting(turn: Turn, inner: S, request: Req, classify: C) -> Self {
        let waiting = Waiting { turn: Some(turn), permit: None, inner, request: Some(request) };
        Self::new(Call::Waiting { waiting: Box::new(waiting) }, classify)
    }

    pub(super) fn refused(overloaded: Overloaded, classify: C) -> Self {
        Self::new(Call::Refused { overloaded: Some(overloaded) }, classify)
    }

    fn new(call: Call<S, Req, S::Future>, classify: C) -> Self {
        Self { call, classify, answer: PhantomData }
    }
}

/// Gives the place back if it is dropped.
struct Unwound<'a>(Option<&'a mut Option<ConcurrencyPermit>>);

impl<'a> Unwound<'a> {
    #[inline]
    fn defuse(mut self) -> Option<&'a mut Option<ConcurrencyPermit>> {
        self.0.take()
    }
}

impl Drop for Unwound<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            *permit = None;
        }
    }
}

/// What a waiting call comes to.
enum Turned<F> {
    Call(F, ConcurrencyPermit),
    Refused(Overloaded),
}

impl<S: Service<Req>, Req> Waiting<S, Req> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Turned<S::Future>, S::Error>> {
        if let Some(turn) = &mut self.turn {
            let turned = ready!(Pin::new(turn).poll(cx));
            self.turn = None;
            match turned {
                Ok(permit) => self.permit = Some(permit),
                Err(overloaded) => return Poll::Ready(Ok(Turned::Refused(overloaded))),
            }
        }
        // Taken out in case the inner service panics.
        let mut permit = self.permit.take().expect("not polled after it has ended");
        match self.inner.poll_ready(cx) {
            Poll::Pending => {
                self.permit = Some(permit);
                Poll::Pending
            }
            Poll::Ready(Err(error)) => {
                // There was no call.
                permit.record(crate::Outcome::Ignored);
                Poll::Ready(Err(error))
            }
            Poll::Ready(Ok(())) => {
                let request = self.request.take().expect("sent once");
                Poll::Ready(Ok(Turned::Call(self.inner.call(request), permit)))
            }
        }
    }
}

impl<S, Req, C, A> Future for ConcurrencyLimitFuture<S, Req, C, A>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
    A: Answer<S::Response, S::Error>,
{
    type Output = Result<S::Response, A::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.call.as_mut().project() {
                CallProjection::Waiting { waiting } => match ready!(waiting.poll(cx)) {
                    Ok(Turned::Call(inner, permit)) => {
                        this.call.set(Call::Admitted { inner, permit: Some(permit) });
                    }
                    Ok(Turned::Refused(overloaded)) => return Poll::Ready(A::refused(overloaded)),
                    Err(error) => return Poll::Ready(Err(A::passed_on(error))),
                },
                CallProjection::Admitted { inner, permit: slot } => {
                    // If the inner future or the classifier panics, the place is given back by that,
                    // and not later by whoever caught it.
                    let unwound = Unwound(Some(slot));
                    let judged = inner.poll(cx).map(|result| {
                        let outcome = this.classify.classify(result.as_ref()).outcome;
                        (result, outcome)
                    });
                    let slot = unwound.defuse().expect("defused once");
                    let (result, outcome) = ready!(judged);
                    // Where it is: moved from there, it cost as much as the rest of the call.
                    slot.as_mut().expect("not polled after it has ended").record(outcome);
                    return Poll::Ready(match result {
                        Ok(response) => Ok(A::hold(response, slot)),
                        Err(error) => {
                            *slot = None;
                            Err(A::passed_on(error))
                        }
                    });
                }
                CallProjection::Refused { overloaded } => {
                    let overloaded = overloaded.take().expect("not polled after it has ended");
                    return Poll::Ready(A::refused(overloaded));
                }
            }
        }
    }
}

impl<S: Service<Req>, Req, C, A> fmt::Debug for ConcurrencyLimitFuture<S, Req, C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimitFuture").finish_non_exhaustive()
    }
}
