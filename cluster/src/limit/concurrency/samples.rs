//! What the calls of a window tell.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::gradient::{Latency, Window};
use crate::histogram::Histogram;

/// Writers never wait; one that meets the end of a window may land in either.
#[derive(Debug)]
pub(super) struct Samples {
    /// Calls that count: those with a latency, the dropped and the abandoned ones.
    count: AtomicU64,
    dropped: AtomicU64,
    abandoned: AtomicU64,
    peak: AtomicU64,
    latencies: Histogram,
}

impl Samples {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        let (count, dropped, abandoned, peak) = (zero(), zero(), zero(), zero());
        Self { count, dropped, abandoned, peak, latencies: Histogram::new() }
    }

    /// So many calls were under way.
    #[inline]
    pub(super) fn saw(&self, in_flight: u64) {
        // A read nearly always suffices, which leaves the cache line where it is.
        if in_flight > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(in_flight, Ordering::Relaxed);
        }
    }

    /// A call ended well after this long. Returns how many the window holds.
    pub(super) fn record(&self, latency: Duration) -> u64 {
        self.latencies.record(latency);
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A call ended in a way that says that there are too many.
    pub(super) fn record_drop(&self) -> u64 {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A call was given up late.
    pub(super) fn record_abandoned(&self) -> u64 {
        self.abandoned.fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Ends the window; the next one begins with `in_flight` under way.
    pub(super) fn take(&self, in_flight: u64) -> Window {
        self.count.store(0, Ordering::Relaxed);
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let abandoned = self.abandoned.swap(0, Ordering::Relaxed);
        let peak = self.peak.swap(in_flight, Ordering::Relaxed);
        let latencies = self.latencies.take();
        let latency = latencies
            .percentile(0.5)
            .zip(latencies.percentile(0.9))
            .map(|(median, ninetieth)| Latency { median, ninetieth });
        Window { latency, succeeded: latencies.total(), dropped, abandoned, peak }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_window_begins_empty_but_for_what_is_under_way() {
        let samples = Samples::new();
        assert_eq!(samples.record(Duration::from_millis(1)), 1);
        assert_eq!((samples.record_drop(), samples.record_abandoned()), (2, 3));
        samples.saw(9);
        let window = samples.take(4);
        assert_eq!((window.succeeded, window.dropped, window.abandoned, window.peak), (1, 1, 1, 9));
        let window = samples.take(0);
        assert_eq!((window.succeeded, window.dropped, window.abandoned, window.peak), (0, 0, 0, 4));
        assert_eq!(window.latency, None);
        assert_eq!(samples.record(Duration::ZERO), 1);
    }
}
