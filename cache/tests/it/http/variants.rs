//! Several answers of one target.

use escala_cache::http::{HttpCache, HttpCacheConfig, HttpCacheLayer, Policy};

use super::support::{Origin, answer, cache, get_with, request, respond, seconds, send};

fn by_language() -> Origin {
    Origin::new(|parts, n| {
        let language = parts.headers.get("accept-language").map_or("none", |v| v.to_str().unwrap());
        let tag = format!("\"{language}\"");
        let fields =
            [("cache-control", "max-age=60"), ("vary", "Accept-Language"), ("etag", tag.as_str())];
        respond(&fields, &format!("{language} {n}"))
    })
}

fn stack(origin: &Origin) -> (HttpCache, axum::Router) {
    let cache = cache(HttpCacheConfig::default());
    let app = origin.behind(HttpCacheLayer::new(cache.clone()));
    (cache, app)
}

async fn in_language(app: &axum::Router, language: &str) -> String {
    get_with(app, "/", &[("accept-language", language)]).await.body
}

#[tokio::test(start_paused = true)]
async fn each_variant_is_stored_and_found_by_what_selects_it() {
    let origin = by_language();
    let (_, app) = stack(&origin);
    assert_eq!(in_language(&app, "de").await, "de 0");
    assert_eq!(in_language(&app, "en").await, "en 1");
    assert_eq!(in_language(&app, "de").await, "de 0");
    assert_eq!(in_language(&app, "en").await, "en 1");
    assert_eq!(get_with(&app, "/", &[]).await.body, "none 2");
    assert_eq!(get_with(&app, "/", &[]).await.body, "none 2");
    assert_eq!(origin.requests(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_target_whose_vary_changes_keeps_what_still_matches() {
    let origin = by_language();
    let (_, app) = stack(&origin);
    in_language(&app, "de").await;
    origin.set(|_, n| {
        respond(
            &[("cache-control", "max-age=60"), ("vary", "accept-encoding")],
            &format!("by encoding {n}"),
        )
    });
    assert_eq!(in_language(&app, "fr").await, "by encoding 1");
    assert_eq!(in_language(&app, "en").await, "by encoding 1", "fits all without an encoding");
    let other = [("accept-language", "de"), ("accept-encoding", "gzip")];
    assert_eq!(get_with(&app, "/", &other).await.body, "de 0");
}

#[tokio::test(start_paused = true)]
async fn an_unsafe_request_removes_all_variants() {
    let origin = by_language();
    let (_, app) = stack(&origin);
    in_language(&app, "de").await;
    in_language(&app, "en").await;
    send(&app, request("POST", "/", &[])).await;
    assert_eq!(in_language(&app, "de").await, "de 3");
    assert_eq!(in_language(&app, "en").await, "en 4");
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_variants_than_the_policy_says() {
    let origin = by_language();
    let cache = cache(HttpCacheConfig::default());
    let mut policy = Policy::safe();
    policy.max_variants = 2;
    let app = origin.behind(HttpCacheLayer::new(cache.clone()).policy(policy));
    for language in ["de", "en", "fr"] {
        in_language(&app, language).await;
    }
    assert_eq!(in_language(&app, "en").await, "en 1");
    assert_eq!(in_language(&app, "fr").await, "fr 2");
    assert_eq!(in_language(&app, "de").await, "de 3", "the oldest had to go");
    // The index and two variants.
    assert_eq!(cache.cache().stats().memory.entries, 3);
}

#[tokio::test(start_paused = true)]
async fn a_304_may_choose_another_variant_for_a_request_that_matches_none() {
    let origin = by_language();
    let app =
        origin.behind(HttpCacheLayer::new(cache(HttpCacheConfig::default())).policy(Policy::rfc()));
    in_language(&app, "de").await;
    origin.set(|parts, _| {
        assert_eq!(parts.headers.get("if-none-match").unwrap(), "\"de\"");
        answer(304, &[("etag", "\"de\""), ("vary", "Accept-Language")], "")
    });
    assert_eq!(in_language(&app, "de-AT").await, "de 0");
    tokio::time::advance(seconds(1)).await;
    assert_eq!(in_language(&app, "de-AT").await, "de 0", "and it is stored for the next one");
    assert_eq!(origin.requests(), 2);
}
