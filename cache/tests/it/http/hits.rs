//! What is answered from the store, and how.

use axum::Router;
use axum::routing::get as route;
use escala_cache::http::{HttpCacheConfig, HttpCacheLayer, Policy};
use http::StatusCode;

use super::support::{
    Origin, answer, assert_adds_up, cache, date, get, get_with, request, respond, seconds, send,
};

fn default() -> HttpCacheLayer {
    HttpCacheLayer::new(cache(HttpCacheConfig::default()))
}

#[tokio::test(start_paused = true)]
async fn a_fresh_response_is_served_with_its_age_until_it_is_stale() {
    let origin = Origin::counting(&[("cache-control", "max-age=60"), ("x-mark", "a")]);
    let app = origin.behind(default());
    let first = get(&app, "/page?x=1").await;
    assert_eq!((first.body.as_str(), first.field("x-mark")), ("answer 0", "a"));
    assert_eq!(first.how(), "fwd=uri-miss; fwd-status=200; stored");
    assert_eq!(first.field("age"), "");
    tokio::time::advance(seconds(59)).await;
    let second = get(&app, "/page?x=1").await;
    assert_eq!((second.body.as_str(), second.field("x-mark")), ("answer 0", "a"));
    assert_eq!((second.field("age"), &*second.how()), ("59", "hit; ttl=1"));
    assert_eq!(second.field("content-length"), "8");
    tokio::time::advance(seconds(1)).await;
    assert_eq!(get(&app, "/page?x=1").await.body, "answer 1");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn query_and_host_are_part_of_the_key_and_the_order_of_requests_is_not() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    let app = origin.behind(default());
    let one = get_with(&app, "/u?id=1", &[("host", "a.example")]).await;
    let two = get_with(&app, "/u?id=2", &[("host", "a.example")]).await;
    let other = get_with(&app, "/u?id=1", &[("host", "b.example")]).await;
    assert_eq!([&*one.body, &*two.body, &*other.body], ["answer 0", "answer 1", "answer 2"]);
    let again = get_with(&app, "/u?id=1", &[("host", "A.Example")]).await;
    assert_eq!(again.body, "answer 0");

    let shared = HttpCacheLayer::new(cache(HttpCacheConfig::default().key_by_host(false)));
    let app = origin.behind(shared);
    let one = get_with(&app, "/u", &[("host", "a.example")]).await;
    let other = get_with(&app, "/u", &[("host", "b.example")]).await;
    assert_eq!(one.body, other.body);
}

#[tokio::test(start_paused = true)]
async fn routes_have_lifetimes_of_their_own_over_one_cache() {
    let cache = cache(HttpCacheConfig::default());
    let minutes = |n: u64| HttpCacheLayer::new(cache.clone()).ttl(seconds(n * 60));
    let app = Router::new()
        .route("/prices", route(async || "42"))
        .route_layer(minutes(10))
        .merge(Router::new().route("/catalogue", route(async || "tea")).layer(minutes(30)));
    for uri in ["/prices", "/catalogue"] {
        assert!(!get(&app, uri).await.is_hit());
        assert!(get(&app, uri).await.is_hit(), "{uri}");
    }
    tokio::time::advance(seconds(15 * 60)).await;
    assert!(!get(&app, "/prices").await.is_hit());
    assert!(get(&app, "/catalogue").await.is_hit());
    tokio::time::advance(seconds(15 * 60)).await;
    assert!(!get(&app, "/catalogue").await.is_hit());
    let stats = cache.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.misses, stats.hits, stats.stored), (4, 3, 4));
}

