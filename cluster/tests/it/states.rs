//! The life of a circuit through its handle, under paused time.

use std::time::Duration;

use escala_cluster::{Breaker, BreakerConfig, Open, Permit, State};
use tokio::time::advance;

pub(crate) fn config() -> BreakerConfig {
    BreakerConfig::default().jitter(0.0)
}

pub(crate) fn breaker(config: BreakerConfig) -> Breaker {
    Breaker::new("test", config).expect("valid")
}

pub(crate) fn fail(breaker: &Breaker, times: u32) {
    for _ in 0..times {
        breaker.admit().expect("let in").failed();
    }
}

pub(crate) fn succeed(breaker: &Breaker, times: u32) {
    for _ in 0..times {
        breaker.admit().expect("let in").succeeded();
    }
}

fn retry_after(answer: Result<Permit, Open>) -> Duration {
    answer.expect_err("rejected").retry_after
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_open_it_and_a_success_between_starts_over() {
    let breaker = breaker(config());
    fail(&breaker, 4);
    breaker.admit().expect("closed").succeeded();
    fail(&breaker, 4);
    assert_eq!(breaker.state(), State::Closed);
    breaker.admit().expect("closed").ignored();
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(retry_after(breaker.admit()), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn half_of_the_calls_failing_opens_it_once_there_are_enough_calls() {
    let breaker = breaker(config());
    for call in 0..99 {
        let permit = breaker.admit().expect("closed");
        if call % 2 == 0 { permit.failed() } else { permit.succeeded() }
    }
    assert_eq!((breaker.stats().window_calls, breaker.stats().window_failures), (99, 50));
    assert_eq!(breaker.state(), State::Closed);
    breaker.admit().expect("closed").succeeded();
    assert_eq!(breaker.state(), State::Closed, "a success never opens it");
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
}

// tower-resilience needs 100,000 failures in a row after 100,000 successes: its window only grows.
#[tokio::test(start_paused = true)]
async fn a_long_good_past_does_not_outweigh_a_bad_present() {
    let breaker = breaker(config().consecutive_failures(None));
    for _ in 0..100_000 {
        breaker.admit().expect("closed").succeeded();
    }
    advance(Duration::from_secs(11)).await;
    fail(&breaker, 99);
    assert_eq!(breaker.state(), State::Closed);
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_tries_the_backend_and_closes_with_a_clean_slate() {
    let breaker = breaker(config());
    fail(&breaker, 5);
    advance(Duration::from_millis(4_999)).await;
    assert_eq!(retry_after(breaker.admit()), Duration::from_millis(1));
    advance(Duration::from_millis(1)).await;
    assert_eq!(breaker.state(), State::HalfOpen);

    let probes = [(); 3].map(|()| breaker.admit().expect("a permit"));
    assert_eq!(retry_after(breaker.admit()), Duration::from_secs(5));
    for probe in probes {
        probe.succeeded();
    }
    assert_eq!(breaker.state(), State::Closed);
    let stats = breaker.stats();
    assert_eq!((stats.window_calls, stats.consecutive_failures), (0, 0));
    assert_eq!((stats.opened_total, stats.half_opened_total, stats.closed_total), (1, 1, 1));
    fail(&breaker, 4);
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_failed_trial_opens_it_for_twice_as_long() {
    let breaker = breaker(config());
    fail(&breaker, 5);
    advance(Duration::from_secs(5)).await;
    fail(&breaker, 2);
    assert_eq!(retry_after(breaker.admit()), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn forced_states_hold_and_reset_lifts_them() {
    let breaker = breaker(config());
    breaker.force_open();
    advance(Duration::from_secs(3_600)).await;
    assert_eq!(breaker.state(), State::ForcedOpen);
    assert_eq!(retry_after(breaker.admit()), Duration::from_secs(5));
    breaker.force_close();
    fail(&breaker, 500);
    assert_eq!(breaker.state(), State::ForcedClosed);
    breaker.reset();
    assert_eq!(breaker.state(), State::Closed);
    fail(&breaker, 5);
    assert_eq!(breaker.state(), State::Open);
    breaker.reset();
    assert!(breaker.admit().is_ok());
}

#[tokio::test(start_paused = true)]
async fn results_of_calls_from_before_a_reset_change_nothing() {
    let breaker = breaker(config());
    let old = [(); 50].map(|()| breaker.admit().expect("closed"));
    breaker.reset();
    for permit in old {
        permit.failed();
    }
    assert_eq!(breaker.state(), State::Closed);
    let stats = breaker.stats();
    assert_eq!((stats.failed_total, stats.consecutive_failures, stats.window_calls), (50, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn clones_are_one_circuit() {
    let breaker = breaker(config());
    let clone = breaker.clone();
    fail(&clone, 5);
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(breaker.name(), "test");
}
