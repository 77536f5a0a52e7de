//! Processes that share one store.

use std::future::Future;
use std::pin::Pin;

use axum::Router;
use escala_cache::http::{HttpCache, HttpCacheConfig, HttpCacheLayer};

use super::support::{Origin, get, get_with, over, request, respond, seconds, send, settle};
use crate::support::FakeStore;

/// A process of its own over the shared store.
pub(crate) fn process(store: &FakeStore, origin: &Origin) -> (HttpCache, Router) {
    let storage = HttpCache::storage("pages").shared(store.clone()).build().unwrap();
    let cache = over(storage, HttpCacheConfig::default());
    let app = origin.behind(HttpCacheLayer::new(cache.clone()));
    (cache, app)
}

fn by_language() -> Origin {
    Origin::new(|parts, n| {
        let language = parts.headers.get("accept-language").map_or("none", |v| v.to_str().unwrap());
        let fields = [
            ("cache-control", "max-age=1800, stale-while-revalidate=600"),
            ("vary", "accept-language"),
            ("surrogate-key", "all"),
            ("link", "</a>"),
            ("link", "</b>"),
        ];
        respond(&fields, &format!("{language} {n}"))
    })
}

async fn in_language(app: &Router, language: &str) -> String {
    get_with(app, "/", &[("accept-language", language)]).await.body
}

#[tokio::test(start_paused = true)]
async fn what_one_process_stored_another_serves_with_all_its_fields() {
    let (store, origin) = (FakeStore::default(), by_language());
    let (_, one) = process(&store, &origin);
    let (_, two) = process(&store, &origin);
    assert_eq!(in_language(&one, "de").await, "de 0");
    assert_eq!(in_language(&one, "en").await, "en 1");
    tokio::time::sleep(seconds(900)).await;
    let seen = get_with(&two, "/", &[("accept-language", "de")]).await;
    assert_eq!((seen.body.as_str(), seen.field("age")), ("de 0", "900"));
    let links: Vec<_> = seen.headers.get_all("link").iter().collect();
    assert_eq!(links, ["</a>", "</b>"]);
    assert_eq!(in_language(&two, "en").await, "en 1");
    assert_eq!(origin.requests(), 2);
}

type Purge = fn(&HttpCache) -> Pin<Box<dyn Future<Output = bool> + '_>>;

#[tokio::test(start_paused = true)]
async fn a_purge_in_one_process_reaches_the_others_and_the_store() {
    let purges: [Purge; 3] = [
        |cache| Box::pin(async { cache.purge_tag(None, "all").await.is_complete() }),
        |cache| {
            Box::pin(async { cache.purge_uri(None, &"/".parse().unwrap()).await.is_complete() })
        },
        |cache| Box::pin(async { cache.clear().await.is_complete() }),
    ];
    for purge in purges {
        let (store, origin) = (FakeStore::default(), by_language());
        let (first, one) = process(&store, &origin);
        let (_, two) = process(&store, &origin);
        for app in [&one, &two] {
            assert_eq!(in_language(app, "de").await, "de 0");
            assert_eq!(in_language(app, "en").await, "en 1");
        }
        settle().await;
        assert!(purge(&first).await);
        settle().await;
        assert_eq!(in_language(&two, "de").await, "de 2");
        assert_eq!(in_language(&one, "en").await, "en 3");
        assert_eq!(in_language(&one, "de").await, "de 2");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_in_one_process_reaches_the_others() {
    let (store, origin) = (FakeStore::default(), by_language());
    let (_, one) = process(&store, &origin);
    let (_, two) = process(&store, &origin);
    in_language(&one, "de").await;
    assert_eq!(in_language(&two, "de").await, "de 0");
    send(&one, request("POST", "/", &[])).await;
    settle().await;
    assert_eq!(in_language(&two, "de").await, "de 2");
}

#[tokio::test(start_paused = true)]
async fn a_soft_purge_in_one_process_makes_the_others_revalidate() {
    let (store, origin) = (FakeStore::default(), by_language());
    let (first, one) = process(&store, &origin);
    let (_, two) = process(&store, &origin);
    in_language(&one, "de").await;
    assert_eq!(in_language(&two, "de").await, "de 0");
    assert!(first.soft_purge_tag(None, "all").await.is_complete());
    settle().await;
    assert_eq!(in_language(&two, "de").await, "de 0", "stale, while it is fetched anew");
    assert_eq!(in_language(&two, "de").await, "de 1");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_fails_no_request() {
    let (store, origin) = (FakeStore::default(), by_language());
    let (cache, app) = process(&store, &origin);
    store.fail(true);
    assert_eq!(in_language(&app, "de").await, "de 0");
    assert_eq!(in_language(&app, "de").await, "de 0");
    assert!(!cache.purge_uri(None, &"/".parse().unwrap()).await.is_complete());
    assert_eq!(in_language(&app, "de").await, "de 1", "this process is clear");
    assert_eq!(get(&app, "/other").await.body, "none 2");
}
