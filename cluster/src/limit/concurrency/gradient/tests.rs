//! Where the limit goes: over simulated backends, and window by window.

mod simulation;

use std::time::Duration;

use tokio::time::Instant;

use self::simulation::{Simulation, Work};
use super::super::AdaptiveConfig;
use super::{Gradient, Latency, Plan, Window};

const TEN_MS: Work = |_| 0.010;
const FIFTY_MS: Work = |_| 0.050;
/// Exponential, as in queueing theory.
const ABOUT_TEN_MS: Work = |chance| -0.010 * (1.0 - chance).ln();
const HIT_OR_MISS: Work = |chance| if chance < 0.5 { 0.001 } else { 0.050 };
const RARE_MISS: Work = |chance| if chance < 0.9 { 0.001 } else { 0.050 };

fn adaptive(capacity: usize, work: Work) -> Simulation {
    Simulation::new(Some(AdaptiveConfig::default()), capacity, work)
}

#[test]
fn under_overload_the_limit_settles_near_the_capacity() {
    for (work, capacity, most) in [
        (TEN_MS, 4, 2.3),
        (TEN_MS, 10, 2.0),
        (TEN_MS, 50, 1.6),
        (ABOUT_TEN_MS, 10, 2.4),
        (ABOUT_TEN_MS, 50, 1.8),
        (RARE_MISS, 50, 1.3),
        (HIT_OR_MISS, 50, 2.0),
    ] {
        for load in [1.5, 4.0] {
            let mut backend = adaptive(capacity, work);
            backend.offer(load);
            backend.run(40.0);
            let share = backend.mean_limit(20.0) / capacity as f64;
            assert!((1.0..most).contains(&share), "{share} x {capacity} at load {load}");
        }
    }
}

#[test]
fn latency_stays_bounded_where_it_grows_without_a_limit() {
    let mut free = Simulation::new(None, 10, TEN_MS);
    free.offer(2.0);
    free.run(20.0);
    assert!(free.look().1 > 9.0, "every second adds half a second of queue");

    let mut limited = adaptive(10, TEN_MS);
    limited.offer(2.0);
    limited.run(5.0);
    limited.look();
    limited.run(15.0);
    let served = limited.latencies.len();
    let (middle, longest) = limited.look();
    assert!(middle < 0.022 && longest < 0.035, "{middle} {longest}");
    // Of 1,000 calls per second that the backend can do.
    assert!(served > 14_500, "the limit wastes little: {served}");
}

// With a long average for the latency without a queue, as in Netflix's Gradient2 (and
// tower-resilience's and tower-acc's), the limit climbs to its maximum under lasting overload.
#[test]
fn lasting_overload_does_not_come_to_look_normal() {
    let mut backend = adaptive(10, TEN_MS);
    backend.offer(3.0);
    backend.run(300.0);
    let highest = backend.limits.iter().filter(|(time, _)| *time > 30.0).map(|(_, limit)| *limit);
    assert!(highest.max() < Some(30));
}

#[test]
fn a_capacity_that_drops_is_followed_and_one_that_returns_is_used() {
    for work in [TEN_MS, ABOUT_TEN_MS] {
        let mut backend = adaptive(50, work);
        backend.offer(2.0);
        backend.run(20.0);
        assert!(backend.mean_limit(5.0) > 50.0);
        let (from, before) = (backend.limits.len(), backend.limit());
        backend.capacity = 10;
        backend.run(20.0);
        let windows = backend.limits[from..].iter();
        let reached = windows.take_while(|(_, limit)| *limit > before / 2).count();
        assert!(reached <= 5, "halved within so many windows: {reached}");
        let windows = backend.limits[from..].iter();
        let reached = windows.take_while(|(_, limit)| *limit > 22).count();
        assert!(reached <= 12, "near the new capacity within so many windows: {reached}");
        assert!(backend.mean_limit(10.0) < 22.0);

        let from = backend.limits.len();
        backend.capacity = 50;
        backend.run(20.0);
        let windows = backend.limits[from..].iter();
        let reached = windows.take_while(|(_, limit)| *limit < 50).count();
        assert!(reached <= 30, "at the old capacity within so many windows: {reached}");
        assert!((50.0..100.0).contains(&backend.mean_limit(5.0)));
    }
}

#[test]
fn a_backend_that_becomes_slower_does_not_hold_the_limit_down() {
    let mut backend = adaptive(50, TEN_MS);
    backend.offer(2.0);
    backend.run(20.0);
    let from = backend.limits.len();
    // As many calls at once as before, but each takes five times as long.
    backend.work = FIFTY_MS;
    backend.run(10.0);
    let lowest = backend.limits[from..].iter().map(|(_, limit)| *limit).min();
    assert!(lowest > Some(15), "{lowest:?}");
    assert!((50.0..100.0).contains(&backend.mean_limit(4.0)), "{}", backend.mean_limit(4.0));

    backend.work = TEN_MS;
    backend.run(20.0);
    assert!((50.0..100.0).contains(&backend.mean_limit(5.0)), "{}", backend.mean_limit(5.0));
}

