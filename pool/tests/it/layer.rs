//! Requests that carry the right to a lease, and what those are answered that get none.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Extension;
use axum::http::{Request, Response, StatusCode};
use axum::routing::get;
use escala_pool::{Deadline, LeaseHandle, LeaseRejection, Leased, Pool, PoolLayer, RequestConfig};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt};

use crate::scripted::{Act, Manager, assert_all_adds_up, config};

type Lease = Leased<Pool<Manager>>;
type Handle = LeaseHandle<Pool<Manager>>;

fn app(pool: &Pool<Manager>, config: RequestConfig) -> Router {
    Router::new()
        .route("/id", get(async |lease: Lease| lease.id.to_string()))
        .route("/slow", get(slow))
        .route("/lazy", get(lazy))
        .route("/none", get(async || "nothing"))
        .route("/deadline", get(deadline))
        .layer(PoolLayer::new(pool.clone()).config(config).unwrap())
}

async fn slow(lease: Lease) -> String {
    sleep(Duration::from_secs(1)).await;
    lease.id.to_string()
}

async fn lazy(handle: Handle) -> Result<String, LeaseRejection> {
    let first = handle.acquire().await?.id;
    Ok(format!("{first} {}", handle.acquire().await?.id))
}

async fn deadline(Extension(deadline): Extension<Deadline>, handle: Handle) -> String {
    assert_eq!(deadline, handle.deadline());
    deadline.remaining().as_millis().to_string()
}

fn request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

async fn send(app: &Router, request: Request<Body>) -> Response<Body> {
    app.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(to_bytes(response.into_body(), 10_000).await.unwrap().into()).unwrap()
}

async fn assert_problem(response: Response<Body>, status: StatusCode, retry: bool) {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers().contains_key("retry-after"), retry);
    let problem: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(problem["status"], status.as_u16());
    assert_eq!(problem["title"], status.canonical_reason().unwrap());
    assert!(problem["detail"].is_string());
}

#[tokio::test(start_paused = true)]
async fn a_handler_holds_its_lease_until_it_ends_and_no_request_holds_one_for_nothing() {
    let pool = Manager::default().pool(config(1));
    let app = app(&pool, RequestConfig::default());
    let slow = tokio::spawn({
        let app = app.clone();
        async move { text(send(&app, request("/slow")).await).await }
    });
    sleep(Duration::from_millis(1)).await;
    assert_eq!(pool.stats().leased, 1);
    assert_eq!(text(send(&app, request("/none")).await).await, "nothing");
    let began = Instant::now();
    assert_eq!(text(send(&app, request("/id")).await).await, "1");
    assert_eq!(began.elapsed(), Duration::from_millis(999));
    assert_eq!(slow.await.unwrap(), "1");
    assert_eq!(text(send(&app, request("/lazy")).await).await, "1 1");
    assert_eq!((pool.stats().leased, pool.stats().acquired_total), (0, 4));
}

#[tokio::test(start_paused = true)]
async fn a_full_pool_is_503_and_a_deadline_that_passed_is_504() {
    let pool = Manager::default().pool(config(1));
    let _held = pool.acquire().await.unwrap();
    for (timeout, status) in [
        (Duration::from_secs(30), StatusCode::SERVICE_UNAVAILABLE),
        (Duration::from_secs(2), StatusCode::GATEWAY_TIMEOUT),
    ] {
        let app = app(&pool, RequestConfig::default().timeout(timeout));
        for path in ["/id", "/lazy"] {
            let began = Instant::now();
            let response = send(&app, request(path)).await;
            assert_eq!(began.elapsed(), timeout.min(Duration::from_secs(5)));
            assert_problem(response, status, status == StatusCode::SERVICE_UNAVAILABLE).await;
        }
    }
    assert_all_adds_up(&pool.stats());
}

#[tokio::test(start_paused = true)]
async fn too_many_waiters_a_dead_server_and_a_closed_pool_are_503() {
    let manager = Manager::default();
    let pool = manager.pool(config(1).max_waiters(0));
    let app = app(&pool, RequestConfig::default());
    manager.connects([Act::Fail]);
    assert_problem(send(&app, request("/id")).await, StatusCode::SERVICE_UNAVAILABLE, true).await;
    let held = pool.acquire().await.unwrap();
    assert_problem(send(&app, request("/id")).await, StatusCode::SERVICE_UNAVAILABLE, true).await;
    drop(held);
    pool.close().await;
    assert_problem(send(&app, request("/id")).await, StatusCode::SERVICE_UNAVAILABLE, true).await;
}

#[tokio::test(start_paused = true)]
async fn without_the_layer_it_is_500() {
    let app = Router::new().route("/id", get(async |lease: Lease| lease.id.to_string()));
    let response = send(&app, request("/id")).await;
    assert_problem(response, StatusCode::INTERNAL_SERVER_ERROR, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_may_ask_for_less_or_more_time_within_the_bound() {
    let pool = Manager::default().pool(config(1));
    let limits = RequestConfig::default()
        .timeout(Duration::from_secs(10))
        .header("X-Request-Timeout-Ms")
        .max_timeout(Duration::from_secs(20));
    let app = app(&pool, limits);
    for (asked, given) in [
        (None, "10000"),
        (Some("250"), "250"),
        (Some("15S"), "15000"),
        (Some("1H"), "20000"),
        (Some("soon"), "10000"),
        (Some("0"), "0"),
    ] {
        let mut request = request("/deadline");
        if let Some(asked) = asked {
            request.headers_mut().insert("x-request-timeout-ms", asked.parse().unwrap());
        }
        assert_eq!(text(send(&app, request).await).await, given, "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_earlier_deadline_of_the_request_stays() {
    let pool = Manager::default().pool(config(1));
    let app = app(&pool, RequestConfig::default());
    for (seconds, given) in [(3, "3000"), (300, "30000")] {
        let deadline = Deadline::at(Instant::now() + Duration::from_secs(seconds));
        let mut request = request("/deadline");
        request.extensions_mut().insert(deadline);
        assert_eq!(text(send(&app, request).await).await, given);
    }
}

#[tokio::test(start_paused = true)]
async fn a_plain_tower_service_finds_the_handle_in_its_request() {
    let pool = Manager::default().pool(config(1));
    let service = tower::service_fn(async |request: Request<()>| {
        let handle = request.extensions().get::<Handle>().unwrap().clone();
        handle.acquire().await.map(|lease| lease.id)
    });
    let service = PoolLayer::new(pool.clone()).layer(service);
    assert_eq!(service.clone().oneshot(Request::new(())).await.unwrap(), 1);
    let _held = pool.acquire().await.unwrap();
    let rejection = service.oneshot(Request::new(())).await.unwrap_err();
    let error = std::error::Error::source(&rejection).unwrap();
    assert!(error.downcast_ref::<escala_pool::PoolError>().unwrap().is_saturated());
}

#[tokio::test]
async fn a_setting_that_breaks_its_rule_is_named() {
    let layer = |config| PoolLayer::new(Manager::default().pool(self::config(1))).config(config);
    let error = layer(RequestConfig::default().timeout(Duration::ZERO)).unwrap_err();
    assert_eq!(error.field, "timeout");
    let error = layer(RequestConfig::default().header("no name")).unwrap_err();
    assert_eq!(error.field, "header");
}
