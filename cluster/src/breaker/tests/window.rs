//! Both windows against a list of all calls.

use std::time::Duration;

use proptest::prelude::*;

use super::super::window::{Counts, Limits, Mark, Windows};
use super::super::{BreakerConfig, Reason};

const WIDTH: u64 = 10_000_000;

#[derive(Debug, Clone)]
enum Step {
    /// Whole widths and part of one.
    Wait(u64),
    Successes(u64),
    Mark(bool, bool),
    Clear,
    /// Another size of the window of calls.
    Resize(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        // Mostly small steps, so that buckets fill, and sometimes one beyond the ring.
        3 => (0_u64..2 * WIDTH).prop_map(Step::Wait),
        1 => (0_u64..15 * WIDTH).prop_map(Step::Wait),
        4 => (0_u64..6).prop_map(Step::Successes),
        1 => (0_u64..60).prop_map(Step::Successes),
        4 => any::<(bool, bool)>().prop_map(|(failed, slow)| Step::Mark(failed, slow)),
        1 => Just(Step::Clear),
        1 => (1_u32..40).prop_map(Step::Resize),
    ]
}

fn config(size: u32) -> BreakerConfig {
    BreakerConfig::default()
        .window(Duration::from_nanos(10 * WIDTH))
        .count_window(size)
        .slow_call_rate(0.5)
}

/// Every call since the last clear.
#[derive(Default)]
struct Model {
    calls: Vec<(u64, bool, bool)>,
    /// Calls that a window made smaller has dropped; one made larger does not get them back.
    dropped: usize,
}

impl Model {
    fn sum<'a>(calls: impl Iterator<Item = &'a (u64, bool, bool)>) -> Counts {
        calls.fold(Counts::default(), |sum, (_, failed, slow)| Counts {
            calls: sum.calls + 1,
            failures: sum.failures + u64::from(*failed),
            slow: sum.slow + u64::from(*slow),
        })
    }

    fn time(&self, now: u64) -> Counts {
        Self::sum(self.calls.iter().filter(|(then, ..)| now / WIDTH - then / WIDTH < 10))
    }

    fn calls(&mut self, size: u32) -> Counts {
        self.dropped = self.dropped.max(self.calls.len().saturating_sub(size as usize));
        Self::sum(self.calls.iter().skip(self.dropped))
    }
}

proptest! {
    // tower-resilience's "sliding" window only grows: there 100,000 successes take 100,000
    // failures to outweigh.
    #[test]
    fn they_equal_a_list_of_all_calls(
        start in 0_u64..100 * WIDTH,
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let (mut now, mut size) = (start, 20);
        let mut windows = Windows::new(&config(size), now);
        let mut model = Model::default();
        for step in steps {
            let mut successes = 0;
            match step {
                Step::Wait(time) => now += time,
                Step::Successes(count) => {
                    // A success that ends in a later bucket first closes the one before.
                    windows.advance(0, now);
                    successes = count;
                    model.calls.extend((0..count).map(|_| (now, false, false)));
                }
                Step::Mark(failed, slow) => {
                    windows.advance(0, now);
                    windows.record(Mark { failed, slow });
                    model.calls.push((now, failed, slow));
                }
                Step::Clear => {
                    windows.clear(now);
                    model = Model::default();
                }
                Step::Resize(other) => {
                    size = other;
                    windows.reshape(&config(size), now);
                }
            }
            windows.advance(successes, now);
            prop_assert_eq!(windows.time_counts(), model.time(now));
            prop_assert_eq!(windows.call_counts(), model.calls(size));
        }
    }

    #[test]
    fn another_length_of_time_keeps_what_is_young_enough(
        start in 0_u64..100 * WIDTH,
        waits in prop::collection::vec(0_u64..3 * WIDTH, 1..40),
        millis in 100_u64..400,
    ) {
        let mut now = start;
        let mut windows = Windows::new(&config(20), now);
        let mut calls = Vec::new();
        for wait in waits {
            now += wait;
            windows.advance(0, now);
            windows.record(Mark { failed: true, slow: false });
            calls.push(now);
        }
        let length = Duration::from_millis(millis);
        windows.reshape(&config(20).window(length), now);
        windows.advance(0, now);
        // Between what is surely young enough for both lengths and what may be, by two buckets.
        let both = (10 * WIDTH).min(millis * 1_000_000);
        let slack = 2 * WIDTH + 2 * millis * 100_000;
        let within = |age: u64| calls.iter().filter(|then| now - **then <= age).count() as u64;
        let counts = windows.time_counts();
        prop_assert!(counts.failures >= within(both.saturating_sub(slack)), "{:?}", counts);
        prop_assert!(counts.failures <= within(both + slack), "{:?}", counts);
    }
}

#[test]
fn a_window_of_calls_counts_before_it_is_full() {
    let config = config(100).window(None).minimum_calls(10);
    let mut windows = Windows::new(&config, 0);
    let limits = Limits::new(&config);
    windows.advance(5, 0);
    for failures in 1..=5 {
        windows.record(Mark { failed: true, slow: false });
        let met = windows.judge(&limits, 0).0;
        assert_eq!(met, (failures == 5).then_some(Reason::FailureRate), "{failures}");
    }
}

#[test]
fn a_clock_that_is_behind_neither_moves_the_window_back_nor_loses_the_call() {
    let mut windows = Windows::new(&config(20), 0);
    windows.advance(0, 5 * WIDTH);
    windows.advance(0, 4 * WIDTH);
    windows.record(Mark { failed: true, slow: false });
    windows.advance(0, 14 * WIDTH);
    assert_eq!(windows.time_counts().failures, 1);
    windows.advance(0, 15 * WIDTH);
    assert_eq!(windows.time_counts().failures, 0);
}

#[test]
fn slow_calls_under_way_count_beside_those_of_the_window() {
    let config = config(100).minimum_calls(10);
    let limits = Limits::new(&config);
    let mut windows = Windows::new(&config, 0);
    windows.advance(6, 0);
    windows.record(Mark { failed: false, slow: true });
    assert_eq!(windows.judge(&limits, 4).0, None, "5 of 11");
    assert_eq!(windows.judge(&limits, 5).0, Some(Reason::SlowCallRate), "6 of 12");
    // The share of failures knows nothing of them.
    let hung = Windows::new(&config, 0).judge(&Limits::new(&config.slow_call_rate(None)), 50).0;
    assert_eq!(hung, None);
}

// 0.28 of 25 is 7; in floating point 0.28 * 25 is more.
#[test]
fn a_share_is_reached_by_exactly_so_many_calls() {
    for (share, part, calls) in [
        (0.28, 7, 25),
        (0.55, 55, 100),
        (0.07, 7, 100),
        (0.14, 7, 50),
        (0.56, 14, 25),
        (0.1, 3, 30),
    ] {
        let config = BreakerConfig::default().failure_rate(share).minimum_calls(1);
        let limits = Limits::new(&config);
        let exceeded = |failures| limits.exceeded(Counts { calls, failures, slow: 0 }, 0);
        assert_eq!(exceeded(part - 1), None, "{share} of {calls}");
        assert_eq!(exceeded(part), Some(Reason::FailureRate), "{share} of {calls}");
    }
}
