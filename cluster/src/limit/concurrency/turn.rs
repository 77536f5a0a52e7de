//! A caller in the queue for a place.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Sleep;

use super::core::{Admission, Core};
use super::{ConcurrencyPermit, Overloaded};

/// Becomes a permit, or [`Overloaded`] when it has waited long enough. Dropped before, it leaves the
/// queue, and passes on a place that it was just given.
pub(super) struct Turn {
    core: Arc<Core>,
    place: Place,
    count_abandoned: bool,
}

enum Place {
    /// Not seen yet.
    Before,
    /// In the queue. Boxed, since most callers never come here.
    Queued { number: u64, until: Pin<Box<Sleep>> },
    /// Out of it, in one way or the other.
    Left,
}

impl Turn {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, place: Place::Before, count_abandoned: true }
    }

    /// For the permit.
    pub(super) fn count_abandoned(mut self, yes: bool) -> Self {
        self.count_abandoned = yes;
        self
    }

    fn enter(&mut self, cx: &mut Context<'_>) -> Poll<Result<ConcurrencyPermit, Overloaded>> {
        self.place = Place::Left;
        match self.core.enter(cx.waker()) {
            Ok(Admission::Place(began)) => Poll::Ready(Ok(self.permit(began))),
            Ok(Admission::Number(number)) => {
                let until = Box::pin(tokio::time::sleep(self.core.max_wait()));
                self.place = Place::Queued { number, until };
                self.wait(cx)
            }
            Err(overloaded) => Poll::Ready(Err(overloaded)),
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Result<ConcurrencyPermit, Overloaded>> {
        let Place::Queued { number, until } = &mut self.place else {
            unreachable!("polled after it has ended")
        };
        let number = *number;
        if let Some(began) = self.core.poll(number, cx.waker()) {
            self.place = Place::Left;
            return Poll::Ready(Ok(self.permit(began)));
        }
        if until.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.place = Place::Left;
        let result = self.core.give_up(number);
        Poll::Ready(result.map(|began| self.permit(began)))
    }

    fn permit(&self, began: Option<tokio::time::Instant>) -> ConcurrencyPermit {
        ConcurrencyPermit::new(Arc::clone(&self.core), began).count_abandoned(self.count_abandoned)
    }
}

impl Future for Turn {
    type Output = Result<ConcurrencyPermit, Overloaded>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.place {
            Place::Before => self.enter(cx),
            Place::Queued { .. } | Place::Left => self.wait(cx),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Place::Queued { number, .. } = self.place {
            self.core.cancel(number);
        }
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queued = matches!(self.place, Place::Queued { .. });
        f.debug_struct("Turn").field("queued", &queued).finish_non_exhaustive()
    }
}
