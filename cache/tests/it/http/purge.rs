//! Purging: who may, what goes, what stays.

use axum::Router;
use escala_cache::http::{HttpCache, HttpCacheConfig, HttpCacheLayer, PurgeConfig};
use http::StatusCode;

use super::support::{
    Origin, answer, assert_adds_up, cache, get, get_with, request, respond, seconds, send,
};

const TOKEN: &str = "a-token-of-some-length";
const BEARER: (&str, &str) = ("authorization", "Bearer a-token-of-some-length");

fn stack() -> (Origin, HttpCache, Router) {
    let origin = Origin::new(|parts, n| {
        let path = parts.uri.path().trim_start_matches('/');
        let fields = [
            ("cache-control", "max-age=600, stale-while-revalidate=600"),
            ("surrogate-key", path),
            ("cache-tag", "all, of them"),
            ("vary", if path.starts_with('v') { "accept-language" } else { "accept-encoding" }),
        ];
        respond(&fields, &format!("answer {n}"))
    });
    let cache = cache(HttpCacheConfig::default());
    let layer = HttpCacheLayer::new(cache.clone()).purge(PurgeConfig::new(TOKEN).unwrap());
    (origin.clone(), cache, origin.behind(layer))
}

async fn purge(app: &Router, uri: &str, fields: &[(&str, &str)]) -> StatusCode {
    send(app, request("PURGE", uri, fields)).await.status
}

#[tokio::test(start_paused = true)]
async fn only_the_bearer_of_the_token_may_purge() {
    let (origin, cache, app) = stack();
    get(&app, "/a").await;
    assert_eq!(purge(&app, "/a", &[]).await, StatusCode::FORBIDDEN);
    let wrong = [("authorization", "Bearer a-token-of-some-lengtH")];
    assert_eq!(purge(&app, "/a", &wrong).await, StatusCode::FORBIDDEN);
    assert!(get(&app, "/a").await.is_hit());
    assert_eq!(purge(&app, "/a", &[BEARER]).await, StatusCode::OK);
    assert!(!get(&app, "/a").await.is_hit());
    assert_eq!(origin.requests(), 2, "no purge reached the origin");
    let stats = cache.stats();
    assert_adds_up(&stats);
    assert_eq!(stats.purges, 3);
}

#[tokio::test(start_paused = true)]
async fn without_a_token_the_method_is_the_inner_services_affair() {
    let origin = Origin::counting(&[("cache-control", "max-age=600")]);
    let app = origin.behind(HttpCacheLayer::new(cache(HttpCacheConfig::default())));
    assert_eq!(send(&app, request("PURGE", "/", &[BEARER])).await.body, "answer 0");
}

