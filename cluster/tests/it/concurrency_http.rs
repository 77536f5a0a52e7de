//! Concurrency limits in an axum router: refusals as responses, places held to the end of the body.

use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use escala_cluster::{
    AdaptiveConfig, Breaker, BreakerConfig, BreakerLayer, ConcurrencyConfig, ConcurrencyLimit,
    ConcurrencyLimitLayer, KeyBy, Quota, RateLimitLayer, RateLimiter,
};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::mpsc;
use tower::ServiceExt;

fn limit(calls: u32) -> ConcurrencyLimit {
    ConcurrencyLimit::new("http", ConcurrencyConfig::fixed(calls)).expect("valid")
}

async fn get_page(router: &Router, path: &str) -> Response {
    let request = Request::get(path).body(Body::empty()).expect("valid");
    router.clone().oneshot(request).await.expect("infallible")
}

/// A response whose body is what comes out of the channel.
fn streamed() -> (mpsc::Sender<Result<Bytes, std::io::Error>>, Router, ConcurrencyLimit) {
    let (sender, receiver) = mpsc::channel(4);
    let receiver = std::sync::Arc::new(parking_lot::Mutex::new(Some(receiver)));
    let limit = limit(1);
    let page = get(move || {
        let receiver = receiver.lock().take();
        std::future::ready(match receiver {
            None => Body::from("short"),
            Some(receiver) => Body::from_stream(stream::unfold(receiver, async |mut receiver| {
                receiver.recv().await.map(|chunk| (chunk, receiver))
            })),
        })
    });
    let router = Router::new().route("/", page).layer(ConcurrencyLimitLayer::http(limit.clone()));
    (sender, router, limit)
}

