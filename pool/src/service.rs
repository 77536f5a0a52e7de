//! The pool as a tower service: a request for `()` is answered with a lease.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use crate::acquire::Acquire;
use crate::error::PoolError;
use crate::gate::{Entry, Lane, Permit, Place, Ticket};
use crate::lease::Lease;
use crate::manager::Manager;
use crate::meter::Outcome;
use crate::pool::Pool;
use crate::shared::{Admitted, Progress, Rest, Shared};

/// How far one clone of a pool is on its way to a permit.
#[derive(Debug, Default)]
pub(crate) enum Readiness {
    #[default]
    Unasked,
    Waiting(Ticket, Place<Permit>, Pin<Box<Patience>>),
    /// A permit, or why the call will fail, and how long it was waited for.
    Ready(Ticket, Result<Permit, PoolError>, Duration),
}

pin_project! {
    /// How long a clone waits to become ready.
    #[derive(Debug)]
    pub(crate) struct Patience {
        began: Instant,
        #[pin]
        end: Sleep,
    }
}

/// The rest of an acquire after readiness: a connection for the permit.
#[must_use = "futures do nothing unless polled"]
pub struct AcquireFuture<M: Manager>(State<M>);

enum State<M: Manager> {
    Admitted(Arc<Shared<M>>, Admitted),
    Waiting(Rest<M>),
    Ended,
}

impl<M: Manager> Service<()> for Pool<M> {
    type Response = Lease<M>;
    type Error = PoolError;
    type Future = AcquireFuture<M>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PoolError>> {
        if let Readiness::Ready(_, Err(_), _) = &self.readiness
            && let Readiness::Ready(ticket, Err(error), _) = std::mem::take(&mut self.readiness)
        {
            // It was not called with it, and by now it may be an old story.
            ticket.settle(Outcome::of(&error));
        }
        let (ticket, permit, waited) = match std::mem::take(&mut self.readiness) {
            Readiness::Unasked => {
                let (ticket, entry) = self.shared.gate.enter(Lane::Ordinary);
                match entry {
                    Ok(Entry::Permit(permit)) => (ticket, Ok(permit), Duration::ZERO),
                    Err(error) => (ticket, Err(error), Duration::ZERO),
                    Ok(Entry::Queued(place)) => {
                        let began = Instant::now();
                        let end = Acquire::new().ends(began, self.shared.config.acquire_timeout);
                        let patience = Box::pin(Patience { began, end: sleep_until(end) });
                        self.readiness = Readiness::Waiting(ticket, place, patience);
                        return self.poll_ready(cx);
                    }
                }
            }
            Readiness::Waiting(ticket, mut place, mut patience) => {
                let permit = if let Poll::Ready(permit) = Pin::new(&mut place).poll(cx) {
                    permit.ok_or(PoolError::Closed)
                } else if patience.as_mut().project().end.poll(cx).is_ready() {
                    Err(self.shared.saturated(patience.began))
                } else {
                    self.readiness = Readiness::Waiting(ticket, place, patience);
                    return Poll::Pending;
                };
                (ticket, permit, patience.began.elapsed())
            }
            Readiness::Ready(ticket, permit, waited) => (ticket, permit, waited),
        };
        self.readiness = Readiness::Ready(ticket, permit, waited);
        Poll::Ready(Ok(()))
    }

    #[track_caller]
    fn call(&mut self, (): ()) -> AcquireFuture<M> {
        let now = Instant::now();
        let (ticket, permit, waited) = match std::mem::take(&mut self.readiness) {
            Readiness::Ready(ticket, permit, waited) => (ticket, permit, waited),
            // Called unready: a mistake of the caller that costs him the order of the queue.
            Readiness::Unasked | Readiness::Waiting(..) => {
                let (shared, place) = (Arc::clone(&self.shared), Location::caller());
                let rest = async move { Shared::acquire(&shared, Acquire::new(), place).await };
                return AcquireFuture(State::Waiting(Box::pin(rest)));
            }
        };
        // What a clone waits to become ready counts; the time it is ready and not called does not.
        let began = now.checked_sub(waited).unwrap_or(now);
        let deadline = Acquire::new().ends(began, self.shared.config.acquire_timeout);
        let place = Location::caller();
        let admitted = Admitted { ticket, permit, began, now, deadline, place };
        AcquireFuture(State::Admitted(Arc::clone(&self.shared), admitted))
    }
}

impl<M: Manager> Future for AcquireFuture<M> {
    type Output = Result<Lease<M>, PoolError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match std::mem::replace(&mut self.0, State::Ended) {
                State::Admitted(shared, admitted) => match Shared::admit(&shared, admitted) {
                    Progress::Ended(result) => return Poll::Ready(result),
                    Progress::Waits(rest) => self.0 = State::Waiting(rest),
                },
                State::Waiting(mut rest) => {
                    let poll = rest.as_mut().poll(cx);
                    if poll.is_pending() {
                        self.0 = State::Waiting(rest);
                    }
                    return Poll::Ready(ready!(poll));
                }
                State::Ended => panic!("polled after it has ended"),
            }
        }
    }
}

// Nothing in it is pinned in place.
impl<M: Manager> Unpin for AcquireFuture<M> {}

impl<M: Manager> fmt::Debug for AcquireFuture<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireFuture").finish_non_exhaustive()
    }
}
