//! What happened on a node, in as few writes per request as the books can be kept with.

use crate::Reason;
use crate::primitives::{Acquire, AtomicU64, Relaxed, Release, SeqCst};

/// Each is only ever added to, apart from those in flight. What succeeded is not counted but follows
/// from the rest, so that the usual end of a request writes one counter.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Tally {
    pub(crate) in_flight: AtomicU64,
    /// Of these, reads that the primary serves for want of a replica.
    pub(crate) substituting: AtomicU64,
    /// The most that was ever made known.
    succeeded: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    /// By reason. Their sum is what was started.
    pub(crate) picks: [AtomicU64; Reason::ALL.len()],
    pub(crate) ejections: AtomicU64,
    pub(crate) returns: AtomicU64,
    pub(crate) probes: AtomicU64,
    pub(crate) probes_failed: AtomicU64,
}

impl Tally {
    /// Counts a request in, if there are fewer than `limit`.
    #[inline]
    pub(crate) fn enter(&self, limit: u64, reason: Reason) -> bool {
        if limit == u64::MAX {
            self.in_flight.fetch_add(1, Relaxed);
        } else if !add_below(&self.in_flight, limit) {
            return false;
        }
        self.picks[reason as usize].fetch_add(1, Release);
        true
    }

    /// Counts a request out: as one of `ended`, or of those that succeeded.
    #[inline]
    pub(crate) fn leave(&self, ended: Option<&AtomicU64>) {
        if let Some(ended) = ended {
            ended.fetch_add(1, Relaxed);
        }
        // Last, for the sake of `succeeded`, and sequentially consistent for that of `Gate::freed`.
        self.in_flight.fetch_sub(1, SeqCst);
    }

    pub(crate) fn started(&self) -> u64 {
        self.picks.iter().map(|count| count.load(Acquire)).sum()
    }

    /// Read while requests start and end this may be too low, by those, but never too high; and never
    /// lower than it was before.
    pub(crate) fn succeeded(&self) -> u64 {
        // In this order: a request is in flight before it has started and until it is counted as failed
        // or cancelled, so it is missed nowhere.
        let started = self.started();
        let in_flight = self.in_flight.load(Acquire);
        let failed = self.failed.load(Relaxed);
        let others = in_flight + failed + self.cancelled.load(Relaxed);
        let succeeded = started.saturating_sub(others);
        self.succeeded.fetch_max(succeeded, Relaxed).max(succeeded)
    }
}

/// Adds one to what is below `limit`.
#[inline]
pub(crate) fn add_below(count: &AtomicU64, limit: u64) -> bool {
    count.fetch_update(Relaxed, Relaxed, |count| (count < limit).then(|| count + 1)).is_ok()
}
