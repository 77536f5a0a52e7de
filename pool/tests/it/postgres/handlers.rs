//! Handlers of axum with leases, and what the hook is told of them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use axum::routing::get;
use escala_pool::{Acquire, Leased, PgPool, PoolConfig, PoolEvent, PoolLayer};
use parking_lot::Mutex;
use tokio::time::sleep;
use tower::ServiceExt;

use super::cluster;

async fn name(lease: Leased<PgPool>) -> String {
    lease.query_one("select current_user::text", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_handler_gets_a_lease_and_a_full_pool_is_503_while_health_checks_pass() {
    let pg = cluster().await;
    let config = PoolConfig::new(pg.primary().url()).max_size(1).min_idle(0).pipelines(0);
    let config = config.acquire_timeout(Duration::from_secs(3));
    let pool = PgPool::connect(config).await.unwrap();
    let app = Router::new().route("/", get(name)).layer(PoolLayer::new(pool.clone()));
    let request = || Request::get("/").body(Body::empty()).unwrap();
    let response = app.clone().oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(to_bytes(response.into_body(), 100).await.unwrap(), "postgres");
    let held = pool.begin().await.unwrap();
    let response = app.clone().oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    let check = pool.acquire_with(Acquire::reserved()).await.unwrap();
    assert_eq!(check.query_one("select 1", &[]).await.unwrap().get::<_, i32>(0), 1);
    drop(held);
    assert_eq!(app.oneshot(request()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_transaction_that_is_forgotten_is_told_with_the_place_where_it_was_begun() {
    let pg = cluster().await;
    let places = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&places);
    let config = PoolConfig::new(pg.primary().url()).max_size(2).min_idle(0);
    let config = config.leak_threshold(Duration::from_millis(100));
    let builder = PgPool::builder(config).on_event(move |event| {
        if let PoolEvent::LeakSuspected { place, .. } = event {
            told.lock().push((place.file(), place.line()));
        }
    });
    let pool = builder.connect().await.unwrap();
    let line = line!() + 1;
    let forgotten = pool.begin().await.unwrap();
    while places.lock().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    let (file, at) = places.lock()[0];
    assert!(file.ends_with("handlers.rs") && at == line, "{file}:{at}");
    assert_eq!(pool.stats().leaked, 1);
    drop(forgotten);
}
