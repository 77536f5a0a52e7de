//! Requests that miss together.

use std::sync::Arc;

use axum::Router;
use escala_cache::http::{HttpCache, HttpCacheConfig, HttpCacheLayer};
use http::StatusCode;
use tokio::task::JoinSet;

use super::support::{
    Got, Origin, answer, assert_adds_up, cache, get, get_with, respond, seconds, settle,
};

fn stack(origin: &Origin) -> (HttpCache, Router) {
    let cache = cache(HttpCacheConfig::default());
    let app = origin.behind(HttpCacheLayer::new(cache.clone()));
    (cache, app)
}

/// This many requests, begun.
async fn many(app: &Router, count: usize) -> JoinSet<Got> {
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let app = app.clone();
        tasks.spawn(async move { get(&app, "/").await });
    }
    settle().await;
    tasks
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_of_a_cold_key_cause_one_request() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    origin.close();
    let (cache, app) = stack(&origin);
    let tasks = many(&app, 10_000).await;
    origin.open();
    for got in tasks.join_all().await {
        assert_eq!(got.body, "answer 0");
    }
    assert_eq!(origin.requests(), 1);
    let stats = cache.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.requests, stats.misses, stats.stored), (10_000, 1, 1));
    assert_eq!(stats.coalesced + stats.hits, 9_999);
    assert_eq!((stats.in_flight, stats.flights), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_follower_is_told_apart_from_its_leader() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    origin.close();
    let (_, app) = stack(&origin);
    let tasks = many(&app, 2).await;
    origin.open();
    let mut hows: Vec<_> = tasks.join_all().await.iter().map(|got| got.how()).collect();
    hows.sort();
    assert_eq!(hows, ["fwd=uri-miss; collapsed; ttl=60", "fwd=uri-miss; fwd-status=200; stored"]);
}

#[tokio::test(start_paused = true)]
async fn uncacheable_answers_are_never_queued_for_once_that_is_known() {
    let origin = Origin::counting(&[("cache-control", "private")]);
    let (cache, app) = stack(&origin);
    get(&app, "/").await;
    origin.close();
    let tasks = many(&app, 100).await;
    // All of them are at the origin now: none waits for another.
    assert_eq!(origin.requests(), 101);
    origin.open();
    tasks.join_all().await;
    let stats = cache.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.misses, stats.coalesced), (101, 0));
}

#[tokio::test(start_paused = true)]
async fn followers_of_an_uncacheable_answer_go_to_the_origin_together() {
    let origin = Origin::counting(&[("cache-control", "no-store")]);
    origin.close();
    let (_, app) = stack(&origin);
    let tasks = many(&app, 50).await;
    assert_eq!(origin.requests(), 1);
    origin.let_through(1);
    settle().await;
    assert_eq!(origin.requests(), 50);
    origin.open();
    let mut bodies: Vec<_> = tasks.join_all().await.into_iter().map(|got| got.body).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 50, "each has its own");
}

#[tokio::test(start_paused = true)]
async fn a_mark_ends_and_ends_early_when_an_answer_is_stored() {
    let origin = Origin::counting(&[("cache-control", "no-store")]);
    let (cache, app) = stack(&origin);
    get(&app, "/").await;
    assert_eq!(cache.stats().hit_for_miss, 1);
    origin.set(|_, n| respond(&[("cache-control", "max-age=1")], &format!("answer {n}")));
    get(&app, "/").await;
    tokio::time::advance(seconds(2)).await;
    origin.close();
    let before = origin.requests();
    let tasks = many(&app, 10).await;
    assert_eq!(origin.requests(), before + 1, "they wait for each other again");
    origin.open();
    tasks.join_all().await;

    origin.set(|_, _| respond(&[("cache-control", "no-store")], ""));
    get(&app, "/other").await;
    tokio::time::advance(seconds(121)).await;
    origin.close();
    let before = origin.requests();
    let mut tasks = JoinSet::new();
    for _ in 0..10 {
        let app = app.clone();
        tasks.spawn(async move { get(&app, "/other").await });
    }
    settle().await;
    assert_eq!(origin.requests(), before + 1);
    origin.open();
    tasks.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_aborted_takes_nothing_from_its_fifty_followers() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    origin.close();
    let (cache, app) = stack(&origin);
    let leader = app.clone();
    let leader = tokio::spawn(async move { get(&leader, "/").await });
    origin.begun().await;
    let tasks = many(&app, 50).await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    origin.open();
    for got in tasks.join_all().await {
        assert_eq!(got.body, "answer 0");
    }
    assert_eq!(origin.requests(), 1);
    let stats = cache.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.cancelled, stats.coalesced), (1, 50));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_panics_hangs_nobody_and_panics_where_it_was_called() {
    let origin = Origin::new(|_, n| {
        assert!(n > 0, "the first one fails");
        respond(&[("cache-control", "max-age=60")], &format!("answer {n}"))
    });
    origin.close();
    let (cache, app) = stack(&origin);
    let leader = app.clone();
    let leader = tokio::spawn(async move { get(&leader, "/").await });
    origin.begun().await;
    let tasks = many(&app, 5).await;
    origin.open();
    assert!(leader.await.unwrap_err().is_panic());
    for got in tasks.join_all().await {
        assert_eq!(got.status, StatusCode::OK);
    }
    let stats = cache.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.failed, stats.flights, stats.in_flight), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn followers_of_an_origin_that_hangs_leave_after_the_bounded_wait() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    origin.close();
    let (cache, app) = stack(&origin);
    let tasks = many(&app, 10).await;
    assert_eq!(origin.requests(), 1);
    tokio::time::sleep(seconds(6)).await;
    settle().await;
    assert_eq!(origin.requests(), 10, "each asks for itself now");
    let late = many(&app, 3).await;
    assert_eq!(origin.requests(), 13, "and nobody waits so long again");
    assert_eq!(cache.stats().wait_timeouts, 9);
    origin.open();
    tasks.join_all().await;
    late.join_all().await;
    let stats = cache.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.in_flight, stats.flights), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_question_that_hangs_is_dropped_once_nobody_waits_for_it() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    origin.close();
    let (cache, app) = stack(&origin);
    let mut tasks = many(&app, 3).await;
    tokio::time::sleep(seconds(2)).await;
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    assert_eq!(cache.stats().flights, 1, "it may still answer, and fill the store");
    tokio::time::sleep(seconds(60)).await;
    assert_eq!(cache.stats().flights, 0);
    origin.open();
    settle().await;
    assert_eq!(origin.ended(), 0);
    let stats = cache.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.cancelled, stats.in_flight), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn followers_that_need_another_variant_share_that_one() {
    let origin = Origin::new(|parts, n| {
        let language = parts.headers["accept-language"].to_str().unwrap().to_owned();
        respond(
            &[("cache-control", "max-age=60"), ("vary", "accept-language")],
            &format!("{language} {n}"),
        )
    });
    origin.close();
    let (_, app) = stack(&origin);
    let mut tasks = JoinSet::new();
    for n in 0..100 {
        let app = app.clone();
        let language = if n % 2 == 0 { "de" } else { "en" };
        tasks.spawn(async move {
            let got = get_with(&app, "/", &[("accept-language", language)]).await;
            assert!(got.body.starts_with(language), "{}", got.body);
        });
    }
    settle().await;
    assert_eq!(origin.requests(), 1, "that there are variants is not known yet");
    origin.open();
    tasks.join_all().await;
    assert_eq!(origin.requests(), 2);
}

