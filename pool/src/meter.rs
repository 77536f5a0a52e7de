//! Counts every acquire from its start to its one outcome.

use std::time::Duration;

use crate::error::PoolError;
use crate::stats::PoolStats;

/// How an acquire ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acquired,
    TimedOut,
    Rejected,
    Cancelled,
    Failed,
}

impl Outcome {
    pub(crate) fn of(error: &PoolError) -> Self {
        match error {
            PoolError::AcquireTimeout { .. } | PoolError::ConnectTimeout { .. } => Self::TimedOut,
            PoolError::TooManyWaiters { .. } => Self::Rejected,
            _ => Self::Failed,
        }
    }
}

impl PoolStats {
    /// Counts a start; it must be settled once.
    pub(crate) fn start(&mut self) {
        self.started_total += 1;
        self.waiting += 1;
    }

    /// Counts the outcome of one start.
    pub(crate) fn settle(&mut self, outcome: Outcome) {
        self.waiting -= 1;
        let total = match outcome {
            Outcome::Acquired => &mut self.acquired_total,
            Outcome::TimedOut => &mut self.timed_out_total,
            Outcome::Rejected => &mut self.rejected_total,
            Outcome::Cancelled => &mut self.cancelled_total,
            Outcome::Failed => &mut self.failed_total,
        };
        *total += 1;
    }

    /// Counts the wait of an acquire that got its lease.
    pub(crate) fn waited(&mut self, waited: Duration) {
        self.wait_seconds_total += waited.as_secs_f64();
    }
}