#[test]
fn fast_and_slow_calls_side_by_side_are_no_overload() {
    for work in [HIT_OR_MISS, RARE_MISS] {
        let config = AdaptiveConfig::default().initial(100);
        let mut backend = Simulation::new(Some(config), 50, work);
        backend.offer(0.6);
        backend.run(60.0);
        assert_eq!(backend.rejected, 0);
    }
}

#[test]
fn an_idle_backend_refuses_nobody_and_is_not_probed() {
    let config = AdaptiveConfig::default().initial(40);
    let mut backend = Simulation::new(Some(config), 50, TEN_MS);
    backend.offer(0.3);
    // The first probe comes after five windows, whatever they say.
    backend.run(5.0);
    (backend.rejected, backend.limits) = (0, Vec::new());
    backend.run(120.0);
    assert_eq!(backend.rejected, 0);
    let lowest = backend.limits.iter().map(|(_, limit)| *limit).min();
    assert!(lowest >= Some(40), "{lowest:?}");
}

#[test]
fn failures_lower_the_limit_and_their_end_raises_it() {
    let mut backend = adaptive(50, TEN_MS);
    backend.offer(2.0);
    backend.run(20.0);
    backend.failures = 0.5;
    backend.run(10.0);
    assert!(backend.mean_limit(5.0) < 10.0, "{}", backend.mean_limit(5.0));
    backend.failures = 0.0;
    backend.run(20.0);
    assert!(backend.mean_limit(5.0) > 50.0, "{}", backend.mean_limit(5.0));
}

/// Steps through windows, one per second.
struct Steps {
    gradient: Gradient,
    now: Instant,
}

impl Steps {
    fn new(config: AdaptiveConfig) -> Self {
        Self { gradient: Gradient::new(config), now: Instant::now() }
    }

    fn step(&mut self, millis: f64, dropped: u64, peak: u64) -> Plan {
        self.now += Duration::from_secs(1);
        let seconds = millis / 1e3;
        let latency = Some(Latency { median: seconds, ninetieth: seconds });
        let window = Window { latency, succeeded: 100 - dropped, dropped, abandoned: 0, peak };
        self.gradient.step(self.now, &window, 0.5)
    }

    fn all_dropped(&mut self, peak: u64) -> Plan {
        self.now += Duration::from_secs(1);
        let window = Window { dropped: 100, ..Window::empty(peak) };
        self.gradient.step(self.now, &window, 0.5)
    }
}

// tower-resilience's AIMD climbs from 10 to 100 with one call at a time, its Vegas to 16: a limit
// that is no limit when the burst comes.
#[test]
fn one_call_at_a_time_never_makes_it_climb() {
    let mut steps = Steps::new(AdaptiveConfig::default());
    for _ in 0..1_000 {
        assert_eq!(steps.step(10.0, 0, 1).limit, 20);
    }
    // Nor when they become faster, or slower.
    for millis in [1.0, 100.0] {
        for _ in 0..1_000 {
            assert!(steps.step(millis, 0, 1).limit <= 20);
        }
    }
}

#[test]
fn it_grows_by_its_square_root_while_it_is_used() {
    let mut steps = Steps::new(AdaptiveConfig::default().initial(100).smoothing(1.0));
    steps.step(10.0, 0, 100);
    assert_eq!(steps.step(10.0, 0, 100).limit, 110);
    assert_eq!(steps.step(10.0, 0, 50).limit, 110, "not while half of it is unused");
}

#[test]
fn one_odd_window_halves_it_at_most() {
    let mut steps = Steps::new(AdaptiveConfig::default().initial(100).smoothing(1.0));
    steps.step(10.0, 0, 100);
    assert_eq!(steps.step(10_000.0, 0, 100).limit, 60);
}

#[test]
fn it_keeps_within_its_bounds() {
    let config = AdaptiveConfig::default().between(8, 30).smoothing(1.0);
    let mut steps = Steps::new(config);
    for _ in 0..50 {
        assert!(steps.step(10.0, 0, 100).limit <= 30);
    }
    for _ in 0..50 {
        assert!(steps.all_dropped(30).limit >= 8);
    }
    assert_eq!(steps.all_dropped(30).limit, 8);
    assert_eq!((steps.gradient.set(1_000), steps.gradient.set(1)), (30, 8));
}

#[test]
fn a_few_failures_among_many_successes_are_outweighed() {
    let mut steps = Steps::new(AdaptiveConfig::default().initial(100));
    for _ in 0..50 {
        steps.step(10.0, 1, 200);
    }
    assert!(steps.step(10.0, 1, 200).limit > 150);
}

