//! Counters that many threads raise at once, and the tokens that keep sums true.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::{self, Tick};
use crate::error::Failure;

/// Enough lanes that the threads of an ordinary server rarely share one; 1 KiB a counter.
const LANES: usize = 16;

/// A counter spread over cache lines: a hit in memory must not make threads wait for each other.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    lanes: [Lane; LANES],
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Lane(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add_one(&self) {
        self.add(1);
    }

    #[inline]
    pub(crate) fn add(&self, more: usize) {
        self.lanes[lane()].0.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.0.load(Ordering::Relaxed)).sum()
    }
}

/// The lane of this thread, dealt out in turn.
#[inline]
fn lane() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // A constant start spares each read the question whether it has been set up.
        static LANE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    let lane = LANE.get();
    if lane < LANES {
        return lane;
    }
    let lane = NEXT.fetch_add(1, Ordering::Relaxed) % LANES;
    LANE.set(lane);
    lane
}

/// Counters of the loads of one cache.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    started: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    timed_out: AtomicU64,
    aborted: AtomicU64,
    /// Callers who joined a load of another.
    pub(crate) coalesced: AtomicU64,
    /// Loaded values not stored, since a removal or an insertion came between.
    pub(crate) discarded: AtomicU64,
    /// Loads in the background, of values that were served meanwhile.
    pub(crate) refreshes: AtomicU64,
    /// Times that something stale stood in for a load.
    pub(crate) stood_in: AtomicU64,
    micros: AtomicU64,
}

/// What [`Loads`] held at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadCounts {
    pub(crate) started: u64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) panicked: u64,
    pub(crate) timed_out: u64,
    pub(crate) aborted: u64,
}

impl Loads {
    /// Counts a load that begins; dropped unsettled, it counts as aborted.
    pub(crate) fn start(&self) -> LoadToken<'_> {
        self.started.fetch_add(1, Ordering::Relaxed);
        LoadToken { loads: self, end: &self.aborted, begun: clock::now() }
    }

    /// Time that loads which ended have taken, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        Duration::from_micros(self.micros.load(Ordering::Relaxed)).as_secs_f64()
    }

    /// Reads the ends before the starts, and each end was released after its start: a snapshot
    /// never shows more loads ended than started.
    pub(crate) fn read(&self) -> LoadCounts {
        let succeeded = self.succeeded.load(Ordering::Acquire);
        let failed = self.failed.load(Ordering::Acquire);
        let panicked = self.panicked.load(Ordering::Acquire);
        let timed_out = self.timed_out.load(Ordering::Acquire);
        let aborted = self.aborted.load(Ordering::Acquire);
        let started = self.started.load(Ordering::Relaxed);
        LoadCounts { started, succeeded, failed, panicked, timed_out, aborted }
    }
}

/// One load under way.
#[derive(Debug)]
#[must_use]
pub(crate) struct LoadToken<'a> {
    loads: &'a Loads,
    end: &'a AtomicU64,
    begun: Tick,
}

impl LoadToken<'_> {
    /// Ends the load with its outcome.
    pub(crate) fn settle<V>(mut self, outcome: &Result<V, Failure>) {
        self.end = match outcome {
            Ok(_) => &self.loads.succeeded,
            Err(Failure::Source { .. }) => &self.loads.failed,
            Err(Failure::Panicked { .. }) => &self.loads.panicked,
            Err(Failure::TimedOut) => &self.loads.timed_out,
            Err(Failure::Aborted) => &self.loads.aborted,
        };
    }
}

impl Drop for LoadToken<'_> {
    fn drop(&mut self) {
        let micros = clock::now().since(self.begun).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        self.loads.micros.fetch_add(micros, Ordering::Relaxed);
        self.end.fetch_add(1, Ordering::Release);
    }
}
