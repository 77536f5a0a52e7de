//! What one thread counts, on cache lines of its own.

use super::primitives::{Acquire, AtomicU64, Relaxed, Release};
use super::watch::Watch;

/// How a call has ended, in the terms of the statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Succeeded,
    Failed,
    Throttled,
    Ignored,
    Cancelled,
    Abandoned,
    Panicked,
}

impl End {
    /// Whether it counts as a failure in the windows.
    pub(super) fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Throttled | Self::Abandoned | Self::Panicked)
    }
}

/// A call's end is counted after its start with release, and read before it with acquire: a
/// snapshot never shows more ends than starts.
///
/// Aligned to two lines, since the processor fetches lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Cell {
    admitted: AtomicU64,
    /// Successes while closed, by whether the epoch was odd: each time of being closed counts beside
    /// the one before, so that a success that comes late adds nothing to the new windows.
    good: [AtomicU64; 2],
    /// All other successes.
    succeeded: AtomicU64,
    failed: AtomicU64,
    throttled: AtomicU64,
    ignored: AtomicU64,
    cancelled: AtomicU64,
    abandoned: AtomicU64,
    panicked: AtomicU64,
    slow: AtomicU64,
    rejected: AtomicU64,
    shadow_rejected: AtomicU64,
    pub(super) watch: Watch,
}

/// The sum of all cells.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    pub(super) admitted: u64,
    pub(super) rejected: u64,
    pub(super) shadow_rejected: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) throttled: u64,
    pub(super) ignored: u64,
    pub(super) cancelled: u64,
    pub(super) abandoned: u64,
    pub(super) panicked: u64,
    pub(super) slow: u64,
}

impl Cell {
    #[inline]
    pub(super) fn admitted(&self) {
        self.admitted.fetch_add(1, Relaxed);
    }

    /// A success on a closed circuit.
    #[inline]
    pub(super) fn good(&self, epoch: u64) {
        self.good[(epoch & 1) as usize].fetch_add(1, Release);
    }

    pub(super) fn good_of(&self, epoch: u64) -> u64 {
        self.good[(epoch & 1) as usize].load(Acquire)
    }

    /// Any other end.
    pub(super) fn ended(&self, end: End) {
        let counter = match end {
            End::Succeeded => &self.succeeded,
            End::Failed => &self.failed,
            End::Throttled => &self.throttled,
            End::Ignored => &self.ignored,
            End::Cancelled => &self.cancelled,
            End::Abandoned => &self.abandoned,
            End::Panicked => &self.panicked,
        };
        counter.fetch_add(1, Release);
    }

    pub(super) fn slow(&self) {
        self.slow.fetch_add(1, Relaxed);
    }

    pub(super) fn rejected(&self) {
        self.rejected.fetch_add(1, Relaxed);
    }

    pub(super) fn shadow_rejected(&self) {
        self.shadow_rejected.fetch_add(1, Relaxed);
    }
}

impl Sums {
    /// All ends are read before any start.
    pub(super) fn of(cells: &[Cell]) -> Self {
        let sum = |read: fn(&Cell) -> &AtomicU64| cells.iter().map(|c| read(c).load(Acquire)).sum();
        let good = cells.iter().map(|cell| cell.good_of(0) + cell.good_of(1)).sum::<u64>();
        let others: u64 = sum(|cell| &cell.succeeded);
        Self {
            succeeded: good + others,
            failed: sum(|cell| &cell.failed),
            throttled: sum(|cell| &cell.throttled),
            ignored: sum(|cell| &cell.ignored),
            cancelled: sum(|cell| &cell.cancelled),
            abandoned: sum(|cell| &cell.abandoned),
            panicked: sum(|cell| &cell.panicked),
            slow: sum(|cell| &cell.slow),
            rejected: sum(|cell| &cell.rejected),
            shadow_rejected: sum(|cell| &cell.shadow_rejected),
            admitted: sum(|cell| &cell.admitted),
        }
    }

    /// Calls so far, let in or rejected.
    pub(super) fn calls(&self) -> u64 {
        self.admitted + self.rejected
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.admitted - self.ended()
    }

    /// Adds those of another circuit.
    pub(super) fn add(&mut self, other: &Self) {
        let Self {
            admitted,
            rejected,
            shadow_rejected,
            succeeded,
            failed,
            throttled,
            ignored,
            cancelled,
            abandoned,
            panicked,
            slow,
        } = other;
        self.admitted += admitted;
        self.rejected += rejected;
        self.shadow_rejected += shadow_rejected;
        self.succeeded += succeeded;
        self.failed += failed;
        self.throttled += throttled;
        self.ignored += ignored;
        self.cancelled += cancelled;
        self.abandoned += abandoned;
        self.panicked += panicked;
        self.slow += slow;
    }

    pub(super) fn ended(&self) -> u64 {
        self.succeeded
            + self.failed
            + self.throttled
            + self.ignored
            + self.cancelled
            + self.abandoned
            + self.panicked
    }
}