/// One of the ways to purge what the origins of these tests answer.
async fn purge(cache: &HttpCache, how: usize) {
    let uri = "/".parse().unwrap();
    let removal = match how {
        0 => cache.purge_uri(None, &uri).await,
        1 => cache.purge_tag(None, "all").await,
        _ => cache.clear().await,
    };
    assert!(removal.is_complete());
}

const TAGGED: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("surrogate-key", "all")];
const VARYING: &[(&str, &str)] =
    &[("cache-control", "max-age=60"), ("surrogate-key", "all"), ("vary", "accept")];

#[tokio::test(start_paused = true)]
async fn a_purge_while_the_origin_is_asked_wins() {
    for (how, fields) in (0..3).flat_map(|how| [(how, TAGGED), (how, VARYING)]) {
        let origin = Origin::counting(fields);
        origin.close();
        let (cache, app) = stack(&origin);
        let before = many(&app, 1).await;
        purge(&cache, how).await;
        origin.let_through(1);
        assert_eq!(before.join_all().await[0].body, "answer 0");
        settle().await;
        origin.open();
        assert_eq!(get(&app, "/").await.body, "answer 1", "purge {how}, {fields:?}");
        assert!(get(&app, "/").await.is_hit());
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_a_purge_joins_nothing_from_before_it() {
    for (how, fields) in (0..3).flat_map(|how| [(how, TAGGED), (how, VARYING)]) {
        let origin = Origin::counting(fields);
        origin.close();
        let (cache, app) = stack(&origin);
        let before = many(&app, 1).await;
        purge(&cache, how).await;
        let after = many(&app, 1).await;
        assert_eq!(origin.requests(), 2, "purge {how}, {fields:?}");
        origin.open();
        assert_eq!(before.join_all().await[0].body, "answer 0");
        assert_eq!(after.join_all().await[0].body, "answer 1");
        assert_eq!(get(&app, "/").await.body, "answer 1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_while_a_body_is_under_way_wins() {
    for (how, fields) in (0..3).flat_map(|how| [(how, TAGGED), (how, VARYING)]) {
        let (origin, sender) = super::bodies::piecewise(fields);
        let (cache, app) = stack(&origin);
        let reading = many(&app, 1).await;
        sender.send(Ok("old".into())).await.unwrap();
        settle().await;
        purge(&cache, how).await;
        drop(sender);
        assert_eq!(reading.join_all().await[0].body, "old");
        settle().await;
        let cached = get_with(&app, "/", &[("cache-control", "only-if-cached")]).await;
        assert_eq!(cached.status, StatusCode::GATEWAY_TIMEOUT, "purge {how}, {fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn collapsing_can_be_turned_off() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    origin.close();
    let mut config = HttpCacheConfig::default();
    config.collapse = false;
    let app = origin.behind(HttpCacheLayer::new(cache(config)));
    let tasks = many(&app, 3).await;
    assert_eq!(origin.requests(), 3);
    origin.open();
    tasks.join_all().await;
    assert!(get(&app, "/").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn followers_of_a_failure_with_a_stale_copy_share_the_copy() {
    let origin = Origin::counting(&[("cache-control", "max-age=60, stale-if-error=600")]);
    let (cache, app) = stack(&origin);
    get(&app, "/").await;
    tokio::time::advance(seconds(61)).await;
    origin.set(|_, _| answer(503, &[], "broken"));
    origin.close();
    let tasks = many(&app, 20).await;
    origin.open();
    let bodies: Arc<[String]> = tasks.join_all().await.into_iter().map(|got| got.body).collect();
    assert!(bodies.iter().all(|body| body == "answer 0"));
    assert_eq!(origin.requests(), 2);
    assert_eq!(cache.stats().stale, 20);
}
