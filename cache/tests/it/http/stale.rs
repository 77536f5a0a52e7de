//! Revalidation, and what is served past its lifetime.

use std::time::Duration;

use axum::Router;
use escala_cache::http::{HttpCache, HttpCacheConfig, HttpCacheLayer};
use http::StatusCode;

use super::support::{
    Interrupted, Origin, answer, assert_adds_up, cache, get, get_with, respond, seconds, settle,
};

fn stack(origin: &Origin) -> (HttpCache, Router) {
    let cache = cache(HttpCacheConfig::default());
    let app = origin.behind(HttpCacheLayer::new(cache.clone()));
    (cache, app)
}

#[tokio::test(start_paused = true)]
async fn a_304_freshens_the_stored_response_and_keeps_its_body() {
    let origin = Origin::new(|parts, n| {
        let number = n.to_string();
        let fields = [("cache-control", "max-age=60"), ("etag", "\"v1\""), ("x-number", &number)];
        if parts.headers.get("if-none-match").is_some_and(|tag| tag == "\"v1\"") {
            answer(304, &fields, "")
        } else {
            respond(&fields, "the body")
        }
    });
    let (cache, app) = stack(&origin);
    get(&app, "/").await;
    tokio::time::advance(seconds(61)).await;
    let confirmed = get(&app, "/").await;
    assert_eq!((confirmed.status, confirmed.body.as_str()), (StatusCode::OK, "the body"));
    assert_eq!(confirmed.field("x-number"), "1");
    assert!(confirmed.how().starts_with("fwd=stale; fwd-status=304"), "{}", confirmed.how());
    tokio::time::advance(seconds(30)).await;
    let hit = get(&app, "/").await;
    assert_eq!(
        (hit.body.as_str(), hit.field("x-number"), hit.field("age")),
        ("the body", "1", "30")
    );
    let stats = cache.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.revalidated, stats.hits, stats.misses, stats.stored), (1, 1, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_clients_own_condition_is_judged_after_the_origins_word() {
    let origin = Origin::new(|parts, _| {
        let fields = [("cache-control", "max-age=60"), ("etag", "\"v1\"")];
        match parts.headers.get("if-none-match") {
            Some(tag) if tag == "\"v1\"" => answer(304, &fields, ""),
            Some(tag) => panic!("asked with the client's {tag:?}"),
            None => respond(&fields, "the body"),
        }
    });
    let (_, app) = stack(&origin);
    get(&app, "/").await;
    for (tag, status) in [("\"v0\"", StatusCode::OK), ("\"v1\"", StatusCode::NOT_MODIFIED)] {
        tokio::time::advance(seconds(61)).await;
        assert_eq!(get_with(&app, "/", &[("if-none-match", tag)]).await.status, status);
    }
}

#[tokio::test(start_paused = true)]
async fn no_cache_is_validated_each_time_and_a_new_answer_replaces_it() {
    let origin = Origin::new(|parts, n| {
        let fields = [("cache-control", "no-cache"), ("etag", "\"v1\"")];
        match parts.headers.get("if-none-match") {
            Some(_) if n < 3 => answer(304, &fields, ""),
            _ => respond(&fields, &format!("answer {n}")),
        }
    });
    let (_, app) = stack(&origin);
    for expected in ["answer 0", "answer 0", "answer 0", "answer 3"] {
        assert_eq!(get(&app, "/").await.body, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_304_about_something_else_makes_the_cache_ask_again() {
    let origin = Origin::new(|parts, n| {
        let fields = [("cache-control", "max-age=60"), ("etag", "\"v1\"")];
        if parts.headers.contains_key("if-none-match") {
            answer(304, &[("etag", "\"v9\"")], "")
        } else {
            respond(&fields, &format!("answer {n}"))
        }
    });
    let (_, app) = stack(&origin);
    get(&app, "/").await;
    tokio::time::advance(seconds(61)).await;
    let got = get(&app, "/").await;
    assert_eq!((got.status, got.body.as_str()), (StatusCode::OK, "answer 2"));
}

#[tokio::test(start_paused = true)]
async fn a_stale_response_is_served_while_one_request_revalidates_it() {
    let origin = Origin::counting(&[("cache-control", "max-age=60, stale-while-revalidate=60")]);
    let (cache, app) = stack(&origin);
    get(&app, "/").await;
    tokio::time::advance(seconds(90)).await;
    origin.begun().await;
    origin.close();
    for _ in 0..3 {
        let stale = get(&app, "/").await;
        assert_eq!((stale.body.as_str(), &*stale.how()), ("answer 0", "hit; ttl=-30"));
    }
    origin.begun().await;
    assert_eq!(origin.requests(), 2, "one for all");
    assert_eq!(cache.stats().revalidations_in_flight, 1);
    origin.open();
    settle().await;
    let fresh = get(&app, "/").await;
    assert_eq!((fresh.body.as_str(), &*fresh.how()), ("answer 1", "hit; ttl=60"));
    let stats = cache.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.stale, stats.revalidations), (3, 1));
    assert_eq!((stats.revalidations_in_flight, stats.flights), (0, 0));
}

/// At each look at the clock during one request, another is served and its revalidation ends.
#[tokio::test]
async fn a_stale_response_that_was_revalidated_meanwhile_is_not_again() {
    for look in 1.. {
        let origin =
            Origin::counting(&[("cache-control", "max-age=60, stale-while-revalidate=60")]);
        let (clock, cache) = Interrupted::cache();
        let app = origin.behind(HttpCacheLayer::new(cache.clone()));
        get(&app, "/").await;
        clock.forward(90);
        let other = app.clone();
        clock.interrupt(look, async move { drop(get(&other, "/").await) });
        let got = get(&app, "/").await;
        assert_eq!(origin.requests(), 2, "look {look}");
        assert_eq!(cache.stats().revalidations, 1, "look {look}");
        assert!(got.is_hit(), "look {look}: {}", got.how());
        assert_adds_up(&cache.stats());
        if !clock.has_interrupted() {
            assert!(look > 3, "{look} looks only");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_revalidations_than_allowed_run_at_once_and_none_for_ever() {
    let origin = Origin::counting(&[("cache-control", "max-age=60, stale-while-revalidate=600")]);
    let config = HttpCacheConfig::default().revalidations(2).revalidation_timeout(seconds(10));
    let cache = cache(config);
    let app = origin.behind(HttpCacheLayer::new(cache.clone()));
    for uri in ["/a", "/b", "/c"] {
        get(&app, uri).await;
    }
    tokio::time::advance(seconds(90)).await;
    origin.close();
    for uri in ["/a", "/b", "/c"] {
        assert!(get(&app, uri).await.is_hit());
    }
    let stats = cache.stats();
    assert_eq!((stats.revalidations_in_flight, stats.revalidations_skipped), (2, 1));
    tokio::time::sleep(seconds(11)).await;
    settle().await;
    let stats = cache.stats();
    assert_eq!((stats.revalidations_in_flight, stats.flights), (0, 0));
    assert!(get(&app, "/a").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_stale_response_stands_in_for_an_error_as_long_as_it_may() {
    let origin = Origin::counting(&[("cache-control", "max-age=60, stale-if-error=60")]);
    let (cache, app) = stack(&origin);
    get(&app, "/").await;
    tokio::time::advance(seconds(90)).await;
    for status in [500, 502, 503, 504] {
        origin.set(move |_, _| answer(status, &[], "broken"));
        let got = get(&app, "/").await;
        assert_eq!((got.status, got.body.as_str()), (StatusCode::OK, "answer 0"), "{status}");
        assert!(got.how().starts_with(&format!("fwd=stale; fwd-status={status}")));
    }
    origin.set(|_, _| answer(404, &[], "gone"));
    assert_eq!(get(&app, "/").await.status, StatusCode::NOT_FOUND, "that is no failure");
    tokio::time::advance(seconds(31)).await;
    origin.set(|_, _| answer(503, &[], "broken"));
    assert_eq!(get(&app, "/").await.body, "broken");
    let stats = cache.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.stale, stats.misses), (4, 3));
}

#[tokio::test(start_paused = true)]
async fn a_stale_response_stands_in_for_an_origin_that_hangs() {
    let origin = Origin::counting(&[("cache-control", "max-age=60, stale-if-error=600")]);
    let (cache, app) = stack(&origin);
    get(&app, "/").await;
    tokio::time::advance(seconds(90)).await;
    origin.close();
    let (one, two) = tokio::join!(get(&app, "/"), get(&app, "/"));
    assert_eq!((one.body.as_str(), two.body.as_str()), ("answer 0", "answer 0"));
    assert_eq!(cache.stats().wait_timeouts, 2);
    // The question is still open, and its answer is for the next ones.
    origin.open();
    settle().await;
    assert_eq!(get(&app, "/").await.body, "answer 1");
}

#[tokio::test(start_paused = true)]
async fn must_revalidate_is_never_served_stale() {
    let origin = Origin::counting(&[(
        "cache-control",
        "max-age=60, must-revalidate, stale-if-error=600, stale-while-revalidate=600",
    )]);
    let (_, app) = stack(&origin);
    get(&app, "/").await;
    tokio::time::advance(seconds(61)).await;
    origin.set(|_, _| answer(503, &[], "broken"));
    assert_eq!(get(&app, "/").await.body, "broken");
}

#[tokio::test(start_paused = true)]
async fn a_client_may_allow_itself_a_stale_response() {
    let origin = Origin::counting(&[("cache-control", "max-age=60"), ("etag", "\"x\"")]);
    let (_, app) = stack(&origin);
    get(&app, "/").await;
    tokio::time::advance(Duration::from_secs(90)).await;
    let stale = get_with(&app, "/", &[("cache-control", "max-stale=60")]).await;
    assert_eq!(stale.body, "answer 0");
    assert_eq!(get(&app, "/").await.body, "answer 1");
}
