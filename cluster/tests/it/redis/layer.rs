//! Limits on Redis in a layer, in front of an axum router.

use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use axum::routing::get;
use escala_cluster::{
    ClientIp, KeyBy, MissingKey, Quota, RateLimitConfig, RateLimitLayer, RedisRateLimiter,
    StoreFailure,
};
use testkit::Redis;
use tower::ServiceExt;

use super::store;

/// Nothing comes back while a test runs.
fn slow(burst: u32) -> Quota {
    Quota::per_hour(1).burst(burst)
}

fn request(address: &str, tenant: Option<&str>) -> Request {
    let mut request = Request::builder().uri("/");
    if let Some(tenant) = tenant {
        request = request.header("x-tenant", tenant);
    }
    let peer: SocketAddr = format!("{address}:1").parse().unwrap();
    request.extension(ConnectInfo(peer)).body(Body::empty()).unwrap()
}

async fn ask(app: &Router, address: &str, tenant: Option<&str>) -> Response {
    app.clone().oneshot(request(address, tenant)).await.unwrap()
}

struct World {
    app: Router,
    address: RedisRateLimiter,
    tenant: RedisRateLimiter,
}

fn world(redis: &Redis, address: Quota, tenant: Quota, failure: StoreFailure) -> World {
    let store = store(&redis.url());
    let config = |quota| RateLimitConfig::new(quota).store_failure(failure);
    let address = RedisRateLimiter::new("address", config(address), &store).unwrap();
    let tenants = config(tenant).missing_key(MissingKey::Skip);
    let tenant = RedisRateLimiter::new("tenant", tenants, &store).unwrap();
    let name = KeyBy::from_fn(|request: &Request| {
        request.headers().get("x-tenant")?.to_str().ok().map(str::to_owned)
    });
    let layer = RateLimitLayer::http()
        .limit(address.by(KeyBy::client_ip(ClientIp::default())))
        .limit(tenant.by(name));
    let app = Router::new().route("/", get(async || "hello")).layer(layer);
    World { app, address, tenant }
}

async fn scripts_run(redis: &Redis) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]).await.unwrap();
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn two_limits_are_one_round_trip_and_what_one_refuses_the_other_has_not_used() {
    let redis = Redis::start().await.unwrap();
    let World { app, address, tenant } = world(&redis, slow(10), slow(2), StoreFailure::Reject);
    for left in (8..10).rev() {
        let response = ask(&app, "192.0.2.1", Some("acme")).await;
        assert_eq!(response.status(), 200);
        let limits = response.headers()["ratelimit"].to_str().unwrap();
        assert!(limits.contains(&format!("\"address\";r={left}")), "{limits}");
    }
    let asked = scripts_run(&redis).await;
    let refused = ask(&app, "192.0.2.1", Some("acme")).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(scripts_run(&redis).await, asked + 1);
    let limits = refused.headers()["ratelimit"].to_str().unwrap().to_owned();
    assert!(limits.contains("\"address\";r=8") && limits.contains("\"tenant\";r=0"), "{limits}");
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((3_500..=3_600).contains(&wait), "{wait}");
    let body = to_bytes(refused.into_body(), 10_000).await.unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["violated-policies"], serde_json::json!(["tenant"]));
    for _ in 0..20 {
        assert_eq!(ask(&app, "192.0.2.1", Some("acme")).await.status(), 429);
    }
    assert_eq!(scripts_run(&redis).await, asked + 1, "known to be refused");
    // Another tenant goes on, from the same address, which has used two.
    assert_eq!(ask(&app, "192.0.2.1", Some("globex")).await.status(), 200);
    for left in (0..7).rev() {
        let response = ask(&app, "192.0.2.1", None).await;
        assert_eq!(response.status(), 200);
        let limits = response.headers()["ratelimit"].to_str().unwrap();
        assert!(limits.contains(&format!("\"address\";r={left}")), "{limits}");
    }
    assert_eq!(ask(&app, "192.0.2.1", None).await.status(), 429);
    assert_eq!(ask(&app, "192.0.2.2", None).await.status(), 200);
    let (address, tenant) = (address.stats(), tenant.stats());
    assert_eq!((address.allowed_total, address.refunded_total, address.limited_total), (12, 1, 1));
    assert_eq!((tenant.allowed_total, tenant.limited_total), (3, 21));
}

#[tokio::test]
async fn without_redis_requests_are_answered_as_the_limits_say() {
    let redis = Redis::start().await.unwrap();
    let open = world(&redis, slow(1), slow(1), StoreFailure::Allow);
    let closed = world(&redis, slow(1), slow(1), StoreFailure::Reject);
    let local = world(&redis, slow(4), slow(4), StoreFailure::Local { processes: 2 });
    redis.kill().unwrap();
    for _ in 0..10 {
        assert_eq!(ask(&open.app, "192.0.2.1", Some("acme")).await.status(), 200);
        let refused = ask(&closed.app, "192.0.2.1", Some("acme")).await;
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"] == "1"),
            (503, true)
        );
    }
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(ask(&local.app, "192.0.2.1", Some("acme")).await.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(open.address.stats().errors_total, 10);
}

#[tokio::test]
async fn a_shadow_limit_with_nothing_to_ask_for_does_not_hide_the_limits_before_it() {
    let redis = Redis::start().await.unwrap();
    let store = store(&redis.url());
    let address = RedisRateLimiter::new("address", slow(1), &store).unwrap();
    let trial = RateLimitConfig::new(slow(1)).shadow(true);
    let trial = RedisRateLimiter::new("trial", trial, &store).unwrap();
    let layer = RateLimitLayer::http()
        .limit(address.by(KeyBy::client_ip(ClientIp::default())))
        .limit(trial.by(KeyBy::everyone()).cost(|_| 10));
    let app = Router::new().route("/", get(async || "hello")).layer(layer);
    assert_eq!(ask(&app, "192.0.2.1", None).await.status(), 200);
    assert_eq!(ask(&app, "192.0.2.1", None).await.status(), 429);
    assert_eq!(trial.stats().shadow_limited_total, 2);
}
