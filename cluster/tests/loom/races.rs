//! Two or three callers of one breaker at once, in every order.

use std::time::Duration;

use loom::thread::{self, JoinHandle};

use crate::breaker::primitives::{set_thread, set_time};
use crate::breaker::{Breaker, BreakerConfig, BreakerStats, Permit, State};

const SHARDS: usize = 2;

fn config() -> BreakerConfig {
    BreakerConfig::default()
        .consecutive_failures(2)
        .window(None)
        .count_window(10)
        .minimum_calls(10)
        .half_open_permits(1)
        .jitter(0.0)
        .abandoned_after(None)
}

fn breaker(config: BreakerConfig) -> Breaker {
    set_time(Duration::ZERO);
    Breaker::with_shards("race", config, SHARDS).expect("valid")
}

fn admit(breaker: &Breaker) -> Permit {
    breaker.admit().expect("closed")
}

/// A thread with a shard of its own.
fn spawn<T: 'static>(
    breaker: &Breaker,
    run: impl FnOnce(&Breaker) -> T + 'static,
) -> JoinHandle<T> {
    let breaker = breaker.clone();
    thread::spawn(move || {
        set_thread(1);
        run(&breaker)
    })
}

/// All orders with at most three preemptions, in which nearly all errors show.
fn race(race: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.max_branches = 10_000;
    model.check(race);
}

fn check(stats: &BreakerStats, admitted: u64) {
    let ended = stats.succeeded_total
        + stats.failed_total
        + stats.throttled_total
        + stats.ignored_total
        + stats.cancelled_total
        + stats.abandoned_total
        + stats.panicked_total;
    assert_eq!((stats.admitted_total, ended, stats.in_flight), (admitted, admitted, 0));
}

#[test]
fn failures_that_end_at_once_are_all_in_a_row_and_open_it_once() {
    race(|| {
        let breaker = breaker(config());
        let (one, other) = (admit(&breaker), admit(&breaker));
        let ends = spawn(&breaker, |_| one.failed());
        other.failed();
        ends.join().expect("ended");
        let stats = breaker.stats();
        assert_eq!((stats.state, stats.opened_total), (State::Open, 1));
        check(&stats, 2);
    });
}

#[test]
fn a_success_among_failures_loses_none_of_them() {
    race(|| {
        let breaker = breaker(config());
        let permits = [admit(&breaker), admit(&breaker), admit(&breaker)];
        let [first, second, good] = permits;
        first.failed();
        let ends = spawn(&breaker, |_| good.succeeded());
        second.failed();
        ends.join().expect("ended");
        // Either the success came after both failures and changed nothing, or the second one is
        // the first of a new row.
        let stats = breaker.stats();
        match stats.state {
            State::Open => assert_eq!(stats.opened_total, 1),
            _ => {
                let window = (stats.count_window_calls, stats.count_window_failures);
                assert_eq!((stats.consecutive_failures, window), (1, (3, 2)));
            }
        }
        check(&stats, 3);
    });
}

#[test]
fn a_success_among_failures_ends_their_row_in_every_order() {
    race(|| {
        let breaker = breaker(config().consecutive_failures(10));
        let [first, second, good] = [admit(&breaker), admit(&breaker), admit(&breaker)];
        first.failed();
        let ends = spawn(&breaker, |_| good.succeeded());
        second.failed();
        ends.join().expect("ended");
        let stats = breaker.stats();
        // One if the success came before the second failure, none if it came after both.
        assert!(stats.consecutive_failures <= 1, "{stats:?}");
        check(&stats, 3);
    });
}

#[test]
fn results_of_before_a_reset_are_not_in_the_window_after_it() {
    for failed in [false, true] {
        race(move || {
            let breaker = breaker(config());
            let late = admit(&breaker);
            let ends =
                spawn(&breaker, move |_| if failed { late.failed() } else { late.succeeded() });
            breaker.reset();
            ends.join().expect("ended");
            let stats = breaker.stats();
            assert_eq!((stats.count_window_calls, stats.consecutive_failures), (0, 0));
            check(&stats, 1);
        });
    }
}

#[test]
fn a_call_that_is_let_in_as_it_opens_decides_nothing_later() {
    race(|| {
        let breaker = breaker(config());
        let calls = spawn(&breaker, |breaker| breaker.admit().map(Permit::succeeded).is_ok());
        breaker.force_open();
        let let_in = calls.join().expect("called");
        let stats = breaker.stats();
        assert_eq!(stats.state, State::ForcedOpen);
        assert_eq!(stats.rejected_total, u64::from(!let_in));
        check(&stats, u64::from(let_in));
        breaker.reset();
        assert_eq!(breaker.stats().count_window_calls, 0);
    });
}

