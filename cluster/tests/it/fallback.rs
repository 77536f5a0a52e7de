//! Requests that a breaker rejects, answered by another service.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use escala_cluster::{Breaker, BreakerLayer};
use futures_util::FutureExt as _;
use tokio_test::{assert_pending, assert_ready_ok};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_test::mock;

use crate::states::{breaker, config};

/// Not `Clone`: the admitted path may not ask for that.
#[derive(Debug, PartialEq, Eq)]
struct Request(&'static str);

type Mock = mock::Mock<Request, &'static str>;

fn open() -> Breaker {
    let breaker = breaker(config());
    breaker.force_open();
    breaker
}

#[tokio::test(start_paused = true)]
async fn a_rejected_request_goes_to_the_fallback_as_it_is_and_others_do_not() {
    let breaker = breaker(config());
    let last_known = service_fn(async |request: Request| Ok::<_, BoxError>(request.0));
    let backend = service_fn(async |_: Request| Ok::<_, BoxError>("fresh"));
    let mut service = BreakerLayer::new(breaker.clone()).fallback(last_known).layer(backend);
    let mut ask = async |what| service.ready().await.expect("ready").call(Request(what)).await;
    assert_eq!(ask("old").await.expect("through"), "fresh");
    breaker.force_open();
    assert_eq!(ask("old").await.expect("by the fallback"), "old");
    let stats = breaker.stats();
    assert_eq!((stats.admitted_total, stats.rejected_total), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_fallback_is_made_ready_before_it_is_called_and_only_when_it_is_needed() {
    let breaker = breaker(config());
    let (fallback, mut other) = mock::pair::<Request, &'static str>();
    let (inner, mut handle) = mock::pair::<Request, &'static str>();
    let layer = BreakerLayer::new(breaker.clone()).fallback(fallback as Mock);
    let mut service = mock::Spawn::new(layer.layer(inner as Mock));

    // Closed: a fallback that is not ready holds up nothing.
    other.allow(0);
    assert_ready_ok!(service.poll_ready());
    let call = service.call(Request("in"));
    handle.next_request().await.expect("arrives").1.send_response("fresh");
    assert_eq!(call.await.expect("through"), "fresh");

    // Open: the answer waits for it, the service does not. The mock panics if called unready.
    breaker.force_open();
    handle.allow(0);
    assert_ready_ok!(service.poll_ready());
    let mut call = tokio_test::task::spawn(service.call(Request("rejected")));
    assert_pending!(call.poll());
    assert_ready_ok!(service.poll_ready());
    assert!(other.next_request().now_or_never().is_none(), "nothing arrives before it is ready");
    other.allow(1);
    assert!(call.is_woken());
    assert_pending!(call.poll());
    let (request, reply) = other.next_request().await.expect("arrives");
    assert_eq!(request, Request("rejected"));
    reply.send_response("old");
    assert_eq!(assert_ready_ok!(call.poll()), "old");
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_fallback_and_of_its_readiness_are_passed_on() {
    let (fallback, mut other) = mock::pair::<Request, &'static str>();
    let backend = service_fn(async |_: Request| Ok::<_, BoxError>("fresh"));
    let mut service = BreakerLayer::new(open()).fallback(fallback as Mock).layer(backend);
    let call = tokio::spawn(service.ready().await.expect("ready").call(Request("in")));
    other.next_request().await.expect("arrives").1.send_error("nothing known");
    let error = call.await.expect("no panic").expect_err("the fallback's");
    assert_eq!(error.to_string(), "nothing known");
    drop(other);
    let error = service.ready().await.expect("ready").call(Request("in")).await;
    assert!(error.expect_err("closed").is::<tower_test::mock::error::Closed>());
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_hangs_costs_its_own_callers_only() {
    let breaker = open();
    let hung =
        service_fn(async |_: Request| std::future::pending::<Result<&str, BoxError>>().await);
    let backend = service_fn(async |_: Request| Ok::<_, BoxError>("fresh"));
    let service = BreakerLayer::new(breaker.clone()).fallback(hung).layer(backend);
    let given_up =
        tokio::time::timeout(Duration::from_secs(1), service.clone().oneshot(Request("in"))).await;
    assert!(given_up.is_err());
    let mut stuck = tokio_test::task::spawn(service.clone().oneshot(Request("in")));
    assert_pending!(stuck.poll());
    // It is no call of the backend: nothing is under way and nothing was given up.
    let stats = breaker.stats();
    assert_eq!((stats.in_flight, stats.rejected_total), (0, 2));
    assert_eq!(stats.cancelled_total + stats.abandoned_total, 0);
    breaker.reset();
    assert_eq!(service.oneshot(Request("in")).await.expect("through"), "fresh");
    assert_pending!(stuck.poll());
}

#[tokio::test(start_paused = true)]
async fn a_fallback_may_have_a_breaker_of_its_own() {
    let second = breaker(config().consecutive_failures(1));
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let mirror = service_fn(move |_: Request| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Err::<&str, BoxError>("down, too".into()))
    });
    let mirror = BreakerLayer::new(second).layer(mirror);
    let backend = service_fn(async |_: Request| Ok::<_, BoxError>("fresh"));
    let service = BreakerLayer::new(open()).fallback(mirror).layer(backend);
    for _ in 0..3 {
        assert!(service.clone().oneshot(Request("in")).await.is_err());
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn an_admitted_call_does_not_touch_the_fallback_and_allocates_nothing() {
    struct Unused(Arc<AtomicU32>);
    impl Clone for Unused {
        fn clone(&self) -> Self {
            self.0.fetch_add(1, Ordering::SeqCst);
            Self(Arc::clone(&self.0))
        }
    }
    impl Service<Request> for Unused {
        type Response = &'static str;
        type Error = Infallible;
        type Future = std::future::Ready<Result<&'static str, Infallible>>;
        fn poll_ready(
            &mut self,
            _cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Infallible>> {
            unreachable!("the circuit is closed")
        }
        fn call(&mut self, _request: Request) -> Self::Future {
            unreachable!("the circuit is closed")
        }
    }
    let backend = service_fn(|request: Request| std::future::ready(Ok::<_, Infallible>(request.0)));
    let clones = Arc::new(AtomicU32::new(0));
    let layer = BreakerLayer::new(breaker(config())).fallback(Unused(Arc::clone(&clones)));
    let mut service = layer.layer(backend);
    let before = clones.load(Ordering::SeqCst);
    let mut call = || {
        assert!(service.ready().now_or_never().is_some());
        let answer = service.call(Request("in")).now_or_never().expect("at once");
        assert_eq!(answer.expect("through"), "in");
    };
    call();
    assert_eq!(allocation_counter::measure(|| (0..100).for_each(|_| call())).count_total, 0);
    assert_eq!(clones.load(Ordering::SeqCst), before);
}

#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn in_a_router_the_fallback_answers_instead_of_a_503() {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;

    let cached = service_fn(async |request: http::Request<Body>| {
        let page = format!("{} as of yesterday", request.uri().path());
        Ok::<_, Infallible>(http::Response::new(Body::from(page)))
    });
    let router = Router::new()
        .route("/quotes", get(async || "now"))
        .layer(BreakerLayer::http(open()).fallback(cached));
    let request = http::Request::get("/quotes").body(Body::empty()).expect("valid");
    let response = router.oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), 200);
    let body = to_bytes(response.into_body(), 100).await.expect("a body");
    assert_eq!(body, "/quotes as of yesterday");
}