#[tokio::test(start_paused = true)]
async fn a_forced_lifetime_wins_over_the_responses_own() {
    let origin = Origin::counting(&[("cache-control", "max-age=1")]);
    let app = origin.behind(default().forced_ttl(seconds(600)));
    get(&app, "/").await;
    tokio::time::advance(seconds(300)).await;
    assert!(get(&app, "/").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn layers_made_apart_over_one_cache_share_it() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    let cache = cache(HttpCacheConfig::default());
    let one = origin.behind(HttpCacheLayer::new(cache.clone()));
    let two = origin.behind(HttpCacheLayer::new(cache.clone()));
    assert_eq!(get(&one, "/").await.body, get(&two, "/").await.body);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn administrators_pass_the_cache_by() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    let cache = cache(HttpCacheConfig::default());
    let layer = HttpCacheLayer::new(cache.clone())
        .bypass(|parts| parts.headers.get("x-role").is_some_and(|role| role == "admin"));
    let app = origin.behind(layer);
    get(&app, "/").await;
    let admin = [("x-role", "admin")];
    let seen = get_with(&app, "/", &admin).await;
    assert_eq!((seen.body.as_str(), &*seen.how()), ("answer 1", "fwd=bypass; fwd-status=200"));
    assert_eq!(get_with(&app, "/", &admin).await.body, "answer 2");
    assert_eq!(get(&app, "/").await.body, "answer 0");
    // What an administrator writes is written all the same.
    send(&app, request("POST", "/", &admin)).await;
    assert_eq!(get(&app, "/").await.body, "answer 4");
    assert_eq!(cache.stats().bypassed, 2);
}

#[tokio::test(start_paused = true)]
async fn head_is_answered_from_a_stored_get() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    let app = origin.behind(default());
    let head = send(&app, request("HEAD", "/", &[])).await;
    assert!(!head.is_hit());
    get(&app, "/").await;
    let head = send(&app, request("HEAD", "/", &[])).await;
    assert!(head.is_hit());
    assert_eq!((head.body.as_str(), head.field("content-length")), ("", "8"));
    assert_eq!(origin.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_forwarded_head_that_tells_of_a_change_makes_the_stored_get_stale() {
    let origin = Origin::counting(&[("cache-control", "max-age=60"), ("etag", "\"a\"")]);
    let app = origin.behind(default().policy(Policy::rfc()));
    get(&app, "/").await;
    let sure = [("cache-control", "no-cache")];
    send(&app, request("HEAD", "/", &sure)).await;
    assert!(get(&app, "/").await.is_hit(), "it tells of none");
    origin.set(|_, n| {
        respond(&[("cache-control", "max-age=60"), ("etag", "\"b\"")], &format!("answer {n}"))
    });
    send(&app, request("HEAD", "/", &sure)).await;
    assert_eq!(get(&app, "/").await.body, "answer 3");
}

#[tokio::test(start_paused = true)]
async fn a_purge_while_a_head_is_under_way_is_not_undone_by_its_answer() {
    let origin = Origin::counting(&[("cache-control", "max-age=60"), ("etag", "\"a\"")]);
    let cache = cache(HttpCacheConfig::default());
    let app = origin.behind(HttpCacheLayer::new(cache.clone()));
    get(&app, "/").await;
    tokio::time::advance(seconds(61)).await;
    origin.begun().await;
    origin.close();
    let head = app.clone();
    let head = tokio::spawn(async move { send(&head, request("HEAD", "/", &[])).await });
    origin.begun().await;
    assert!(cache.purge_uri(None, &"/".parse().unwrap()).await.is_complete());
    origin.open();
    head.await.unwrap();
    assert_eq!(get(&app, "/").await.body, "answer 2");
}

#[tokio::test(start_paused = true)]
async fn conditions_are_answered_from_the_store() {
    let modified = date(-3_600);
    let origin = Origin::new(move |_, _| {
        respond(
            &[("cache-control", "max-age=60"), ("etag", "\"v1\""), ("last-modified", &modified)],
            "hello",
        )
    });
    let app = origin.behind(default());
    // On the way in as well: the origin is asked for the whole, and the client has it already.
    let first = get_with(&app, "/", &[("if-none-match", "\"v1\"")]).await;
    assert_eq!((first.status, first.body.as_str()), (StatusCode::NOT_MODIFIED, ""));
    assert!(!origin.last().headers.contains_key("if-none-match"));
    let same = get_with(&app, "/", &[("if-none-match", "W/\"v1\"")]).await;
    assert_eq!((same.status, same.field("etag")), (StatusCode::NOT_MODIFIED, "\"v1\""));
    let since = date(-10);
    let since = get_with(&app, "/", &[("if-modified-since", &since)]).await;
    assert_eq!(since.status, StatusCode::NOT_MODIFIED);
    let other = get_with(&app, "/", &[("if-none-match", "\"v0\"")]).await;
    assert_eq!((other.status, other.body.as_str()), (StatusCode::OK, "hello"));
    assert_eq!(origin.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn ranges_are_cut_from_the_store() {
    let origin = Origin::new(|_, _| {
        let fields =
            [("cache-control", "max-age=60"), ("etag", "\"v1\""), ("content-type", "text/plain")];
        respond(&fields, "0123456789")
    });
    let app = origin.behind(default());
    get(&app, "/").await;
    let one = get_with(&app, "/", &[("range", "bytes=2-4")]).await;
    assert_eq!((one.status, one.body.as_str()), (StatusCode::PARTIAL_CONTENT, "234"));
    assert_eq!((one.field("content-range"), one.field("content-length")), ("bytes 2-4/10", "3"));
    let two = get_with(&app, "/", &[("range", "bytes=0-0,-1")]).await;
    assert_eq!(two.status, StatusCode::PARTIAL_CONTENT);
    assert!(two.field("content-type").starts_with("multipart/byteranges; boundary="));
    assert!(two.body.contains("bytes 0-0/10") && two.body.contains("bytes 9-9/10"));
    assert_eq!(two.field("content-length"), two.body.len().to_string());
    let none = get_with(&app, "/", &[("range", "bytes=20-")]).await;
    assert_eq!(none.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let changed = get_with(&app, "/", &[("range", "bytes=2-4"), ("if-range", "\"v0\"")]).await;
    assert_eq!((changed.status, changed.body.as_str()), (StatusCode::OK, "0123456789"));
    assert_eq!(origin.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_part_is_never_stored_as_the_whole() {
    let origin = Origin::new(|parts, _| {
        let fields = [("cache-control", "max-age=60"), ("content-range", "bytes 0-3/10")];
        if parts.headers.contains_key("range") {
            answer(206, &fields, "0123")
        } else {
            respond(&fields[..1], "0123456789")
        }
    });
    let app = origin.behind(default());
    let part = get_with(&app, "/", &[("range", "bytes=0-3")]).await;
    assert_eq!((part.status.as_u16(), part.body.as_str()), (206, "0123"));
    assert_eq!(get(&app, "/").await.body, "0123456789");
}

#[tokio::test(start_paused = true)]
async fn only_if_cached_never_reaches_the_origin() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    let cache = cache(HttpCacheConfig::default());
    let app = origin.behind(HttpCacheLayer::new(cache.clone()));
    let wish = [("cache-control", "only-if-cached")];
    assert_eq!(get_with(&app, "/", &wish).await.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(origin.requests(), 0);
    get(&app, "/").await;
    assert_eq!(get_with(&app, "/", &wish).await.body, "answer 0");
    let stats = cache.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.unsatisfiable, stats.hits, stats.misses), (1, 1, 1));
}
