//! Counts every acquire and every connect from its start to its one outcome.
//!
//! All counts sit behind one lock, so that a snapshot always adds up.

use parking_lot::Mutex;

use crate::error::PoolError;
use crate::stats::PoolStats;

/// The counts of one pool.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<Counts>);

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

impl Meter {
    /// Counts a start; it must be settled once.
    pub(crate) fn start(&self) {
        let mut counts = self.0.lock();
        counts.stats.started_total += 1;
        counts.stats.waiting += 1;
    }

    /// Counts the outcome of one start.
    pub(crate) fn settle(&self, outcome: Outcome) {
        let mut counts = self.0.lock();
        counts.stats.waiting -= 1;
        let total = match outcome {
            Outcome::Acquired => &mut counts.stats.acquired_total,
            Outcome::TimedOut => &mut counts.stats.timed_out_total,
            Outcome::Rejected => &mut counts.stats.rejected_total,
            Outcome::Cancelled => &mut counts.stats.cancelled_total,
            Outcome::Failed => &mut counts.stats.failed_total,
        };
        *total += 1;
    }

    /// Takes a place among the callers who wait for a permit.
    pub(crate) fn queue(&self, limit: usize) -> Result<Place<'_>, PoolError> {
        let mut counts = self.0.lock();
        if counts.queued >= limit {
            return Err(PoolError::TooManyWaiters { limit });
        }
        counts.queued += 1;
        Ok(Place(self))
    }

    /// Counts a connect that begins.
    pub(crate) fn connect(&self) -> Connecting<'_> {
        let mut counts = self.0.lock();
        counts.stats.connects_total += 1;
        counts.stats.connecting += 1;
        Connecting { meter: self, made: false }
    }

    pub(crate) fn invalid(&self) {
        self.0.lock().stats.invalid_total += 1;
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn recovered(&self, fit: bool) {
        let stats = &mut self.0.lock().stats;
        if fit {
            stats.recovered_total += 1;
        } else {
            stats.recovery_failures_total += 1;
        }
    }

    /// The counts; the gauges of the store are the caller's to fill in.
    pub(crate) fn snapshot(&self) -> PoolStats {
        self.0.lock().stats
    }
}

/// One acquire under way. Dropped without an outcome, it was cancelled.
#[must_use]
#[derive(Debug)]
pub(crate) struct Ticket<'a>(Option<&'a Meter>);

impl<'a> Ticket<'a> {
    pub(crate) fn start(meter: &'a Meter) -> Self {
        meter.start();
        Self(Some(meter))
    }

    pub(crate) fn settle(mut self, outcome: Outcome) {
        if let Some(meter) = self.0.take() {
            meter.settle(outcome);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if let Some(meter) = self.0 {
            meter.settle(Outcome::Cancelled);
        }
    }
}

/// A place in the queue for permits.
#[must_use]
#[derive(Debug)]
pub(crate) struct Place<'a>(&'a Meter);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.0.lock().queued -= 1;
    }
}

/// One connect under way. Dropped before it was made, it failed.
#[must_use]
#[derive(Debug)]
pub(crate) struct Connecting<'a> {
    meter: &'a Meter,
    made: bool,
}

impl Connecting<'_> {
    pub(crate) fn made(mut self) {
        self.made = true;
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        let stats = &mut self.meter.0.lock().stats;
        stats.connecting -= 1;
        if !self.made {
            stats.connect_failures_total += 1;
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    stats: PoolStats,
    /// Callers among `stats.waiting` who wait for a permit; the rest connect or test.
    queued: usize,
}
