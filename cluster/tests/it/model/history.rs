//! What may happen to a breaker.

use std::time::Duration;

use escala_cluster::{BreakerConfig, Outcome, State};
use proptest::prelude::*;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Wait(u64),
    Admit,
    End(usize, End),
    Reconfigure(Box<BreakerConfig>),
    /// A state by hand; shadow mode without one.
    Force(Option<State>),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// With the seconds of a `Retry-After`.
    Judged(Outcome, Option<u64>),
    Dropped,
}

fn end() -> impl Strategy<Value = End> {
    let judged = |outcome| {
        prop::option::weighted(0.1, 0_u64..9).prop_map(move |time| End::Judged(outcome, time))
    };
    prop_oneof![
        8 => judged(Outcome::Success),
        6 => judged(Outcome::Failure),
        2 => judged(Outcome::Throttled),
        1 => judged(Outcome::Ignored),
        2 => Just(End::Dropped),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let state = prop_oneof![
        1 => Just(Some(State::ForcedOpen)),
        1 => Just(Some(State::ForcedClosed)),
        1 => Just(Some(State::Disabled)),
        4 => Just(Some(State::Closed)),
        2 => Just(None),
    ];
    prop_oneof![
        12 => (1_u64..120).prop_map(Step::Wait),
        4 => (100_u64..1_500).prop_map(Step::Wait),
        30 => Just(Step::Admit),
        30 => (any::<usize>(), end()).prop_map(|(index, end)| Step::End(index, end)),
        1 => config().prop_map(|config| Step::Reconfigure(Box::new(config))),
        1 => state.prop_map(Step::Force),
    ]
}

/// Every set of conditions, with times so that all of them are met.
pub(super) fn config() -> impl Strategy<Value = BreakerConfig> {
    let share = || {
        prop::option::of(prop_oneof![
            Just(0.25),
            Just(0.5),
            Just(1.0),
            Just(0.28),
            Just(0.55),
            Just(0.07)
        ])
    };
    let conditions = (prop::option::of(1_u32..6), share(), share());
    let windows = (prop::option::of(Just(1_000_u64)), prop::option::of(1_u32..25), 1_u32..12);
    let slow = prop_oneof![3 => Just(400_u64), 1 => Just(200)];
    let permits = prop_oneof![4 => 1_u32..5, 1 => 5_u32..30];
    let trial = (permits, prop_oneof![Just(0.3), Just(0.5), Just(1.0), Just(0.28)]);
    (conditions, windows, slow, trial).prop_filter_map(
        "each rate has its window, and there is a condition",
        |((row, failures, slow_rate), (window, size, minimum), slow, (permits, ratio))| {
            let mut config = BreakerConfig::default()
                .consecutive_failures(row)
                .failure_rate(failures)
                .slow_call_rate(slow_rate)
                .slow_call(Duration::from_millis(slow))
                .window(window.map(Duration::from_millis))
                .minimum_calls(minimum)
                .count_window(size)
                .open_for(Duration::from_secs(1))
                .open_for_max(Duration::from_secs(4))
                .retry_after_max(Duration::from_secs(6))
                .jitter(0.0)
                .probe_deadline(Duration::from_millis(700))
                .abandoned_after(Duration::from_millis(250));
            config.half_open_permits = permits;
            config.half_open_success_ratio = ratio;
            config.validate().is_ok().then_some(config)
        },
    )
}
