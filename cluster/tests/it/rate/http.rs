//! Limits in an axum router: who counts as a client, and what a refused one is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::routing::{any, get};
use escala_cluster::{
    Breaker, BreakerConfig, BreakerLayer, ClientIp, Drain, ForwardedBy, KeyBy, KeyParts,
    MissingKey, Quota, RateKey, RateLimitConfig, RateLimitLayer, RateLimiter, RefundRateLimit,
    cors_preflight, refused_by_status, serve,
};
use http::{Method, Request, Response, StatusCode};
use tower::ServiceExt;

use crate::client::soon;

pub(super) fn limiter(name: &'static str, config: impl Into<RateLimitConfig>) -> RateLimiter {
    RateLimiter::new(name, config).expect("valid")
}

/// A request from an address, with headers.
fn from(peer: &str, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::get(path).body(Body::empty()).expect("valid");
    let peer: SocketAddr = peer.parse().expect("an address");
    request.extensions_mut().insert(ConnectInfo(peer));
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
        request.headers_mut().append(name, value.parse().expect("a value"));
    }
    request
}

pub(super) async fn ask(router: &Router, request: Request<Body>) -> Response<Body> {
    router.clone().oneshot(request).await.expect("infallible")
}

fn router(layer: impl FnOnce(Router) -> Router) -> Router {
    layer(Router::new().route("/a", any(|| async { "a" })).route("/b/{id}", get(|| async { "b" })))
}

