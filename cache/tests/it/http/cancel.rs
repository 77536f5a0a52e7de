//! Requests and bodies dropped at every step: the figures add up and nothing stays under way.

use axum::Router;
use escala_cache::http::{HttpCache, HttpCacheConfig, HttpCacheLayer, PurgeConfig};
use http_body_util::BodyExt;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use tower::ServiceExt;

use super::support::{
    Origin, answer, assert_adds_up, cache, get, request, respond, seconds, settle,
};

fn stack(origin: &Origin) -> (HttpCache, Router) {
    let cache = cache(HttpCacheConfig::default());
    let purge = PurgeConfig::new("a-token-of-some-length").unwrap();
    let app = origin.behind(HttpCacheLayer::new(cache.clone()).purge(purge));
    (cache, app)
}

/// Polls a request until it has been pending `steps` times, then drops it. Between the polls
/// everything else goes on. Says whether it came to its end.
pub(crate) async fn dropped_after(app: &Router, method: &str, steps: usize) -> bool {
    let mut future = pin!(app.clone().oneshot(request(method, "/", &[])));
    for _ in 0..=steps {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(response) => {
                drop(response);
                return true;
            }
            Poll::Pending => tokio::task::yield_now().await,
        }
    }
    false
}

async fn assert_idle(cache: &HttpCache) {
    settle().await;
    tokio::time::sleep(seconds(60)).await;
    settle().await;
    let stats = cache.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.in_flight, stats.flights, stats.revalidations_in_flight), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_may_be_dropped_at_every_step_of_every_outcome() {
    let outcomes: [fn(usize) -> http::Response<axum::body::Body>; 5] = [
        |n| respond(&[("cache-control", "max-age=60")], &n.to_string()),
        |n| respond(&[("cache-control", "no-store")], &n.to_string()),
        |n| respond(&[("cache-control", "no-cache"), ("etag", "\"x\"")], &n.to_string()),
        |_| answer(304, &[("etag", "\"x\"")], ""),
        |_| answer(503, &[], "broken"),
    ];
    for outcome in outcomes {
        for method in ["GET", "HEAD", "POST", "OPTIONS", "PURGE"] {
            for primed in [false, true] {
                for steps in 0..12 {
                    let origin = Origin::counting(&[
                        ("cache-control", "max-age=60, stale-if-error=60"),
                        ("etag", "\"x\""),
                    ]);
                    let (cache, app) = stack(&origin);
                    if primed {
                        get(&app, "/").await;
                        tokio::time::advance(seconds(61)).await;
                    }
                    origin.set(move |_, n| outcome(n));
                    dropped_after(&app, method, steps).await;
                    assert_idle(&cache).await;
                    let stats = cache.stats();
                    assert_eq!(stats.requests, 1 + u64::from(primed), "{method} {steps}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn followers_may_be_dropped_at_every_step() {
    for steps in 0..8 {
        let origin = Origin::counting(&[("cache-control", "max-age=60")]);
        let (cache, app) = stack(&origin);
        origin.close();
        let leader = app.clone();
        let leader = tokio::spawn(async move { get(&leader, "/").await });
        origin.begun().await;
        assert!(!dropped_after(&app, "GET", steps).await);
        origin.open();
        assert_eq!(leader.await.unwrap().body, "answer 0");
        assert_idle(&cache).await;
        assert_eq!(cache.stats().cancelled, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_shared_is_dropped_at_the_origin_too() {
    let origin = Origin::counting(&[("cache-control", "no-store")]);
    let (cache, app) = stack(&origin);
    get(&app, "/").await;
    origin.close();
    assert!(!dropped_after(&app, "GET", 3).await);
    origin.begun().await;
    origin.open();
    settle().await;
    assert_eq!(origin.ended(), 1, "the second never ended");
    assert_eq!(cache.stats().cancelled, 1);
}

#[tokio::test(start_paused = true)]
async fn an_unsafe_request_that_is_dropped_half_way_removes_its_target() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    let (cache, app) = stack(&origin);
    get(&app, "/").await;
    origin.close();
    assert!(!dropped_after(&app, "POST", 3).await);
    settle().await;
    origin.open();
    assert_eq!(get(&app, "/").await.body, "answer 2");
    let stats = cache.stats();
    assert_eq!((stats.cancelled, stats.invalidations), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn bodies_from_the_store_may_be_dropped_at_every_frame() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    let (cache, app) = stack(&origin);
    get(&app, "/").await;
    for frames in 0..3 {
        let ranges = [("range", "bytes=0-0,2-2")];
        let mut body = app.clone().oneshot(request("GET", "/", &ranges)).await.unwrap().into_body();
        for _ in 0..frames {
            body.frame().await.unwrap().unwrap();
        }
        drop(body);
    }
    assert_idle(&cache).await;
}