#[test]
fn the_failures_of_a_few_callers_take_only_what_is_unused() {
    let mut steps = Steps::new(AdaptiveConfig::default().initial(100));
    for _ in 0..100 {
        steps.all_dropped(10);
    }
    assert_eq!(steps.all_dropped(10).limit, 20);
}

#[test]
fn a_probe_halves_the_limit_for_one_window() {
    let config = AdaptiveConfig::default().initial(100).smoothing(0.01).jitter(0.0);
    let mut steps = Steps::new(config);
    steps.step(10.0, 0, 100);
    let steady = |plan: Plan| plan.counts_from.is_none();
    let mut last = steps.step(11.5, 0, 100);
    while steady(last) {
        let next = steps.step(11.5, 0, 100);
        if !steady(next) {
            assert_eq!(next.counts_from, Some(steps.now), "only calls that began under it count");
            assert!(next.limit < last.limit / 2 && next.limit > last.limit * 2 / 5);
        }
        last = next;
    }
    // Without a queue it takes 10 ms still: that is found, and the limit is the old one again.
    let after = steps.step(10.0, 0, 45);
    assert!(after.limit > 95, "{after:?}");
    // The next one is due after the interval of 30 s, though the latency is never confirmed.
    let until_next = (1..100).find(|_| !steady(steps.step(11.5, 0, 100)));
    assert_eq!(until_next, Some(30));
}

#[test]
fn a_probe_in_which_nothing_comes_leaves_the_limit_as_it_was() {
    let config = AdaptiveConfig::default().initial(100).smoothing(0.01).jitter(0.0);
    let mut steps = Steps::new(config);
    let (before, until) = (0..100)
        .find_map(|_| {
            let before = steps.gradient.limit;
            steps.step(100.0, 0, 100).probe_until.map(|until| (before, until))
        })
        .expect("after five windows");
    // Twice the window, and twice what twenty calls of 100 ms take, 45 at a time.
    let patience = (until - steps.now).as_millis();
    assert!((550..650).contains(&patience), "{patience}");
    let plan = steps.gradient.step(until, &Window::empty(0), 0.5);
    assert_eq!((plan.probe_until, plan.counts_from), (None, Some(until)));
    assert!(f64::from(plan.limit) > before - 1.0, "{plan:?}");
}

#[test]
fn calls_given_up_count_unless_those_that_end_well_show_no_queue() {
    // Millis of those that ended well, how many there were, how many were given up.
    for (millis, succeeded, abandoned, lowered) in [
        (10.0, 50, 50, false),
        (12.0, 10, 90, false),
        (10.0, 1, 90, true),
        (40.0, 50, 50, true),
        (10.0, 0, 50, true),
    ] {
        let mut steps = Steps::new(AdaptiveConfig::default().initial(100));
        steps.step(10.0, 0, 100);
        steps.now += Duration::from_secs(1);
        let latency = Latency { median: millis / 1e3, ninetieth: millis / 1e3 };
        let latency = (succeeded > 0).then_some(latency);
        let window = Window { latency, succeeded, dropped: 0, abandoned, peak: 100 };
        let plan = steps.gradient.step(steps.now, &window, 0.5);
        assert_eq!(plan.limit < 100, lowered, "{millis} {succeeded} {abandoned}: {plan:?}");
    }
}

#[test]
fn latency_without_a_queue_that_is_seen_anyway_needs_no_probe() {
    let mut steps = Steps::new(AdaptiveConfig::default());
    // The first probe comes after five windows, whatever they say.
    assert!((0..10).any(|_| steps.step(10.0, 0, 1_000).counts_from.is_some()));
    steps.step(10.0, 0, 1_000);
    for _ in 0..500 {
        let plan = steps.step(10.0, 0, 1_000);
        assert!(plan.counts_from.is_none() && plan.limit >= 20);
    }
}

#[test]
fn few_calls_take_the_place_of_a_probe() {
    let mut steps = Steps::new(AdaptiveConfig::default().initial(100));
    steps.step(10.0, 0, 100);
    // Slower by itself, while less than half of the limit is used: nothing to probe.
    for _ in 0..100 {
        let plan = steps.step(30.0, 0, 20);
        assert!(plan.counts_from.is_none());
        assert_eq!(plan.limit, 100);
    }
    assert_eq!(steps.gradient.floor(), Some(0.030));
}

#[test]
fn a_window_lasts_twice_the_latency() {
    let mut steps = Steps::new(AdaptiveConfig::default());
    for (millis, window) in [(1.0, 250), (1_000.0, 2_000), (60_000.0, 10_000)] {
        assert_eq!(steps.step(millis, 0, 1).window, Duration::from_millis(window));
    }
    assert_eq!(steps.all_dropped(1).window, Duration::from_millis(250));
}