fn proxies() -> ClientIp {
    ClientIp::default().trust("10.0.0.0/8".parse().expect("a network"))
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_a_problem_document_that_says_when_to_come_back() {
    let limit = limiter("per \"address\"", Quota::per_minute(40).burst(1));
    let layer = RateLimitLayer::http().limit(limit.by(KeyBy::client_ip(proxies())));
    let router = router(|router| router.layer(layer));
    assert_eq!(ask(&router, from("203.0.113.7:1", "/a", &[])).await.status(), StatusCode::OK);
    let refused = ask(&router, from("203.0.113.7:2", "/b/1", &[])).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    // A second and a half, rounded up. tower_governor 0.8 rounds down, and says 0 within the last.
    assert_eq!(refused.headers()["retry-after"], "2");
    let body = to_bytes(refused.into_body(), 10_000).await.expect("a body");
    let problem: serde_json::Value = serde_json::from_slice(&body).expect("json");
    assert_eq!(problem["status"], 429);
    let kind = "https://iana.org/assignments/http-problem-types#quota-exceeded";
    assert_eq!(problem["type"], kind);
    assert_eq!(problem["violated-policies"], serde_json::json!(["per \"address\""]));

    tokio::time::advance(std::time::Duration::from_millis(1_450)).await;
    let refused = ask(&router, from("203.0.113.7:3", "/a", &[])).await;
    assert_eq!(refused.headers()["retry-after"], "1", "never 0");
}

// Twenty routes with a layer whose state is in its services would have twenty quotas.
#[tokio::test(start_paused = true)]
async fn twenty_routes_behind_one_layer_are_one_limit() {
    let limit = limiter("all", Quota::per_minute(30));
    let mut router = Router::new();
    for route in 0..20 {
        router = router.route(&format!("/{route}"), get(|| async { "ok" }));
    }
    let layer = RateLimitLayer::http().limit(limit.by(KeyBy::client_ip(proxies())));
    let router = router.layer(layer);
    for request in 0..40 {
        let path = format!("/{}", request % 20);
        let status = ask(&router, from("203.0.113.7:1", &path, &[])).await.status();
        assert_eq!(status == StatusCode::OK, request < 30);
    }
}

#[tokio::test(start_paused = true)]
async fn a_spoofed_header_does_not_change_the_key() {
    // The peer, what the client sends, what a proxy of ours appends to it.
    for (header, peer, name, spoofed, appended) in [
        (ForwardedBy::XForwardedFor, "203.0.113.7:1", "x-forwarded-for", "{}", ""),
        (ForwardedBy::XForwardedFor, "10.0.0.1:1", "x-forwarded-for", "{}", "203.0.113.7"),
        (ForwardedBy::XForwardedFor, "10.0.0.1:1", "x-forwarded-for", "10.9.9.{}", "203.0.113.7"),
        (ForwardedBy::XForwardedFor, "10.0.0.1:1", "forwarded", "for=6.6.6.{}", ""),
        (ForwardedBy::XForwardedFor, "10.0.0.1:1", "x-real-ip", "6.6.6.{}", ""),
        (ForwardedBy::Forwarded, "203.0.113.7:1", "forwarded", "for=6.6.6.{}", ""),
        (ForwardedBy::Forwarded, "10.0.0.1:1", "forwarded", "for=6.6.6.{}", "for=203.0.113.7"),
        (ForwardedBy::Forwarded, "10.0.0.1:1", "forwarded", "for=\"{}", "for=203.0.113.7"),
        (ForwardedBy::Forwarded, "10.0.0.1:1", "x-forwarded-for", "6.6.6.{}", ""),
    ] {
        let limit = limiter("per-address", Quota::per_minute(5));
        let client = proxies().header(header);
        let layer = RateLimitLayer::http().limit(limit.by(KeyBy::client_ip(client)));
        let router = router(|router| router.layer(layer));
        let mut let_through = 0;
        for number in 0..50 {
            let mut value = spoofed.replace("{}", &number.to_string());
            if !appended.is_empty() {
                value = format!("{value}, {appended}");
            }
            let response = ask(&router, from(peer, "/a", &[(name, &value)])).await;
            let_through += usize::from(response.status() == StatusCode::OK);
        }
        assert_eq!(let_through, 5, "{peer} {name}: {spoofed}, {appended}");
        assert_eq!(limit.stats().keys, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn clients_behind_a_proxy_are_told_apart_and_a_network_of_ipv6_is_one() {
    let limit = limiter("per-address", Quota::per_minute(1));
    let layer = RateLimitLayer::http().limit(limit.by(KeyBy::client_ip(proxies())));
    let router = router(|router| router.layer(layer));
    let ask_for = async |client: &str| {
        ask(&router, from("10.0.0.1:1", "/a", &[("x-forwarded-for", client)])).await.status()
    };
    assert_eq!(ask_for("203.0.113.7").await, StatusCode::OK);
    assert_eq!(ask_for("203.0.113.8").await, StatusCode::OK);
    assert_eq!(ask_for("::ffff:203.0.113.8").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ask_for("2001:db8:0:1::1").await, StatusCode::OK);
    assert_eq!(ask_for("2001:db8:0:1:ffff::2").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ask_for("2001:db8:0:2::1").await, StatusCode::OK);
}

#[derive(Debug, Clone)]
struct Tenant(u64);

impl RateKey for Tenant {
    fn parts(&self, parts: &mut KeyParts) {
        parts.number(self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn keys_come_from_headers_extensions_routes_and_methods() {
    let config = RateLimitConfig::new(Quota::per_minute(1)).missing_key(MissingKey::Reject);
    let layer = |key: KeyBy<axum::extract::Request>| {
        let layer = RateLimitLayer::http().limit(limiter("one", config).by(key));
        router(|router| router.layer(layer))
    };
    let status = async |router: &Router, request| ask(router, request).await.status();
    let peer = "203.0.113.7:1";
    let (ok, many, bad) = (StatusCode::OK, StatusCode::TOO_MANY_REQUESTS, StatusCode::BAD_REQUEST);

    let by_header = layer(KeyBy::header(http::HeaderName::from_static("x-api-key")));
    for (key, expected) in [("a", ok), ("b", ok), ("a", many)] {
        let request = from(peer, "/a", &[("x-api-key", key)]);
        assert_eq!(status(&by_header, request).await, expected);
    }
    assert_eq!(status(&by_header, from(peer, "/a", &[])).await, bad);
    // Which of them was checked? Junk beside a valid one must not make a new key.
    let twice = from(peer, "/a", &[("x-api-key", "junk"), ("x-api-key", "a")]);
    assert_eq!(status(&by_header, twice).await, bad);

    let by_tenant = layer(KeyBy::extension::<Tenant>());
    for (tenant, expected) in [(1, ok), (2, ok), (1, many)] {
        let mut request = from(peer, "/a", &[]);
        request.extensions_mut().insert(Tenant(tenant));
        assert_eq!(status(&by_tenant, request).await, expected);
    }
    assert_eq!(status(&by_tenant, from(peer, "/a", &[])).await, bad);

    let by_route = layer(KeyBy::route());
    for (path, expected) in [("/a", ok), ("/b/1", ok), ("/b/2", many), ("/a", many)] {
        assert_eq!(status(&by_route, from(peer, path, &[])).await, expected);
    }

    let by_method = layer(KeyBy::method().and(KeyBy::client_ip(ClientIp::default())));
    for (method, expected) in [(Method::GET, ok), (Method::PUT, ok), (Method::GET, many)] {
        let mut request = from(peer, "/a", &[]);
        *request.method_mut() = method;
        assert_eq!(status(&by_method, request).await, expected);
    }
    let mut unconnected = from(peer, "/a", &[]);
    unconnected.extensions_mut().remove::<ConnectInfo<SocketAddr>>();
    assert_eq!(status(&by_method, unconnected).await, bad);
}

#[tokio::test(start_paused = true)]
async fn preflights_and_health_checks_can_be_exempt() {
    let limit = limiter("all", Quota::per_minute(1));
    let layer = RateLimitLayer::http()
        .limit(limit.by(KeyBy::everyone()))
        .exempt(cors_preflight)
        .exempt(|request| request.uri().path() == "/b/health");
    let router = router(|router| router.layer(layer));
    assert_eq!(ask(&router, from("203.0.113.7:1", "/a", &[])).await.status(), StatusCode::OK);
    for _ in 0..3 {
        let health = ask(&router, from("203.0.113.7:1", "/b/health", &[])).await;
        assert_eq!(health.status(), StatusCode::OK);
        assert!(!health.headers().contains_key("ratelimit"));
        let asked = [("origin", "https://x"), ("access-control-request-method", "PUT")];
        let mut preflight = from("203.0.113.7:1", "/a", &asked);
        *preflight.method_mut() = Method::OPTIONS;
        assert_eq!(ask(&router, preflight).await.status(), StatusCode::OK);
    }
    // OPTIONS alone is no preflight.
    let mut options = from("203.0.113.7:1", "/a", &[]);
    *options.method_mut() = Method::OPTIONS;
    assert_eq!(ask(&router, options).await.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(start_paused = true)]
async fn what_a_later_layer_refuses_is_given_back() {
    let outer = limiter("outer", Quota::per_minute(10));
    let inner = limiter("inner", Quota::per_minute(1));
    let breaker = Breaker::new("down", BreakerConfig::default()).expect("valid");
    let shed = |status: StatusCode| async move {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response
    };
    let router = Router::new()
        .route("/ok", get(|| async { "ok" }))
        .route("/failed", get(move || shed(StatusCode::SERVICE_UNAVAILABLE)))
        .route(
            "/marked",
            get(|| async {
                let mut response = Response::new(Body::empty());
                response.extensions_mut().insert(RefundRateLimit);
                response
            }),
        )
        .merge(
            Router::new()
                .route("/inner", get(|| async { "ok" }))
                .layer(RateLimitLayer::http().limit(inner.by(KeyBy::everyone()))),
        )
        .merge(
            Router::new()
                .route("/down", get(|| async { "ok" }))
                .layer(BreakerLayer::http(breaker.clone())),
        )
        .layer(RateLimitLayer::http().limit(outer.by(KeyBy::everyone())));
    breaker.force_open();
    let used = || outer.stats().allowed_total - outer.stats().refunded_total;
    for (path, expected) in [
        ("/ok", 1),
        ("/inner", 2),
        // Refused by the inner limit, and by the breaker: both say when to come again.
        ("/inner", 2),
        ("/down", 2),
        ("/marked", 2),
        // The handler has worked, and failed.
        ("/failed", 3),
    ] {
        ask(&router, from("203.0.113.7:1", path, &[])).await;
        assert_eq!(used(), expected, "{path}");
    }
    assert_eq!(outer.stats().refunded_total, 3);
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_answers_like_a_refusal_stays_used_unless_the_status_is_believed() {
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
        for (believed, expected) in [(false, 3), (true, 50)] {
            let limit = limiter("login", Quota::per_minute(3));
            let worked = Arc::new(AtomicU32::new(0));
            let count = Arc::clone(&worked);
            let locked = move || async move {
                count.fetch_add(1, Ordering::Relaxed);
                (status, [("retry-after", "900")])
            };
            let layer = RateLimitLayer::http().limit(limit.by(KeyBy::everyone()));
            let router = Router::new().route("/login", any(locked));
            let router = match believed {
                false => router.layer(layer),
                true => router.layer(layer.refund(refused_by_status)),
            };
            for _ in 0..50 {
                ask(&router, from("203.0.113.7:1", "/login", &[])).await;
            }
            assert_eq!(worked.load(Ordering::Relaxed), expected, "{status}");
        }
    }
}

#[tokio::test]
async fn over_a_real_connection_the_peer_is_the_client() {
    let limit = limiter("per-address", Quota::per_hour(3));
    let layer = RateLimitLayer::http().limit(limit.by(KeyBy::client_ip(proxies())));
    let router = router(|router| router.layer(layer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let drain = Drain::new(crate::client::config());
    let server = tokio::spawn(serve(listener, router, drain));
    for number in 0..6 {
        let mut client = crate::client::Client::connect(address).await;
        client
            .send(&format!("GET /a HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 6.6.6.{number}\r\n\r\n"))
            .await;
        let answer = soon("an answer", client.answer()).await;
        assert_eq!(answer.status(), if number < 3 { "200" } else { "429" });
    }
    server.abort();
}
