//! The breaker in an axum router: shared by its routes, and rejecting with a response.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use escala_cluster::{BreakerLayer, State};
use http::{Request, Response, StatusCode};
use tokio::time::{advance, timeout};
use tower::ServiceExt;

use crate::states::{breaker, config};

async fn ask(router: &Router, path: &str) -> Response<Body> {
    let request = Request::get(path).body(Body::empty()).expect("valid");
    router.clone().oneshot(request).await.expect("infallible")
}

/// Twenty routes behind one layer, all of which answer with the status that is set.
fn twenty_routes(
    layer: BreakerLayer<escala_cluster::ServerErrorsFail, escala_cluster::AsResponse>,
) -> (Router, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let mut router = Router::new();
    for route in 0..20 {
        let status = Arc::clone(&status);
        let handler =
            async move || StatusCode::from_u16(status.load(Ordering::SeqCst)).expect("a status");
        router = router.route(&format!("/{route}"), get(handler));
    }
    (router.layer(layer), status)
}

// One circuit a route is what a layer gives whose state is in its services.
#[tokio::test(start_paused = true)]
async fn twenty_routes_behind_one_layer_are_one_circuit() {
    let breaker = breaker(config());
    let (router, status) = twenty_routes(BreakerLayer::http(breaker.clone()));
    status.store(500, Ordering::SeqCst);
    for route in 0..5 {
        assert_eq!(ask(&router, &format!("/{route}")).await.status(), 500);
    }
    assert_eq!(breaker.state(), State::Open);
    for route in 0..20 {
        assert_eq!(ask(&router, &format!("/{route}")).await.status(), 503);
    }
    let stats = breaker.stats();
    assert_eq!((stats.admitted_total, stats.rejected_total), (5, 20));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_a_problem_document_that_says_when_to_come_back() {
    let breaker = breaker(config());
    let (router, _) = twenty_routes(BreakerLayer::http(breaker.clone()));
    breaker.force_open();
    let response = ask(&router, "/0").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["retry-after"], "5");
    let body = to_bytes(response.into_body(), 4_096).await.expect("a body");
    let problem: serde_json::Value = serde_json::from_slice(&body).expect("json");
    assert_eq!(problem["status"], 503);
    assert_eq!(problem["title"], "Service Unavailable");
    assert!(!problem.to_string().contains("test"), "the breaker's name stays inside");
}

