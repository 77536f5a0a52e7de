//! A sliding window of time: ten buckets in a ring, each one atomic word, the time an argument.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets in the ring.
pub(super) const BUCKETS: u32 = 10;

/// A word is `tick << 36 | calls << 18 | failures`: one compare-and-swap both rolls a bucket over
/// to a new tick and counts in it, so that no lock is needed and no call is counted in the wrong
/// tick.
const COUNT_BITS: u32 = 18;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const TICK_MASK: u32 = (1 << (64 - 2 * COUNT_BITS)) - 1;

/// How far ahead of a late writer a bucket may be and still be taken for newer. Beyond, the tick
/// has wrapped around (years ago at a second a tick) and the bucket is old.
const AHEAD_MAX: u32 = 1 << 16;

/// Calls and failures of the last ten ticks.
#[derive(Debug, Default)]
pub(super) struct Window {
    buckets: [AtomicU64; BUCKETS as usize],
}

/// What a [`Window`] holds at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) calls: u64,
    pub(super) failures: u64,
}

impl Window {
    /// Counts one call that ended at `tick`. A call that comes more than a ring late is left out:
    /// its bucket counts a newer tick by then.
    pub(super) fn record(&self, tick: u32, failed: bool) {
        let tick = tick & TICK_MASK;
        // The closure is given up only when the bucket is newer: then there is nothing to count.
        let _late = self.bucket(tick).fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let (at, mut totals) = unpack(word);
            if at != tick {
                let ahead = at.wrapping_sub(tick) & TICK_MASK;
                if totals.calls > 0 && ahead < AHEAD_MAX {
                    return None;
                }
                totals = Totals::default();
            }
            if totals.calls == COUNT_MAX {
                // Both halved: the rate stays what it was, and half of the room is still above any
                // `minimum_calls`.
                totals = Totals { calls: totals.calls / 2, failures: totals.failures / 2 };
            }
            totals.calls += 1;
            totals.failures += u64::from(failed);
            Some(pack(tick, totals))
        });
    }

    /// The sum over the ten ticks that end with `tick`.
    pub(super) fn totals(&self, tick: u32) -> Totals {
        let mut sum = Totals::default();
        for bucket in &self.buckets {
            let (at, totals) = unpack(bucket.load(Ordering::Acquire));
            if tick.wrapping_sub(at) & TICK_MASK < BUCKETS {
                sum.calls += totals.calls;
                sum.failures += totals.failures;
            }
        }
        sum
    }

    fn bucket(&self, tick: u32) -> &AtomicU64 {
        &self.buckets[(tick % BUCKETS) as usize]
    }
}

fn pack(tick: u32, totals: Totals) -> u64 {
    u64::from(tick) << (2 * COUNT_BITS) | totals.calls << COUNT_BITS | totals.failures
}

fn unpack(word: u64) -> (u32, Totals) {
    let totals = Totals { calls: word >> COUNT_BITS & COUNT_MAX, failures: word & COUNT_MAX };
    ((word >> (2 * COUNT_BITS)) as u32, totals)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the window must be equal to: every call kept, and those of the last ten ticks summed.
    fn model(calls: &[(u32, bool)], now: u32) -> Totals {
        let recent = calls.iter().filter(|(tick, _)| now - tick < BUCKETS);
        recent.fold(Totals::default(), |sum, (_, failed)| Totals {
            calls: sum.calls + 1,
            failures: sum.failures + u64::from(*failed),
        })
    }

    proptest! {
        // tower-resilience's "sliding" window only grows: there 100,000 successes take 100,000
        // failures to outweigh.
        #[test]
        fn it_equals_a_list_of_all_calls(
            start in 0_u32..1_000,
            steps in prop::collection::vec((0_u32..14, any::<bool>()), 1..400),
        ) {
            let window = Window::default();
            let (mut now, mut calls) = (start, Vec::new());
            for (advance, failed) in steps {
                // Mostly small steps, so that buckets fill, and sometimes one beyond the ring.
                now += advance.saturating_sub(8).max(u32::from(advance == 3));
                calls.push((now, failed));
                window.record(now, failed);
                prop_assert_eq!(window.totals(now), model(&calls, now));
            }
            for later in 0..=BUCKETS {
                prop_assert_eq!(window.totals(now + later), model(&calls, now + later));
            }
        }
    }

    #[test]
    fn a_call_a_ring_late_is_left_out_and_one_in_time_counts() {
        let window = Window::default();
        window.record(25, true);
        window.record(15, true);
        window.record(24, false);
        assert_eq!(window.totals(25), Totals { calls: 2, failures: 1 });
    }

    #[test]
    fn a_tick_that_wraps_around_neither_sticks_nor_counts_twice() {
        let window = Window::default();
        for tick in [TICK_MASK - 1, TICK_MASK, TICK_MASK.wrapping_add(1)] {
            window.record(tick, true);
        }
        assert_eq!(window.totals(TICK_MASK).calls, 2);
        assert_eq!(window.totals(0).calls, 3);
        // Half the range later the old buckets look as if they lay ahead; they must still roll.
        let half = TICK_MASK / 2 + 3;
        for tick in half..half + BUCKETS {
            window.record(tick, false);
        }
        let all = Totals { calls: u64::from(BUCKETS), failures: 0 };
        assert_eq!(window.totals(half + BUCKETS - 1), all);
    }

    #[test]
    fn a_full_bucket_keeps_its_rate() {
        let window = Window::default();
        for call in 0..COUNT_MAX + 10_000 {
            window.record(7, call % 4 == 0);
        }
        let totals = window.totals(7);
        assert!(totals.calls > 100_000, "{totals:?} must stay above any minimum of calls");
        let rate = totals.failures as f64 / totals.calls as f64;
        assert!((rate - 0.25).abs() < 0.001, "{totals:?}");
    }
}