#[tokio::test(start_paused = true)]
async fn a_purge_reaches_a_route_that_only_takes_get_however_it_is_layered() {
    let route = || Router::new().route("/a", axum::routing::get(async || "tea"));
    let layer = || {
        HttpCacheLayer::new(cache(HttpCacheConfig::default()))
            .ttl(std::time::Duration::from_secs(600))
            .purge(PurgeConfig::new(TOKEN).unwrap())
    };
    for app in [route().layer(layer()), route().route_layer(layer())] {
        get(&app, "/a").await;
        assert!(get(&app, "/a").await.is_hit());
        assert_eq!(purge(&app, "/a", &[BEARER]).await, StatusCode::OK);
        assert!(!get(&app, "/a").await.is_hit());
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_a_target_takes_every_variant_and_nothing_else() {
    let (_, cache, app) = stack();
    let languages = [[("accept-language", "de")], [("accept-language", "en")]];
    for language in &languages {
        get_with(&app, "/v", language).await;
    }
    get(&app, "/a").await;
    assert_eq!(purge(&app, "/v", &[BEARER]).await, StatusCode::OK);
    for language in &languages {
        assert!(!get_with(&app, "/v", language).await.is_hit());
    }
    assert!(get(&app, "/a").await.is_hit());
    assert!(cache.purge_uri(None, &"/v".parse().unwrap()).await.is_complete());
    for language in &languages {
        assert!(!get_with(&app, "/v", language).await.is_hit());
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_by_surrogate_key_takes_all_that_have_it() {
    let (_, cache, app) = stack();
    for uri in ["/a", "/b", "/c"] {
        get(&app, uri).await;
    }
    let keys = [BEARER, ("surrogate-key", "a b")];
    assert_eq!(purge(&app, "/", &keys).await, StatusCode::OK);
    assert!(!get(&app, "/a").await.is_hit());
    assert!(!get(&app, "/b").await.is_hit());
    assert!(get(&app, "/c").await.is_hit());
    assert!(cache.purge_tag(None, "of them").await.is_complete());
    for uri in ["/a", "/b", "/c"] {
        assert!(!get(&app, uri).await.is_hit(), "{uri}");
    }
    assert!(cache.clear().await.is_complete());
    assert!(!get(&app, "/a").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_soft_purge_makes_stale_what_may_be_served_stale() {
    let (origin, cache, app) = stack();
    for (n, by_key) in [true, false].into_iter().enumerate() {
        assert!(cache.clear().await.is_complete());
        let old = get(&app, "/a").await.body;
        let soft = [BEARER, ("purge-mode", "soft"), ("surrogate-key", "a")];
        let fields = if by_key { &soft[..] } else { &soft[..2] };
        assert_eq!(purge(&app, "/a", fields).await, StatusCode::OK);
        let stale = get(&app, "/a").await;
        assert_eq!(stale.body, old, "served once more, while it is fetched anew");
        let fresh = get(&app, "/a").await;
        assert_ne!(fresh.body, old);
        assert_eq!(origin.requests(), 2 * (n + 1));
    }
    assert_eq!(cache.stats().stale, 2);
}

#[tokio::test(start_paused = true)]
async fn a_purge_that_cannot_be_read_purges_nothing() {
    let (_, _, app) = stack();
    get(&app, "/a").await;
    for field in [("surrogate-key", " "), ("purge-mode", "gentle"), ("cache-tag", ",")] {
        assert_eq!(purge(&app, "/a", &[BEARER, field]).await, StatusCode::BAD_REQUEST);
    }
    assert!(get(&app, "/a").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn surrogate_keys_are_not_shown_to_clients_unless_wanted() {
    let (origin, _, app) = stack();
    for _ in 0..2 {
        let got = get(&app, "/a").await;
        assert_eq!((got.field("surrogate-key"), got.field("cache-tag")), ("", "all, of them"));
    }
    let shown = cache(HttpCacheConfig::default().strip_surrogate_key(false));
    let app = origin.behind(HttpCacheLayer::new(shown));
    for _ in 0..2 {
        assert_eq!(get(&app, "/a").await.field("surrogate-key"), "a");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_with_more_keys_than_can_be_purged_is_not_stored() {
    let many = (0..100).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
    let origin = Origin::new(move |_, n| {
        let fields = [("cache-control", "max-age=600"), ("surrogate-key", many.as_str())];
        respond(&fields, &format!("answer {n}"))
    });
    let cache = cache(HttpCacheConfig::default());
    let app = origin.behind(HttpCacheLayer::new(cache.clone()));
    get(&app, "/").await;
    assert_eq!(get(&app, "/").await.body, "answer 1");
    assert_eq!(cache.stats().untaggable, 2);
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_a_304_are_not_shown_either_and_take_effect() {
    let many = (0..100).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
    for (keys, of_new) in [("b", true), (many.as_str(), false)] {
        let keys_of_304 = keys.to_owned();
        let origin = Origin::new(move |parts, n| {
            let fields = [("cache-control", "max-age=60"), ("etag", "\"v1\"")];
            if parts.headers.contains_key("if-none-match") {
                let keys = [("surrogate-key", keys_of_304.as_str())];
                answer(304, &[&fields[..], &keys[..]].concat(), "")
            } else {
                respond(&[&fields[..], &[("surrogate-key", "a")]].concat(), &format!("answer {n}"))
            }
        });
        let cache = cache(HttpCacheConfig::default());
        let app = origin.behind(HttpCacheLayer::new(cache.clone()));
        get(&app, "/").await;
        tokio::time::advance(seconds(61)).await;
        for _ in 0..2 {
            let got = get(&app, "/").await;
            assert_eq!((got.body.as_str(), got.field("surrogate-key")), ("answer 0", ""));
        }
        // Keys that cannot be had leave the ones of before, and the response as it was.
        let tag = if of_new { "b" } else { "a" };
        assert!(cache.purge_tag(None, tag).await.is_complete());
        assert_ne!(get(&app, "/").await.body, "answer 0", "{tag}");
        assert_eq!(cache.stats().untaggable > 0, !of_new);
    }
}
