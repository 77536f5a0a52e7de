//! Two processes with an HTTP cache each over one Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use escala_cache::RedisStore;
use escala_cache::http::{HttpCache, HttpCacheConfig, HttpCacheLayer};
use http::Response;
use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use super::healthy;

/// What both processes ask: counts, and answers in the client's language.
#[derive(Clone, Default)]
struct Origin(Arc<AtomicUsize>);

impl Origin {
    fn app(&self, store: &RedisStore) -> (HttpCache, Router) {
        let storage = HttpCache::storage("pages").shared(store.clone()).build().unwrap();
        let cache = HttpCache::new(storage, HttpCacheConfig::default()).unwrap();
        let origin = self.clone();
        let answer = move |request: Request| std::future::ready(origin.answer(&request));
        let layer = HttpCacheLayer::new(cache.clone());
        (cache, Router::new().fallback(answer).layer(layer))
    }

    fn answer(&self, request: &Request) -> Response<Body> {
        let language = request.headers()["accept-language"].to_str().unwrap();
        Response::builder()
            .header("cache-control", "max-age=600")
            .header("vary", "accept-language")
            .header("surrogate-key", "list")
            .body(Body::from(format!("{language} {}", self.0.fetch_add(1, Ordering::SeqCst))))
            .unwrap()
    }
}

async fn get(app: &Router, language: &str) -> String {
    let request =
        Request::builder().uri("/").header("accept-language", language).body(Body::empty());
    let response = app.clone().oneshot(request.unwrap()).await.unwrap();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Asks until the answer is another one; it must be within the bound on messages.
async fn changes(app: &Router, language: &str, old: &str) {
    let asked = async {
        while get(app, language).await == old {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), asked).await.expect("the purge arrived");
}

#[tokio::test]
async fn a_response_stored_by_one_process_is_served_and_purged_by_the_other() {
    let (_redis, store) = healthy().await;
    let origin = Origin::default();
    let (one, first) = origin.app(&store);
    let (_two, second) = origin.app(&store);
    assert_eq!(get(&first, "de").await, "de 0");
    assert_eq!(get(&first, "en").await, "en 1");
    // The shared layer is filled in the background: two variants, and the index for each.
    let there = async {
        while one.cache().stats().shared.unwrap().writes < 4 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), there).await.unwrap();
    assert_eq!(get(&second, "de").await, "de 0");
    assert_eq!(get(&second, "en").await, "en 1");
    assert!(one.purge_tag(None, "list").await.is_complete());
    assert_ne!(get(&first, "de").await, "de 0");
    changes(&second, "en", "en 1").await;
    let german = get(&second, "de").await;
    assert_ne!(german, "de 0", "both variants went together");
}
