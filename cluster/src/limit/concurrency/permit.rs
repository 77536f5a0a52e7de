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
/// takes it as a sign of overload if that happens
/// [`abandoned_after`](crate::AdaptiveConfig::abandoned_after) the call began, or later.
#[must_use = "a permit that is dropped counts as a call given up"]
pub struct ConcurrencyPermit {
    core: Arc<Core>,
    /// When the call began; only an adaptive limit wants to know.
    began: Option<Instant>,
    /// How it ended, once that is known.
    end: Option<End>,
}

impl ConcurrencyPermit {
    pub(super) fn new(core: Arc<Core>, began: Option<Instant>) -> Self {
        Self { core, began, end: None }
    }

    /// The call did its work, and took the time it needed.
    pub fn succeeded(mut self) {
        self.learn(End::Succeeded);
    }

    /// The call failed, as it does when there are too many.
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
            Outcome::Failure | Outcome::Throttled => End::Failed,
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
            let end = self.core.given_up(self.began);
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
