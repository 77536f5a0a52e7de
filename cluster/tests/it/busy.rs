//! A breaker around a service that is full or fails before it can be called: what counts then is
//! found in `poll_ready` or nowhere.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use escala_cluster::{Breaker, BreakerLayer, Open, Outcome, State};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_test::{assert_pending, task};
use tower::limit::ConcurrencyLimit;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use crate::states::{breaker, config, fail, succeed};

/// A service with so many places, whose calls hang, behind the breaker.
fn hanging(
    breaker: &Breaker,
    places: usize,
) -> impl Service<(), Response = (), Error = BoxError> + Clone {
    let hung = service_fn(|()| std::future::pending::<Result<(), Infallible>>());
    BreakerLayer::new(breaker.clone()).layer(ConcurrencyLimit::new(hung, places))
}

/// The answer of the breaker to a call that must not have to wait for one.
async fn rejected(service: impl Service<(), Response = (), Error = BoxError>) -> Duration {
    let answer = timeout(Duration::ZERO, service.oneshot(())).await.expect("at once");
    answer.expect_err("rejected").downcast_ref::<Open>().expect("by the breaker").retry_after
}

// Nobody reaches `call`, so nobody there would find the probe's deadline.
#[tokio::test(start_paused = true)]
async fn a_hung_probe_gives_way_at_its_deadline_though_it_holds_the_last_place() {
    let (start, breaker) = (Instant::now(), breaker(config().half_open_permits(1)));
    let at = |seconds| sleep_until(start + Duration::from_secs(seconds));
    let service = hanging(&breaker, 1);
    fail(&breaker, 5);
    at(5).await;
    let mut probe = task::spawn(service.clone().oneshot(()));
    assert_pending!(probe.poll());
    // Rejected as long as the trial goes on, and then while the circuit is open, since 10 s.
    for (second, left) in [(6, 4), (9, 1), (10, 10), (19, 1)] {
        at(second).await;
        let left = Duration::from_secs(left);
        assert_eq!(rejected(service.clone()).await, left, "at {second} s");
    }
    assert_eq!((breaker.state(), breaker.stats().rejected_total), (State::Open, 4));
    at(20).await;
    let mut next = task::spawn(service.clone().oneshot(()));
    assert_pending!(next.poll(), "a trial is due, and there is no place for it");
    drop(probe);
    assert!(next.is_woken());
    assert_pending!(next.poll());
    assert_eq!((breaker.state(), breaker.stats().in_flight), (State::HalfOpen, 1));
}

#[tokio::test(start_paused = true)]
async fn calls_that_hang_open_it_though_they_hold_every_place() {
    let config = config().consecutive_failures(None).failure_rate(None);
    let breaker = breaker(config.slow_call_rate(0.5).minimum_calls(2));
    let service = hanging(&breaker, 2);
    let mut hung = [(); 2].map(|()| task::spawn(service.clone().oneshot(())));
    for call in &mut hung {
        assert_pending!(call.poll());
    }
    let mut waiting = task::spawn(service.clone().oneshot(()));
    assert_pending!(waiting.poll());
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(rejected(service.clone()).await, Duration::from_secs(5));
    // Who waited before is rejected when he is woken, and does not reach the service.
    assert!(!waiting.is_woken());
    let [one, _other] = hung;
    drop(one);
    assert!(waiting.is_woken());
    let Poll::Ready(answer) = waiting.poll() else { panic!("rejected at once") };
    assert!(answer.expect_err("rejected").is::<Open>());
}

#[tokio::test(start_paused = true)]
async fn in_shadow_mode_a_busy_service_is_waited_for() {
    let breaker = breaker(config().half_open_permits(1));
    breaker.shadow();
    let service = hanging(&breaker, 1);
    fail(&breaker, 5);
    tokio::time::advance(Duration::from_secs(5)).await;
    let mut probe = task::spawn(service.clone().oneshot(()));
    assert_pending!(probe.poll());
    let mut next = task::spawn(service.clone().oneshot(()));
    assert_pending!(next.poll());
    assert_eq!(breaker.stats().rejected_total, 0);
}

/// A service that cannot connect.
#[derive(Clone)]
struct Unconnected;

impl Service<()> for Unconnected {
    type Response = ();
    type Error = &'static str;
    type Future = std::future::Ready<Result<(), &'static str>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(Err("connection refused"))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

// tower's Reconnect, Balance and Buffer say so of a backend that is down.
#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_become_ready_has_failed() {
    let breaker = breaker(config().half_open_permits(1));
    let service = BreakerLayer::new(breaker.clone()).layer(Unconnected);
    for _ in 0..5 {
        let error = service.clone().oneshot(()).await.expect_err("down");
        assert_eq!(error.to_string(), "connection refused");
    }
    assert!(service.clone().oneshot(()).await.expect_err("rejected").is::<Open>());
    let stats = breaker.stats();
    assert_eq!((stats.state, stats.admitted_total, stats.failed_total), (State::Open, 5, 5));
    assert_eq!((stats.rejected_total, stats.in_flight), (1, 0));
    // As a trial, too.
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(!service.clone().oneshot(()).await.expect_err("down").is::<Open>());
    assert_eq!((breaker.state(), breaker.stats().opened_total), (State::Open, 2));

    breaker.disable();
    assert!(service.clone().oneshot(()).await.is_err());
    assert_eq!(breaker.stats().admitted_total, 6);
}

#[tokio::test]
async fn the_classifier_judges_errors_of_readiness_too() {
    let breaker = breaker(config().consecutive_failures(1));
    let ours = BreakerLayer::new(breaker.clone())
        .classify(|result: Result<&(), &&str>| match result {
            Err(&"connection refused") => Outcome::Ignored,
            _ => Outcome::Success,
        })
        .layer(Unconnected);
    assert!(ours.oneshot(()).await.is_err());
    assert_eq!((breaker.state(), breaker.stats().ignored_total), (State::Closed, 1));
    succeed(&breaker, 1);
}
