//! The right to one call, whose end is counted exactly once, whatever that end is.

use std::time::Duration;

use super::cell::End;
use super::core::Call;
use super::primitives::Arc;
use super::shard::Shard;
use super::{Judgement, Outcome};

/// The right to one call; [`Breaker::admit`](crate::Breaker::admit) hands it out.
///
/// Say how the call ended with one of the methods. A permit that is dropped instead counts by how
/// it came to that: during a panic as a failure; given up at least
/// [`abandoned_after`](crate::BreakerConfig::abandoned_after) after it was handed out as a failure
/// too, so that a timeout around the call is noticed; earlier as nothing. Behind a layer for
/// visitors it is nothing however late: see
/// [`BreakerLayer::count_abandoned`](crate::BreakerLayer::count_abandoned).
#[derive(Debug)]
#[must_use = "a permit that is dropped counts as a call given up"]
pub struct Permit {
    /// `None` once it has ended, and for a call that nobody counts.
    shard: Option<Arc<Shard>>,
    call: Call,
}

impl Permit {
    #[inline]
    pub(super) fn new(shard: Arc<Shard>, call: Call) -> Self {
        Self { shard: Some(shard), call }
    }

    /// For a call that nobody counts.
    pub(super) fn unseen() -> Self {
        Self { shard: None, call: Call::unseen() }
    }

    /// The backend did its work.
    pub fn succeeded(mut self) {
        self.end(End::Succeeded, None);
    }

    /// The backend is at fault.
    pub fn failed(mut self) {
        self.end(End::Failed, None);
    }

    /// The backend works, but not at this rate.
    pub fn throttled(mut self) {
        self.end(End::Throttled, None);
    }

    /// The result says nothing about the backend.
    pub fn ignored(mut self) {
        self.end(End::Ignored, None);
    }

    /// As a classifier has judged it.
    pub fn judged(mut self, judgement: impl Into<Judgement>) {
        self.settle(judgement.into());
    }

    /// [`judged`](Self::judged) where the permit cannot be moved out of its place.
    #[inline]
    pub(crate) fn settle(&mut self, judgement: Judgement) {
        let end = match judgement.outcome {
            Outcome::Success => End::Succeeded,
            Outcome::Failure => End::Failed,
            Outcome::Throttled => End::Throttled,
            Outcome::Ignored => End::Ignored,
        };
        self.end(end, judgement.retry_after);
    }

    /// Moves the right to somewhere else, where the call goes on.
    #[cfg(feature = "axum")]
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::unseen())
    }

    /// Given up, the call counts as nothing, however late that is.
    #[inline]
    pub(super) fn excuse(&mut self) {
        self.call.excuse();
    }

    /// Ends the call as panicked, unless it is defused before it is dropped.
    #[inline]
    pub(crate) fn guard(&mut self) -> PanicGuard<'_> {
        PanicGuard(Some(self))
    }

    /// The call has to wait: from now on it can be given up late, or be slow while it is under
    /// way. Apart from `new`, because a call that ends before it first waits is neither and spares
    /// the clock read.
    pub(crate) fn start_age(&mut self) {
        if let Some(shard) = &self.shard {
            shard.core().waits(shard.cell(), &mut self.call);
        }
    }

    #[inline]
    fn end(&mut self, end: End, retry_after: Option<Duration>) {
        if let Some(shard) = self.shard.take() {
            shard.core().settle(shard.cell(), &self.call, end, retry_after);
        }
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if let Some(shard) = self.shard.take() {
            give_up(shard, self.call);
        }
    }
}

// By value: a function that is not inlined and takes the permit's address, if only on a path that
// is never gone, keeps the permit, and so the whole future, in memory on its way to its place.

#[expect(
    clippy::needless_pass_by_value,
    reason = "a reference to its parts is the permit's address as well"
)]
#[cold]
#[inline(never)]
fn give_up(shard: Arc<Shard>, call: Call) {
    let end = shard.core().end_unsaid(&call);
    shard.core().settle(shard.cell(), &call, end, None);
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "a reference to its parts is the permit's address as well"
)]
#[cold]
#[inline(never)]
fn panicked(shard: Arc<Shard>, call: Call) {
    shard.core().settle(shard.cell(), &call, End::Panicked, None);
}

/// Ends a call that is left by a panic.
#[derive(Debug)]
pub(crate) struct PanicGuard<'a>(Option<&'a mut Permit>);

impl<'a> PanicGuard<'a> {
    #[inline]
    pub(crate) fn defuse(mut self) -> &'a mut Permit {
        self.0.take().expect("taken once, since that consumes it")
    }
}

impl Drop for PanicGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(permit) = self.0.take()
            && let Some(shard) = permit.shard.take()
        {
            panicked(shard, permit.call);
        }
    }
}
