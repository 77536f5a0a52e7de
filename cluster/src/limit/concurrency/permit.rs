//! The right to one call, given back exactly once, whatever its end is.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::core::{Core, End};
use crate::Outcome;

/// A place among the calls under way; [`ConcurrencyLimit`](crate::ConcurrencyLimit) hands it out.
///
/// Say how the call ended with one of the methods, or keep the permit and drop it after
/// [`record`](Self::record). One that is dropped without a word counts as given up: an adaptive limit
/// takes it as a sign of overload if that happens late, see
/// [`abandoned_after`](crate::AdaptiveConfig::abandoned_after).
#[must_use = "a permit that is dropped counts as a call given up"]
pub struct ConcurrencyPermit {
    core: Arc<Core>,
    /// When the call began; only an adaptive limit wants to know.
    began: Option<Instant>,
    /// How it ended, once that is known.
    end: Option<End>,
    /// Whether it says anything if it is given up late.
    count_abandoned: bool,
}

impl ConcurrencyPermit {
    pub(super) fn new(core: Arc<Core>, began: Option<Instant>) -> Self {
        Self { core, began, end: None, count_abandoned: true }
    }

    /// Whether it says anything if it is given up late.
    pub(super) fn count_abandoned(mut self, yes: bool) -> Self {
        self.count_abandoned = yes;
        self
    }

    /// The call did its work, and took the time it needed.
    pub fn succeeded(mut self) {
        self.learn(End::Succeeded);
    }

    /// The call failed, as it does when there are too many. One that failed in less than half of the
    /// [`min_latency`](crate::ConcurrencyLimitStats::min_latency) met no queue, and says nothing to
    /// an adaptive limit.
    pub fn failed(mut self) {
        self.learn(End::Failed);
    }

    /// The call ended in a way that says nothing about the number of calls.
    pub fn ignored(mut self) {
        self.learn(End::Ignored);
    }

    /// Takes down how the call ended and how long it took; the place is held until the drop. For a
    /// response whose body is still on its way: the time that takes is the client's.
    pub fn record(&mut self, outcome: Outcome) {
        self.learn(match outcome {
            Outcome::Success => End::Succeeded,
            Outcome::Failure => End::Failed,
            // The backend says it in so many words, however soon.
            Outcome::Throttled => End::Throttled,
            Outcome::Ignored => End::Ignored,
        });
    }

    /// Only the first end counts.
    #[inline]
    fn learn(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
            self.core.learn(end, self.began);
        }
    }
}

impl Drop for ConcurrencyPermit {
    #[inline]
    fn drop(&mut self) {
        let end = self.end.unwrap_or_else(|| {
            let began = self.began.filter(|_| self.count_abandoned);
            let end = self.core.given_up(began);
            self.core.learn(end, self.began);
            end
        });
        self.core.leave(end);
    }
}

impl fmt::Debug for ConcurrencyPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyPermit")
            .field("limit", &self.core.name())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