// tower_governor rounds down, and tells clients to come back after 0 seconds.
#[tokio::test(start_paused = true)]
async fn retry_after_is_rounded_up_and_never_zero() {
    let breaker = breaker(config());
    let (router, status) = twenty_routes(BreakerLayer::http(breaker.clone()));
    status.store(500, Ordering::SeqCst);
    for _ in 0..5 {
        ask(&router, "/0").await;
    }
    for (passed, header) in [(0, "5"), (1, "5"), (3_998, "2"), (1, "1"), (999, "1")] {
        advance(Duration::from_millis(passed)).await;
        assert_eq!(ask(&router, "/0").await.headers()["retry-after"], header, "+{passed} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn client_errors_are_successes_and_server_errors_are_not() {
    let breaker = breaker(config().consecutive_failures(100));
    let (router, status) = twenty_routes(BreakerLayer::http(breaker.clone()));
    for code in [200, 302, 400, 404, 499] {
        status.store(code, Ordering::SeqCst);
        ask(&router, "/0").await;
    }
    for code in [500, 502, 503, 599] {
        status.store(code, Ordering::SeqCst);
        ask(&router, "/0").await;
    }
    let stats = breaker.stats();
    assert_eq!((stats.succeeded_total, stats.failed_total), (5, 4));
}

// linkerd and Envoy tell too many calls from broken ones; tower-resilience's examples do not.
#[tokio::test(start_paused = true)]
async fn too_many_requests_are_no_failures_in_a_row() {
    let breaker = breaker(config());
    let (router, status) = twenty_routes(BreakerLayer::http(breaker.clone()));
    status.store(429, Ordering::SeqCst);
    for _ in 0..20 {
        ask(&router, "/0").await;
    }
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.stats().succeeded_total, 0);
}

#[test]
fn retry_after_is_read_from_503_and_429_only() {
    use escala_cluster::{Classify, Judgement, Outcome, ServerErrorsFail};

    let judge = |status: u16, retry_after: Option<&str>| -> Judgement {
        let mut response = Response::builder().status(status);
        if let Some(value) = retry_after {
            response = response.header("retry-after", value);
        }
        let response = response.body(()).expect("valid");
        ServerErrorsFail.classify(Result::<_, &()>::Ok(&response))
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (status, header, outcome, time) in [
        (503, Some("7"), Outcome::Failure, seconds(7)),
        (503, None, Outcome::Failure, None),
        (503, Some("soon"), Outcome::Failure, None),
        (503, Some("Sun, 06 Nov 1994 08:49:37 GMT"), Outcome::Failure, seconds(0)),
        (429, Some("7"), Outcome::Throttled, seconds(7)),
        (429, None, Outcome::Throttled, None),
        (500, Some("7"), Outcome::Failure, None),
        (200, Some("7"), Outcome::Success, None),
        (301, Some("7"), Outcome::Success, None),
    ] {
        let expected = Judgement::new(outcome).retry_after(time);
        assert_eq!(judge(status, header), expected, "{status} {header:?}");
    }
    let error: Judgement = ServerErrorsFail.classify(Result::<&Response<()>, _>::Err(&()));
    assert_eq!(error, Outcome::Failure.into());
}

#[tokio::test(start_paused = true)]
async fn a_classifier_replaces_the_one_for_status() {
    let breaker = breaker(config());
    let layer = BreakerLayer::http(breaker.clone()).classify(
        |result: Result<&Response<Body>, &std::convert::Infallible>| match result {
            Ok(response) if response.status() == 429 => escala_cluster::Outcome::Failure,
            _ => escala_cluster::Outcome::Success,
        },
    );
    let router = Router::new().route("/", get(async || StatusCode::TOO_MANY_REQUESTS)).layer(layer);
    for _ in 0..5 {
        ask(&router, "/").await;
    }
    assert_eq!(breaker.state(), State::Open);
}

/// A report that takes two seconds, and a quote; nothing is wrong with either.
fn report_and_quote() -> Router {
    let report = async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        "a report"
    };
    Router::new().route("/report", get(report)).route("/quote", get(async || "a quote"))
}

#[tokio::test(start_paused = true)]
async fn visitors_who_leave_a_slow_page_do_not_open_the_circuit() {
    let breaker = breaker(config());
    let router = report_and_quote().route_layer(BreakerLayer::http(breaker.clone()));
    for _ in 0..50 {
        let left = timeout(Duration::from_millis(600), ask(&router, "/report")).await;
        assert!(left.is_err());
    }
    assert_eq!(ask(&router, "/quote").await.status(), 200);
    assert_eq!((breaker.state(), breaker.stats().cancelled_total), (State::Closed, 50));
}

// The arrangement that is recommended: visitors who leave are outside of it, the timeout is inside.
#[tokio::test(start_paused = true)]
async fn a_timeout_inside_opens_the_circuit() {
    async fn in_time(request: Request<Body>, next: Next) -> Result<Response<Body>, StatusCode> {
        let response = timeout(Duration::from_secs(1), next.run(request)).await;
        response.map_err(|_| StatusCode::GATEWAY_TIMEOUT)
    }
    let breaker = breaker(config());
    let router = report_and_quote()
        .route_layer(from_fn(in_time))
        .route_layer(BreakerLayer::http(breaker.clone()));
    for _ in 0..5 {
        assert_eq!(ask(&router, "/report").await.status(), 504);
    }
    assert_eq!((breaker.state(), breaker.stats().failed_total), (State::Open, 5));
}

#[tokio::test(start_paused = true)]
async fn timeouts_outside_open_the_circuit_where_they_are_told_to_count() {
    let breaker = breaker(config());
    let layer = BreakerLayer::http(breaker.clone()).count_abandoned(true);
    let router = report_and_quote().route_layer(layer);
    for _ in 0..5 {
        assert!(timeout(Duration::from_secs(1), ask(&router, "/report")).await.is_err());
    }
    assert_eq!((breaker.state(), breaker.stats().abandoned_total), (State::Open, 5));
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_a_visitor_leaves_gives_its_place_back() {
    let breaker = breaker(config().half_open_permits(1));
    let router = report_and_quote().route_layer(BreakerLayer::http(breaker.clone()));
    crate::states::fail(&breaker, 5);
    advance(Duration::from_secs(5)).await;
    assert!(timeout(Duration::from_secs(1), ask(&router, "/report")).await.is_err());
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(ask(&router, "/quote").await.status(), 200);
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn requests_for_unknown_paths_do_not_close_a_circuit_of_routes() {
    let breaker = breaker(config());
    let router = Router::new()
        .route("/", get(async || StatusCode::INTERNAL_SERVER_ERROR))
        .route_layer(BreakerLayer::http(breaker.clone()));
    for _ in 0..5 {
        ask(&router, "/").await;
    }
    advance(Duration::from_secs(5)).await;
    for _ in 0..10 {
        assert_eq!(ask(&router, "/nowhere").await.status(), 404);
    }
    assert_eq!((breaker.state(), breaker.stats().admitted_total), (State::HalfOpen, 5));
}

// Not the backend has refused, but we have; a real 503 beside it counts.
#[tokio::test(start_paused = true)]
async fn a_refusal_by_a_layer_further_in_says_nothing_about_the_backend() {
    let (inner, outer) = (breaker(config()), breaker(config()));
    let router = Router::new()
        .route("/", get(async || "well"))
        .layer(BreakerLayer::http(inner.clone()))
        .layer(BreakerLayer::http(outer.clone()));
    inner.force_open();
    for _ in 0..50 {
        assert_eq!(ask(&router, "/").await.status(), 503);
    }
    let stats = outer.stats();
    assert_eq!((stats.state, stats.ignored_total, stats.failed_total), (State::Closed, 50, 0));
}
