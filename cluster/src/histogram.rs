//! Latencies in a histogram of fixed size, written without a lock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Each power of two is divided into this many buckets: a percentile is off by 3 % at most.
const PARTS: usize = 16;
/// log2 of it.
const PART_BITS: u32 = 4;
/// The shortest latency told apart: 2^10 ns, about 1 µs.
const FIRST: u32 = 10;
/// Powers of two from there: up to 2^38 ns, about 275 s.
const POWERS: usize = 28;

/// Writers never wait; one that meets a reader may land before or after it.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Box<[AtomicU32]>,
}

/// What was in a histogram.
#[derive(Debug)]
pub(crate) struct Counts {
    total: u64,
    buckets: Vec<u32>,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: (0..PARTS * POWERS).map(|_| AtomicU32::new(0)).collect() }
    }

    pub(crate) fn record(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
    }

    /// Empties it.
    pub(crate) fn take(&self) -> Counts {
        let buckets: Vec<u32> =
            self.buckets.iter().map(|bucket| bucket.swap(0, Ordering::Relaxed)).collect();
        let total = buckets.iter().map(|count| u64::from(*count)).sum();
        Counts { total, buckets }
    }
}

impl Counts {
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// In seconds; `None` of nothing. Within a bucket the latencies are taken to lie evenly.
    pub(crate) fn percentile(&self, share: f64) -> Option<f64> {
        let rank = self.total as f64 * share;
        let mut below = 0.0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            let count = f64::from(*count);
            if count > 0.0 && below + count >= rank {
                let from = lower_end(bucket);
                return Some(from + (lower_end(bucket + 1) - from) * (rank - below) / count);
            }
            below += count;
        }
        None
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
        let histogram = Histogram::new();
        for micros in 1..=1_000 {
            histogram.record(Duration::from_micros(micros));
        }
        let counts = histogram.take();
        assert_eq!(counts.total(), 1_000);
        for (share, micros) in [(0.01, 10.0), (0.5, 500.0), (0.9, 900.0), (1.0, 1_000.0)] {
            let found = counts.percentile(share).expect("there are some") * 1e6;
            assert!((found - micros).abs() <= micros / 16.0, "{share}: {found}");
        }
        assert_eq!(histogram.take().percentile(0.5), None);
    }
}
