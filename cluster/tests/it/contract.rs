//! What tower asks of a middleware, checked with a mock that panics when it is called unready.

use std::convert::Infallible;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use escala_cluster::{
    AsError, AtHead, Breaker, BreakerConfig, BreakerLayer, BreakerService, ErrorsFail, Open,
    Outcome, ResponseFuture,
};
use tokio_test::{assert_pending, assert_ready_ok};
use tower::{Layer, Service};
use tower_test::mock;

type Mock = mock::Mock<&'static str, &'static str>;

fn breaker(failures: u32) -> Breaker {
    let config = BreakerConfig::default().consecutive_failures(failures).failure_rate(None);
    Breaker::new("mock", config.jitter(0.0)).expect("valid")
}

fn is_open(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.is::<Open>()
}

#[test]
fn service_and_future_may_travel_between_threads() {
    fn travels<T: Send + Sync + 'static>() {}
    travels::<Breaker>();
    travels::<BreakerLayer>();
    travels::<BreakerService<(), ErrorsFail, AsError>>();
    travels::<ResponseFuture<(), (), ErrorsFail, AsError, AtHead>>();
}

#[tokio::test(start_paused = true)]
async fn readiness_is_that_of_the_inner_service_while_closed() {
    let (mut service, mut handle) = mock::spawn_layer(BreakerLayer::new(breaker(1)));
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut call = tokio_test::task::spawn(service.call("in"));
    let (request, reply) = handle.next_request().await.expect("the call arrives");
    assert_eq!(request, "in");
    assert_pending!(call.poll());
    reply.send_response("out");
    assert_eq!(assert_ready_ok!(call.poll()), "out");
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_rejects_without_the_inner_service() {
    let breaker = breaker(1);
    let (mut service, mut handle) = mock::spawn_layer(BreakerLayer::new(breaker.clone()));
    assert_ready_ok!(service.poll_ready());
    let call = service.call("in");
    handle.next_request().await.expect("arrives").1.send_error("down");
    assert!(!is_open(&*call.await.expect_err("the inner error")));

    // The mock is not ready any more, and the rejection does not wait for it.
    handle.allow(0);
    assert_ready_ok!(service.poll_ready());
    let rejection = service.call("in").await.expect_err("rejected");
    let open = rejection.downcast_ref::<Open>().expect("typed");
    assert_eq!(open.retry_after, Duration::from_secs(5));
    assert_eq!(rejection.to_string(), "the circuit is open");
    assert_eq!(breaker.stats().rejected_total, 1);

    // When its time is over, the inner service's readiness counts again.
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    let call = service.call("probe");
    handle.next_request().await.expect("arrives").1.send_response("up");
    assert_eq!(call.await.expect("through"), "up");
}

#[tokio::test(start_paused = true)]
async fn in_shadow_mode_readiness_is_that_of_the_inner_service_even_while_open() {
    let breaker = breaker(1);
    let (mut service, mut handle) = mock::spawn_layer(BreakerLayer::new(breaker.clone()));
    breaker.shadow();
    breaker.admit().expect("closed").failed();
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    let call = service.call("in");
    handle.next_request().await.expect("arrives").1.send_response("out");
    assert_eq!(call.await.expect("through"), "out");
    assert_eq!(breaker.stats().shadow_rejected_total, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_readied_before_the_circuit_opened_is_rejected() {
    let breaker = breaker(1);
    let (mut service, mut handle) = mock::spawn_layer(BreakerLayer::new(breaker.clone()));
    assert_ready_ok!(service.poll_ready());
    breaker.force_open();
    assert!(is_open(&*service.call("in").await.expect_err("rejected")));

    // The inner service is still the one that was made ready: the mock would panic otherwise.
    breaker.reset();
    assert_ready_ok!(service.poll_ready());
    let call = service.call("in");
    handle.next_request().await.expect("arrives").1.send_response("out");
    assert_eq!(call.await.expect("through"), "out");
}

#[tokio::test(start_paused = true)]
async fn a_clone_has_to_be_made_ready_by_itself_and_shares_the_circuit() {
    let breaker = breaker(1);
    let (mut service, mut handle) =
        mock::spawn_layer::<&str, &str, _>(BreakerLayer::new(breaker.clone()));
    assert_ready_ok!(service.poll_ready());
    let mut clone = service.clone();
    assert_ready_ok!(clone.poll_ready());
    let call = clone.call("in");
    handle.next_request().await.expect("arrives").1.send_error("down");
    assert!(call.await.is_err());
    assert!(is_open(&*service.call("in").await.expect_err("the circuit is one")));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_passes_through() {
    let (mut service, handle) = mock::spawn_layer::<(), (), _>(BreakerLayer::new(breaker(1)));
    drop(handle);
    let error = match service.poll_ready() {
        Poll::Ready(Err(error)) => error,
        other => panic!("the mock is closed: {other:?}"),
    };
    assert!(!is_open(&*error));
}

#[tokio::test(start_paused = true)]
async fn a_classifier_judges_responses_and_errors() {
    let breaker = breaker(1);
    let layer =
        BreakerLayer::new(breaker.clone()).classify(|result: Result<&&str, &tower::BoxError>| {
            match result {
                Ok(&"sorry") => Outcome::Failure,
                Ok(_) => Outcome::Success,
                Err(_) => Outcome::Ignored,
            }
        });
    let (mock, mut handle) = mock::pair::<&str, &str>();
    let mut service = mock::Spawn::new(layer.layer(mock as Mock));
    for answer in [Err("not its fault"), Ok("fine"), Ok("sorry")] {
        assert_ready_ok!(service.poll_ready());
        let call = service.call("in");
        let (_, reply) = handle.next_request().await.expect("arrives");
        match answer {
            Ok(response) => reply.send_response(response),
            Err(error) => reply.send_error(error),
        }
        assert_eq!(call.await.is_ok(), answer.is_ok());
    }
    let stats = breaker.stats();
    let judged = (stats.ignored_total, stats.succeeded_total, stats.failed_total);
    assert_eq!(judged, (1, 1, 1));
    assert_eq!(stats.opened_total, 1);
}

#[tokio::test]
async fn a_call_on_a_closed_circuit_allocates_nothing() {
    let default = BreakerConfig::default;
    for config in [
        default().failure_rate(None),
        default().window(None).count_window(100),
        default(),
        default().slow_call_rate(0.5),
        default().slow_call_rate(0.5).count_window(100).ramp(Duration::from_secs(1)),
    ] {
        let breaker = Breaker::new("lean", config).expect("valid");
        let inner =
            tower::service_fn(|number: u32| std::future::ready(Ok::<_, Infallible>(number)));
        let mut service = BreakerLayer::new(breaker.clone()).layer(inner);
        let mut call = || {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(Service::<u32>::poll_ready(&mut service, &mut cx).is_ready());
            let answer = pin!(service.call(7)).poll(&mut cx);
            assert!(matches!(answer, Poll::Ready(Ok(7))));
        };
        call();
        let allocated = allocation_counter::measure(|| (0..1_000).for_each(|_| call()));
        assert_eq!(allocated.count_total, 0);
        assert_eq!(breaker.stats().succeeded_total, 1_001);
    }
}