/// Open since zero, with its time over.
fn tried(config: BreakerConfig) -> Breaker {
    let breaker = breaker(config.consecutive_failures(1));
    admit(&breaker).failed();
    set_time(Duration::from_secs(6));
    breaker
}

#[test]
fn of_two_who_come_to_a_half_open_circuit_one_is_let_in() {
    race(|| {
        let breaker = tried(config());
        let other = spawn(&breaker, |breaker| breaker.admit().ok());
        let mine = breaker.admit().ok();
        let other = other.join().expect("asked");
        assert_eq!(u32::from(mine.is_some()) + u32::from(other.is_some()), 1);
        assert_eq!(breaker.stats().half_opened_total, 1);
        mine.or(other).expect("one of them").succeeded();
        assert_eq!(breaker.state(), State::Closed);
    });
}

#[test]
fn a_probe_that_is_dropped_gives_its_permit_back_whoever_asks_meanwhile() {
    race(|| {
        let breaker = tried(config());
        let probe = admit(&breaker);
        let drops = spawn(&breaker, |_| drop(probe));
        let meanwhile = breaker.admit().ok();
        drops.join().expect("dropped");
        let next = meanwhile.or_else(|| breaker.admit().ok()).expect("it is free");
        assert!(breaker.admit().is_err());
        next.succeeded();
        let stats = breaker.stats();
        assert_eq!((stats.state, stats.cancelled_total), (State::Closed, 1));
        // The call that opened it, and the two probes.
        check(&stats, 3);
    });
}

#[test]
fn a_failed_probe_and_a_late_result_open_it_once_more() {
    race(|| {
        let breaker = breaker(config().consecutive_failures(1));
        let late = admit(&breaker);
        admit(&breaker).failed();
        set_time(Duration::from_secs(6));
        let probe = admit(&breaker);
        let ends = spawn(&breaker, |_| late.succeeded());
        probe.failed();
        ends.join().expect("ended");
        let stats = breaker.stats();
        assert_eq!((stats.state, stats.opened_total, stats.closed_total), (State::Open, 2, 0));
        check(&stats, 3);
    });
}

#[test]
fn a_permit_outlives_the_breaker_whoever_drops_first() {
    race(|| {
        let breaker = breaker(config());
        let permit = admit(&breaker);
        // loom reports what is left over.
        let drops = thread::spawn(move || drop(permit));
        drop(breaker);
        drops.join().expect("dropped");
    });
}

#[test]
fn a_snapshot_never_shows_more_ends_than_starts() {
    race(|| {
        let breaker = breaker(config());
        let calls = spawn(&breaker, |breaker| {
            admit(breaker).succeeded();
            admit(breaker).failed();
        });
        // More ends than starts would overflow; what begins while it is read is in flight.
        let stats = breaker.stats();
        assert!(stats.in_flight <= 2, "{stats:?}");
        calls.join().expect("called");
        check(&breaker.stats(), 2);
    });
}

#[test]
fn a_success_that_closes_a_bucket_is_counted_beside_a_failure_of_the_moment() {
    race(|| {
        let config = config().window(Duration::from_secs(10)).count_window(None);
        let breaker = breaker(config.minimum_calls(10));
        let (good, bad) = (admit(&breaker), admit(&breaker));
        set_time(Duration::from_secs(3));
        let ends = spawn(&breaker, |_| good.succeeded());
        bad.failed();
        ends.join().expect("ended");
        let stats = breaker.stats();
        assert_eq!((stats.window_calls, stats.window_failures), (2, 1));
    });
}

#[test]
fn calls_that_hang_open_it_whoever_looks() {
    race(|| {
        let config = config().consecutive_failures(None).slow_call_rate(0.5);
        let breaker = breaker(config.minimum_calls(2).slow_call(Duration::from_secs(8)));
        let hung = [admit(&breaker), admit(&breaker)];
        set_time(Duration::from_secs(9));
        let looks = spawn(&breaker, |breaker| drop(breaker.admit()));
        // Whoever is first looks; the other may be let in meanwhile.
        drop(breaker.admit());
        looks.join().expect("looked");
        assert_eq!(breaker.state(), State::Open);
        drop(hung);
        let stats = breaker.stats();
        check(&stats, stats.admitted_total);
    });
}