#[tokio::test]
async fn a_refusal_is_a_response_that_says_when_to_come_back() {
    let limit = limit(1);
    let router = Router::new()
        .route("/", get(async || "fine"))
        .layer(ConcurrencyLimitLayer::http(limit.clone()));
    let held = limit.try_acquire().expect("free");
    let refusal = get_page(&router, "/").await;
    assert_eq!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refusal.headers()[header::RETRY_AFTER], "1");
    assert_eq!(refusal.headers()[header::CONTENT_TYPE], "application/problem+json");
    let body = axum::body::to_bytes(refusal.into_body(), 1_000).await.expect("short");
    let problem: serde_json::Value = serde_json::from_slice(&body).expect("json");
    assert_eq!((&problem["status"], &problem["type"]), (&503.into(), &"about:blank".into()));
    held.succeeded();
    assert_eq!(get_page(&router, "/").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_place_is_held_until_the_body_has_ended() {
    let (sender, router, limit) = streamed();
    let response = get_page(&router, "/").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(get_page(&router, "/").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let stats = limit.stats();
    assert_eq!((stats.in_flight, stats.succeeded_total), (1, 0));
    sender.send(Ok("all".into())).await.expect("read");
    drop(sender);
    let body = axum::body::to_bytes(response.into_body(), 1_000).await.expect("whole");
    assert_eq!(body, "all");
    assert_eq!(limit.stats().in_flight, 0);
    assert_eq!(get_page(&router, "/").await.status(), StatusCode::OK);
    assert_eq!(limit.stats().succeeded_total, 2);
}

#[tokio::test]
async fn a_body_that_breaks_off_or_is_dropped_gives_the_place_back() {
    let (sender, router, limit) = streamed();
    let response = get_page(&router, "/").await;
    sender.send(Err(std::io::Error::other("gone"))).await.expect("read");
    let mut body = response.into_body().into_data_stream();
    let frame = futures_util::StreamExt::next(&mut body).await.expect("a frame");
    assert!(frame.is_err());
    assert_eq!(limit.stats().in_flight, 0, "although the body is still there");

    let (_sender, router, limit) = streamed();
    let response = get_page(&router, "/").await;
    assert_eq!(limit.stats().in_flight, 1);
    drop(response);
    assert_eq!(limit.stats().in_flight, 0);
}

#[tokio::test]
async fn a_body_of_one_piece_gives_it_back_with_that_piece() {
    let (sender, router, limit) = streamed();
    drop((sender, get_page(&router, "/").await));
    let response = get_page(&router, "/").await;
    assert_eq!(response.headers()[header::CONTENT_LENGTH], "5", "its length is known still");
    let mut body = response.into_body().into_data_stream();
    assert_eq!(limit.stats().in_flight, 1);
    let frame = futures_util::StreamExt::next(&mut body).await.expect("a frame");
    assert_eq!(frame.expect("whole"), "short");
    assert_eq!(limit.stats().in_flight, 0);
}

#[tokio::test]
async fn a_body_that_panics_gives_the_place_back() {
    let broken = || {
        Body::from_stream(stream::poll_fn(|_| -> Poll<Option<Result<Bytes, std::io::Error>>> {
            std::panic::resume_unwind(Box::new("a bug"))
        }))
    };
    let limit = limit(1);
    let page = get(move || std::future::ready(broken()));
    let router = Router::new().route("/", page).layer(ConcurrencyLimitLayer::http(limit.clone()));
    let mut body = get_page(&router, "/").await.into_body().into_data_stream();
    assert_eq!(limit.stats().in_flight, 1);
    let next = std::panic::AssertUnwindSafe(|| StreamExt::next(&mut body).now_or_never());
    assert!(std::panic::catch_unwind(next).is_err());
    assert_eq!(limit.stats().in_flight, 0, "although the body is still there");
}

fn adaptive() -> ConcurrencyLimit {
    let config = ConcurrencyConfig::adaptive(AdaptiveConfig::default().initial(100));
    ConcurrencyLimit::new("adaptive", config).expect("valid")
}

async fn answer_after(millis: u64) -> &'static str {
    tokio::time::sleep(Duration::from_millis(millis)).await;
    "fine"
}

// One client at its rate limit, or one dead dependency, once took the limit to its minimum.
#[tokio::test(start_paused = true)]
async fn fast_refusals_on_one_route_take_nothing_from_the_others() {
    let breaker = Breaker::new("dead", BreakerConfig::default()).expect("valid");
    breaker.force_open();
    let rate = RateLimiter::new("small", Quota::per_hour(1)).expect("valid");
    let full = limit(1);
    let _held = full.try_acquire().expect("free");
    let page = || get(async || "fine");
    let limited = RateLimitLayer::http().limit(rate.by(KeyBy::everyone()));
    let inner = Router::new()
        .route("/ok", get(|| answer_after(10)))
        .route("/locked", get(async || StatusCode::TOO_MANY_REQUESTS))
        .route("/down", get(async || StatusCode::SERVICE_UNAVAILABLE))
        .route("/breaker", page().layer(BreakerLayer::http(breaker)))
        .route("/rate", page().layer(limited))
        .route("/full", page().layer(ConcurrencyLimitLayer::http(full)));
    for path in ["/locked", "/down", "/breaker", "/rate", "/full"] {
        let limit = adaptive();
        let router = inner.clone().layer(ConcurrencyLimitLayer::http(limit.clone()));
        for round in 0..100 {
            // What is fast is not known before the first window has ended.
            let path = if round < 30 { "/ok" } else { path };
            let good = (0..60).map(|_| get_page(&router, "/ok"));
            let refused = (0..120).map(|_| get_page(&router, path));
            futures_util::future::join_all(good.chain(refused)).await;
        }
        assert!(limit.limit() >= 100, "{path}: {}", limit.limit());
    }
}

#[tokio::test(start_paused = true)]
async fn visitors_who_leave_a_slow_route_take_nothing_from_the_others() {
    // Also when nobody else comes; unless it is known that nobody leaves.
    for (others, count_abandoned) in [(0, false), (5, false), (0, true)] {
        let limit = adaptive();
        let layer = ConcurrencyLimitLayer::http(limit.clone()).count_abandoned(count_abandoned);
        let router = Router::new()
            .route("/report", get(|| answer_after(2_000)))
            .route("/ok", get(|| answer_after(100)))
            .layer(layer);
        for _ in 0..30 {
            let leave = Duration::from_millis(600);
            let left = (0..60).map(|_| tokio::time::timeout(leave, get_page(&router, "/report")));
            let stayed = (0..others).map(async |_| {
                for _ in 0..5 {
                    get_page(&router, "/ok").await;
                }
            });
            let left = futures_util::future::join_all(left);
            futures_util::future::join(left, futures_util::future::join_all(stayed)).await;
        }
        assert_eq!(limit.limit() < 100, count_abandoned, "{}", limit.limit());
        assert_eq!(limit.stats().abandoned_total > 0, count_abandoned);
    }
}

#[tokio::test]
async fn one_layer_on_a_router_of_twenty_routes_is_one_limit() {
    let limit = limit(3);
    let mut router = Router::new();
    for number in 0..20 {
        router = router.route(&format!("/{number}"), get(async || "fine"));
    }
    let router = router.layer(ConcurrencyLimitLayer::http(limit.clone()));
    let mut open = Vec::new();
    for number in 0..20 {
        open.push(get_page(&router, &format!("/{number}")).await);
    }
    let served = open.iter().filter(|response| response.status() == StatusCode::OK).count();
    assert_eq!((served, limit.stats().rejected_total), (3, 17));
}

#[tokio::test(start_paused = true)]
async fn overload_of_what_is_behind_lowers_it_and_its_defects_do_not() {
    for (status, lowered) in [(503, true), (504, true), (429, false), (500, false), (404, false)] {
        let config = ConcurrencyConfig::adaptive(AdaptiveConfig::default().initial(100));
        let limit = ConcurrencyLimit::new("behind", config).expect("valid");
        let answer = async move || {
            tokio::time::sleep(Duration::from_millis(10)).await;
            StatusCode::from_u16(status).expect("valid")
        };
        let router =
            Router::new().route("/", get(answer)).layer(ConcurrencyLimitLayer::http(limit.clone()));
        for _ in 0..100 {
            let calls = (0..100).map(|_| get_page(&router, "/"));
            futures_util::future::join_all(calls).await;
        }
        assert_eq!(limit.limit() < 50, lowered, "{status}: {}", limit.limit());
    }
}
