//! A log-linear histogram of durations: eight buckets an octave, so a percentile is off by at
//! most an eighth, from a microsecond to two minutes, in 1.7 KB.
//!
//! The Prometheus histogram has 14 buckets, the first of them 5 ms wide; a dashboard that shows
//! a p50 of 300 µs needs finer ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets in an octave.
const STEPS: u32 = 8;
const STEP_BITS: u32 = STEPS.ilog2();
/// One unit is 1,024 ns: a shift instead of a division.
const UNIT_BITS: u32 = 10;
/// Values of 2^27 units (137 s) and more share the last bucket.
const TOP: u32 = 27;
/// How many buckets there are.
pub(crate) const BUCKETS: usize = ((TOP - STEP_BITS + 1) * STEPS) as usize;

/// The bucket of a duration.
pub(crate) fn bucket(nanos: u64) -> usize {
    let units = nanos >> UNIT_BITS;
    let Some(exponent) = units.checked_ilog2().filter(|&e| e >= STEP_BITS) else {
        return units as usize;
    };
    if exponent >= TOP {
        return BUCKETS - 1;
    }
    let step = (units >> (exponent - STEP_BITS)) as u32 & (STEPS - 1);
    ((exponent - STEP_BITS + 1) * STEPS + step) as usize
}

/// Least duration of a bucket, in nanoseconds.
fn floor(bucket: usize) -> u64 {
    let (octave, step) = (bucket as u32 / STEPS, u64::from(bucket as u32 % STEPS));
    let units = match octave {
        0 => step,
        _ => (u64::from(STEPS) + step) << (octave - 1),
    };
    units << UNIT_BITS
}

/// Counts that many threads add to.
#[derive(Debug)]
pub(crate) struct AtomicLatency([AtomicU64; BUCKETS]);

impl Default for AtomicLatency {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl AtomicLatency {
    /// Returns how many the bucket held before. Released, so that a reader who sees this request
    /// finished also sees it started.
    pub(crate) fn record(&self, nanos: u64) -> u64 {
        self.0[bucket(nanos)].fetch_add(1, Ordering::Release)
    }
}

/// Counts at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Latency(Box<[u64; BUCKETS]>);

impl Default for Latency {
    fn default() -> Self {
        Self(Box::new([0; BUCKETS]))
    }
}

impl Latency {
    pub(crate) fn add(&mut self, live: &AtomicLatency) {
        for (sum, count) in self.0.iter_mut().zip(&live.0) {
            *sum += count.load(Ordering::Acquire);
        }
    }

    /// What came since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut delta = self.clone();
        for (count, before) in delta.0.iter_mut().zip(earlier.0.iter()) {
            *count = count.saturating_sub(*before);
        }
        delta
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The duration that a share `q` of the requests did not exceed, interpolated inside its
    /// bucket; absent when there were none.
    pub(crate) fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (q.clamp(0.0, 1.0) * count as f64).max(1.0);
        let mut below = 0.0;
        for (at, &here) in self.0.iter().enumerate().filter(|(_, here)| **here > 0) {
            let here = here as f64;
            if below + here >= rank {
                let (low, high) = (floor(at) as f64, floor(at + 1) as f64);
                let nanos = low + (high - low) * ((rank - below) / here);
                return Some(Duration::from_nanos(nanos as u64));
            }
            below += here;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_and_floors_agree() {
        for at in 0..BUCKETS {
            assert_eq!(bucket(floor(at)), at);
            assert_eq!(bucket(floor(at + 1) - 1), at);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket(0), 0);
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Latency::default().quantile(0.5), None);
    }

    proptest! {
        #[test]
        fn a_quantile_is_off_by_an_eighth_at_most(
            mut nanos in proptest::collection::vec(10_000_u64..100_000_000_000, 1..200),
            q in 0.0..=1.0_f64,
        ) {
            let live = AtomicLatency::default();
            for &n in &nanos {
                live.record(n);
            }
            let mut counts = Latency::default();
            counts.add(&live);
            prop_assert_eq!(counts.count(), nanos.len() as u64);
            nanos.sort_unstable();
            let rank = ((q * nanos.len() as f64).ceil() as usize).clamp(1, nanos.len());
            let exact = nanos[rank - 1] as f64;
            let got = counts.quantile(q).unwrap().as_nanos() as f64;
            prop_assert!((got - exact).abs() <= exact / 8.0 + 1_024.0, "{} for {}", got, exact);
        }
    }
}
