//! What the dashboard and the signals know of the traffic: plain counts, and their sums.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::latency::{AtomicLatency, Latency};

/// The counts of one route and method. started = finished + aborted + active, at any moment.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    started: AtomicU64,
    aborted: AtomicU64,
    panicked: AtomicU64,
    failed: AtomicU64,
    nanos: AtomicU64,
    latency: AtomicLatency,
}

impl Tally {
    pub(crate) fn start(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many landed in the same latency bucket before this one.
    pub(crate) fn finish(&self, took: Duration, failed: bool) -> u64 {
        // 584 years of nanoseconds fit; a longer request cannot be.
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if failed {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.latency.record(nanos)
    }

    /// A request that was never answered in full.
    pub(crate) fn abort(&self, panicked: bool) {
        if panicked {
            self.panicked.fetch_add(1, Ordering::Relaxed);
        }
        self.aborted.fetch_add(1, Ordering::Release);
    }
}

/// Sums over routes and methods at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Totals {
    /// Answered in full.
    pub(crate) finished: u64,
    /// Ended without a full answer: the client went away, or a handler panicked.
    pub(crate) aborted: u64,
    /// Those of the aborted that ended by a panic.
    pub(crate) panicked: u64,
    /// Answered with 5xx, broken off by an error, or ended by a panic.
    pub(crate) failed: u64,
    /// Under way.
    pub(crate) active: u64,
    /// Sum of the finished requests' durations.
    pub(crate) time: Duration,
    /// Distribution of the finished requests' durations.
    pub(crate) latency: Latency,
}

impl Totals {
    pub(crate) fn add(&mut self, live: &Tally) {
        // Ends are read before starts, so active never comes out negative.
        let before = self.finished;
        self.latency.add(&live.latency);
        self.finished = self.latency.count();
        let aborted = live.aborted.load(Ordering::Acquire);
        self.aborted += aborted;
        let panicked = live.panicked.load(Ordering::Relaxed);
        self.panicked += panicked;
        self.failed += live.failed.load(Ordering::Relaxed) + panicked;
        self.time += Duration::from_nanos(live.nanos.load(Ordering::Relaxed));
        let started = live.started.load(Ordering::Relaxed);
        self.active += started.saturating_sub(self.finished - before + aborted);
    }

    /// What came since `earlier`; `active` is that of now.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            finished: self.finished.saturating_sub(earlier.finished),
            aborted: self.aborted.saturating_sub(earlier.aborted),
            panicked: self.panicked.saturating_sub(earlier.panicked),
            failed: self.failed.saturating_sub(earlier.failed),
            active: self.active,
            time: self.time.saturating_sub(earlier.time),
            latency: self.latency.since(&earlier.latency),
        }
    }

    /// Mean duration in milliseconds.
    pub(crate) fn mean_ms(&self) -> Option<f64> {
        (self.finished > 0).then(|| self.time.as_secs_f64() * 1e3 / self.finished as f64)
    }

    /// Percentile in milliseconds.
    pub(crate) fn quantile_ms(&self, q: f64) -> Option<f64> {
        self.latency.quantile(q).map(|d| d.as_secs_f64() * 1e3)
    }

    /// Failed requests in percent of those that were answered or should have been. Clients that
    /// went away are neither.
    pub(crate) fn error_percent(&self) -> Option<f64> {
        let answered = self.finished + self.panicked;
        (answered > 0).then(|| self.failed as f64 * 100.0 / answered as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(tally: &Tally) -> Totals {
        let mut totals = Totals::default();
        totals.add(tally);
        totals
    }

    #[test]
    fn started_is_finished_plus_aborted_plus_active() {
        let tally = Tally::default();
        for _ in 0..10 {
            tally.start();
        }
        tally.finish(Duration::from_millis(10), false);
        tally.finish(Duration::from_millis(30), true);
        tally.abort(false);
        tally.abort(true);
        let t = totals(&tally);
        assert_eq!((t.finished, t.aborted, t.failed, t.active), (2, 2, 2, 6));
        assert_eq!(t.mean_ms(), Some(20.0));
    }

    #[test]
    fn a_window_is_the_difference_of_two_moments() {
        let tally = Tally::default();
        tally.start();
        tally.finish(Duration::from_millis(10), true);
        let before = totals(&tally);
        tally.start();
        tally.start();
        tally.finish(Duration::from_millis(40), false);
        let window = totals(&tally).since(&before);
        assert_eq!((window.finished, window.failed, window.active), (1, 0, 1));
        assert_eq!(window.mean_ms(), Some(40.0));
        assert_eq!(window.error_percent(), Some(0.0));
    }

    #[test]
    fn no_traffic_has_neither_mean_nor_error_rate() {
        let none = Totals::default();
        assert_eq!(
            (none.mean_ms(), none.error_percent(), none.quantile_ms(0.99)),
            (None, None, None)
        );
    }

    #[test]
    fn panics_alone_are_all_errors() {
        let tally = Tally::default();
        tally.start();
        tally.abort(true);
        assert_eq!(totals(&tally).error_percent(), Some(100.0));
    }
}
