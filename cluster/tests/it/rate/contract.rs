//! What tower asks of a middleware, checked with a mock that panics when it is called unready.

use std::convert::Infallible;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use escala_cluster::{
    AsError, KeyBy, NeverRefund, Quota, RateLimitFuture, RateLimitLayer, RateLimitService,
    RateLimited, RateLimiter,
};
use tokio_test::{assert_pending, assert_ready_ok};
use tower::{Layer, Service};
use tower_test::mock;

fn limiter(quota: Quota) -> RateLimiter {
    RateLimiter::new("mock", quota).expect("valid")
}

fn layer(limiter: &RateLimiter) -> RateLimitLayer<&'static str> {
    RateLimitLayer::new().limit(limiter.by(KeyBy::everyone()))
}

#[test]
fn service_and_future_may_travel_between_threads() {
    fn travels<T: Send + Sync + 'static>() {}
    type Inner = mock::Mock<&'static str, &'static str>;
    travels::<RateLimiter>();
    travels::<RateLimitLayer<&'static str>>();
    travels::<RateLimitService<Inner, &'static str, AsError, NeverRefund>>();
    fn is_send<T: Send>() {}
    is_send::<RateLimitFuture<Inner, &'static str, AsError, NeverRefund>>();
}

#[tokio::test(start_paused = true)]
async fn readiness_is_that_of_the_inner_service() {
    let limiter = limiter(Quota::per_minute(1));
    let (mut service, mut handle) = mock::spawn_layer(layer(&limiter));
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    assert_eq!(limiter.stats().allowed_total, 0, "readiness takes nothing");
    let mut call = tokio_test::task::spawn(service.call("in"));
    let (request, reply) = handle.next_request().await.expect("the call arrives");
    assert_eq!(request, "in");
    assert_pending!(call.poll());
    reply.send_response("out");
    assert_eq!(assert_ready_ok!(call.poll()), "out");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_leaves_the_inner_service_ready() {
    let limiter = limiter(Quota::per_minute(1));
    let (mut service, mut handle) = mock::spawn_layer(layer(&limiter));
    assert_ready_ok!(service.poll_ready());
    let call = service.call("first");
    handle.next_request().await.expect("arrives").1.send_response("out");
    assert_eq!(call.await.expect("within the quota"), "out");

    assert_ready_ok!(service.poll_ready());
    handle.allow(0);
    let error = service.call("second").await.expect_err("too many");
    let limited = error.downcast_ref::<RateLimited>().expect("typed");
    assert_eq!(limited.retry_after, Some(std::time::Duration::from_secs(60)));
    assert!(limited.is_retryable());
    assert_eq!(
        error.to_string(),
        "the rate limit mock refuses the request: the key has used up its quota"
    );

    // Its readiness was not used up: the next call goes through without a new one.
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    let call = service.call("third");
    let (request, reply) = handle.next_request().await.expect("arrives");
    assert_eq!(request, "third");
    reply.send_response("out");
    assert!(call.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_clone_shares_the_limits_and_not_the_readiness() {
    let limiter = limiter(Quota::per_minute(1));
    let (mut service, mut handle) = mock::spawn_layer::<_, &str, _>(layer(&limiter));
    let mut clone = service.clone();
    assert_ready_ok!(service.poll_ready());
    assert_ready_ok!(clone.poll_ready());
    let call = clone.call("in");
    handle.next_request().await.expect("arrives").1.send_response("out");
    assert!(call.await.is_ok());
    assert!(service.call("in").await.expect_err("one limit").is::<RateLimited>());
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_inner_service_pass_through() {
    let limiter = limiter(Quota::per_minute(10));
    let (mut service, mut handle) = mock::spawn_layer::<_, (), _>(layer(&limiter));
    assert_ready_ok!(service.poll_ready());
    let call = service.call("in");
    handle.next_request().await.expect("arrives").1.send_error("down");
    assert_eq!(call.await.expect_err("down").to_string(), "down");
    drop(handle);
    assert!(matches!(service.poll_ready(), Poll::Ready(Err(_))));
}

#[tokio::test]
async fn a_call_of_a_known_key_allocates_nothing() {
    let limiter = limiter(Quota::per_second(1_000_000));
    let other = limiter.clone();
    let inner = tower::service_fn(|number: u64| std::future::ready(Ok::<_, Infallible>(number)));
    let layer = RateLimitLayer::new()
        .limit(limiter.by(KeyBy::from_fn(|number: &u64| Some(*number))))
        .limit(other.by(KeyBy::everyone()))
        .exempt(|number| *number == 0);
    let mut service = layer.layer(inner);
    let mut call = || {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Service::<u64>::poll_ready(&mut service, &mut cx).is_ready());
        let answer = pin!(service.call(7)).poll(&mut cx);
        assert!(matches!(answer, Poll::Ready(Ok(7))));
    };
    call();
    let allocated = allocation_counter::measure(|| (0..1_000).for_each(|_| call()));
    assert_eq!(allocated.count_total, 0);
    assert_eq!(limiter.stats().allowed_total, 2_002);
}
