//! The latencies of a window: a histogram of fixed size, written without a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::gradient::{Latency, Window};

/// Each power of two is divided into this many buckets: a percentile is off by 3 % at most.
const PARTS: usize = 16;
/// log2 of it.
const PART_BITS: u32 = 4;
/// The shortest latency told apart: 2^10 ns, about 1 µs.
const FIRST: u32 = 10;
/// Powers of two from there: up to 2^38 ns, about 275 s.
const POWERS: usize = 28;

/// What the calls of one window tell. Writers never wait; one that meets the end of a window may
/// land in either.
#[derive(Debug)]
pub(super) struct Samples {
    /// Calls that count: those in the buckets, and the dropped ones.
    count: AtomicU64,
    dropped: AtomicU64,
    peak: AtomicU64,
    buckets: Box<[AtomicU32]>,
}

impl Samples {
    pub(super) fn new() -> Self {
        let buckets = (0..PARTS * POWERS).map(|_| AtomicU32::new(0)).collect();
        let zero = || AtomicU64::new(0);
        Self { count: zero(), dropped: zero(), peak: zero(), buckets }
    }

    /// So many calls were under way.
    pub(super) fn saw(&self, in_flight: u64) {
        // A read nearly always suffices, which leaves the cache line where it is.
        if in_flight > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(in_flight, Ordering::Relaxed);
        }
    }

    /// A call ended well after this long. Returns how many the window holds.
    pub(super) fn record(&self, latency: Duration) -> u64 {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A call ended in a way that says that there are too many.
    pub(super) fn record_drop(&self) -> u64 {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Ends the window; the next one begins with `in_flight` under way.
    pub(super) fn take(&self, in_flight: u64) -> Window {
        self.count.store(0, Ordering::Relaxed);
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let peak = self.peak.swap(in_flight, Ordering::Relaxed);
        let counts: Vec<u32> =
            self.buckets.iter().map(|bucket| bucket.swap(0, Ordering::Relaxed)).collect();
        let succeeded: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        let latency = (succeeded > 0).then(|| Latency {
            median: percentile(&counts, succeeded, 0.5),
            ninetieth: percentile(&counts, succeeded, 0.9),
        });
        Window { latency, succeeded, dropped, peak }
    }
}

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.clamp(1 << FIRST, (1 << (FIRST as usize + POWERS)) - 1);
    let power = nanos.ilog2();
    let part = (nanos >> (power - PART_BITS)) as usize - PARTS;
    (power - FIRST) as usize * PARTS + part
}

/// The bucket's lower end, in seconds.
fn lower_end(bucket: usize) -> f64 {
    let power = (bucket / PARTS) as u32 + FIRST;
    let part = (bucket % PARTS + PARTS) as u64;
    (part << (power - PART_BITS)) as f64 * 1e-9
}

/// Within a bucket the calls are taken to lie evenly.
fn percentile(counts: &[u32], total: u64, share: f64) -> f64 {
    let rank = total as f64 * share;
    let mut below = 0.0;
    for (bucket, count) in counts.iter().enumerate() {
        let count = f64::from(*count);
        if count > 0.0 && below + count >= rank {
            let from = lower_end(bucket);
            return from + (lower_end(bucket + 1) - from) * (rank - below) / count;
        }
        below += count;
    }
    // Not reached: the ranks end with the last call.
    lower_end(counts.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_lies_within_its_bucket() {
        for nanos in (10..38).flat_map(|power| {
            let base = 1_u64 << power;
            [base, base + base / 3, 2 * base - 1]
        }) {
            let bucket = bucket(nanos);
            let seconds = nanos as f64 * 1e-9;
            assert!(lower_end(bucket) <= seconds && seconds < lower_end(bucket + 1), "{nanos}");
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, PARTS * POWERS - 1));
    }

    #[test]
    fn percentiles_are_off_by_a_bucket_at_most() {
        let samples = Samples::new();
        for micros in 1..=1_000 {
            samples.record(Duration::from_micros(micros));
        }
        samples.saw(7);
        assert_eq!(samples.record_drop(), 1_001);
        let window = samples.take(3);
        let latency = window.latency.expect("there are some");
        assert!((latency.median - 500e-6).abs() < 16e-6, "{latency:?}");
        assert!((latency.ninetieth - 900e-6).abs() < 32e-6, "{latency:?}");
        assert_eq!((window.succeeded, window.dropped, window.peak), (1_000, 1, 7));
    }

    #[test]
    fn the_next_window_begins_empty_but_for_what_is_under_way() {
        let samples = Samples::new();
        samples.record(Duration::from_millis(1));
        samples.saw(9);
        samples.take(4);
        let window = samples.take(0);
        assert_eq!((window.succeeded, window.dropped, window.peak), (0, 0, 4));
        assert_eq!(window.latency, None);
        assert_eq!(samples.record(Duration::ZERO), 1);
    }
}
