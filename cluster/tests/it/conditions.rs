//! What opens a circuit, one condition at a time and together.

use std::convert::Infallible;
use std::time::Duration;

use escala_cluster::{BreakerConfig, BreakerLayer, Judgement, Outcome, Reason, State};
use tokio::time::{advance, sleep, timeout};
use tower::{Layer, ServiceExt, service_fn};

use crate::modes::reasons;
use crate::states::{breaker, config, fail, succeed};

fn only(config: BreakerConfig) -> BreakerConfig {
    config.consecutive_failures(None)
}

// mcp-proxy's users found that a window of 100 calls cannot open before it is full.
#[tokio::test(start_paused = true)]
async fn a_window_of_calls_opens_it_from_the_minimum_on_not_only_when_it_is_full() {
    let breaker = breaker(only(config()).window(None).count_window(100).minimum_calls(10));
    succeed(&breaker, 5);
    fail(&breaker, 4);
    assert_eq!(breaker.state(), State::Closed);
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_window_of_calls_holds_the_last_ones_whatever_the_time() {
    let breaker = breaker(only(config()).window(None).count_window(10).minimum_calls(10));
    for _ in 0..50 {
        fail(&breaker, 4);
        succeed(&breaker, 6);
        advance(Duration::from_secs(600)).await;
    }
    let stats = breaker.stats();
    assert_eq!((stats.count_window_calls, stats.count_window_failures), (10, 4));
    fail(&breaker, 4);
    assert_eq!(breaker.state(), State::Closed, "4 of 10: those before have left");
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn whichever_condition_is_met_first_opens_it() {
    let both =
        || config().consecutive_failures(3).count_window(20).minimum_calls(10).slow_call_rate(0.5);
    let in_a_row = breaker(both());
    let told = reasons(&in_a_row);
    fail(&in_a_row, 3);
    assert_eq!(*told.lock(), [Reason::ConsecutiveFailures]);

    let by_rate = breaker(both());
    let told = reasons(&by_rate);
    for _ in 0..5 {
        succeed(&by_rate, 1);
        fail(&by_rate, 1);
    }
    assert_eq!(*told.lock(), [Reason::FailureRate]);

    let by_time = breaker(both());
    let told = reasons(&by_time);
    for _ in 0..10 {
        let slow = by_time.admit().expect("closed");
        advance(Duration::from_secs(1)).await;
        slow.succeeded();
    }
    assert_eq!(*told.lock(), [Reason::SlowCallRate]);
    assert_eq!(by_time.stats().slow_total, 10);
}

// No other breaker counts calls that have not ended.
#[tokio::test(start_paused = true)]
async fn calls_that_hang_open_it_without_any_of_them_ending() {
    let breaker = breaker(only(config()).failure_rate(None).slow_call_rate(0.5).minimum_calls(50));
    let hung = service_fn(|()| std::future::pending::<Result<(), Infallible>>());
    let service = BreakerLayer::new(breaker.clone()).layer(hung);
    let mut calls = Vec::new();
    for _ in 0..50 {
        let mut call = tokio_test::task::spawn(service.clone().oneshot(()));
        assert!(call.poll().is_pending());
        calls.push(call);
    }
    advance(Duration::from_millis(999)).await;
    assert_eq!(breaker.state(), State::Closed);
    advance(Duration::from_millis(126)).await;
    assert!(service.clone().oneshot(()).await.is_err(), "rejected, not hanging like the others");
    assert_eq!(breaker.stats().rejected_total, 1);
    drop(calls);
    let stats = breaker.stats();
    assert_eq!((stats.state, stats.slow_total, stats.in_flight), (State::Open, 50, 0));
}

#[tokio::test(start_paused = true)]
async fn calls_that_hung_before_it_closed_again_do_not_open_it() {
    let config = only(config()).failure_rate(None).slow_call_rate(0.5).minimum_calls(2);
    let breaker = breaker(config.half_open_permits(1));
    let hung = [(); 2].map(|()| breaker.admit().expect("closed"));
    advance(Duration::from_secs(2)).await;
    assert_eq!(breaker.state(), State::Open);
    advance(Duration::from_secs(5)).await;
    succeed(&breaker, 1);
    advance(Duration::from_secs(2)).await;
    assert_eq!((breaker.state(), breaker.stats().in_flight_slow), (State::Closed, 0));
    drop(hung);
    assert_eq!((breaker.state(), breaker.stats().window_slow), (State::Closed, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_trial_call_does_not_close_it() {
    let config = config().slow_call_rate(0.5).half_open_permits(1);
    let breaker = breaker(config);
    fail(&breaker, 5);
    advance(Duration::from_secs(5)).await;
    let probe = breaker.admit().expect("the probe");
    advance(Duration::from_secs(1)).await;
    probe.succeeded();
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_call_counts_against_the_rate_and_in_no_row() {
    let breaker = breaker(config().minimum_calls(10).half_open_permits(1));
    fail(&breaker, 4);
    for _ in 0..3 {
        breaker.admit().expect("closed").throttled();
    }
    let stats = breaker.stats();
    assert_eq!((stats.state, stats.consecutive_failures), (State::Closed, 4));
    assert_eq!((stats.window_failures, stats.throttled_total), (7, 3));
    succeed(&breaker, 2);
    breaker.admit().expect("closed").throttled();
    assert_eq!(breaker.state(), State::Open, "8 of 10");
    advance(Duration::from_secs(5)).await;
    breaker.admit().expect("the probe").throttled();
    assert_eq!(breaker.state(), State::Open, "a throttled probe does not close it");
}

#[tokio::test(start_paused = true)]
async fn it_stays_open_for_as_long_as_the_backend_asks() {
    let breaker = breaker(config().consecutive_failures(2));
    let layer =
        BreakerLayer::new(breaker.clone()).classify(|result: Result<&(), &std::io::Error>| {
            match result {
                Ok(()) => Judgement::from(Outcome::Success),
                Err(_) => Judgement::new(Outcome::Failure).retry_after(Duration::from_secs(120)),
            }
        });
    let failing = service_fn(|()| async { Err::<(), _>(std::io::Error::other("down")) });
    assert!(layer.layer(failing).oneshot(()).await.is_err());
    // The call that opens it has nothing to say about it.
    fail(&breaker, 1);
    let open = breaker.admit().expect_err("open");
    assert_eq!(open.retry_after, Duration::from_secs(120));
    advance(Duration::from_secs(119)).await;
    assert_eq!(breaker.state(), State::Open);
    advance(Duration::from_secs(1)).await;
    // However long it asks for, five minutes are the most.
    for _ in 0..2 {
        breaker
            .admit()
            .expect("a probe")
            .judged(Judgement::new(Outcome::Failure).retry_after(Duration::from_secs(86_400)));
    }
    assert_eq!(breaker.admit().expect_err("open").retry_after, Duration::from_secs(300));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_it_is_a_slow_call_too() {
    let config = only(config()).failure_rate(None).slow_call_rate(1.0).abandoned_after(None);
    let breaker = breaker(config.window(None).count_window(50));
    let slow = service_fn(|()| async {
        sleep(Duration::from_secs(60)).await;
        Ok::<_, Infallible>(())
    });
    for _ in 0..50 {
        let call = BreakerLayer::new(breaker.clone()).layer(slow).oneshot(());
        assert!(timeout(Duration::from_secs(1), call).await.is_err());
    }
    let stats = breaker.stats();
    assert_eq!((stats.state, stats.cancelled_total, stats.slow_total), (State::Open, 50, 50));
}
