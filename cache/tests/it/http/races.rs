//! What happens at once: answers under way while their target is removed, replaced or asked again.

use std::sync::Arc;

use axum::Router;
use axum::body::Body as AxumBody;
use bytes::Bytes;
use escala_cache::http::{HttpCacheConfig, HttpCacheLayer, Policy};
use http::Response;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tower::ServiceExt;

use super::bodies::{Piece, Piecewise};
use super::cancel::dropped_after;
use super::shared::process;
use super::support::{
    Got, Interrupted, Origin, answer, cache, get, get_with, request, respond, seconds, send, settle,
};
use crate::support::FakeStore;

type Fields = &'static [(&'static str, &'static str)];

const FRESH: Fields = &[("cache-control", "max-age=600"), ("surrogate-key", "all")];
const VARIANTS: Fields =
    &[("cache-control", "max-age=600"), ("surrogate-key", "all"), ("vary", "accept-language")];

/// An origin with two answers, whose bodies the test sends.
fn two_bodies(fields: Fields) -> (Origin, mpsc::Sender<Piece>, mpsc::Sender<Piece>) {
    let ((first, one), (second, two)) = (mpsc::channel(4), mpsc::channel(4));
    let bodies = Mutex::new(vec![two, one]);
    let origin = Origin::new(move |_, _| {
        let mut response = Response::builder();
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let body = bodies.lock().pop().expect("the origin is asked twice");
        response.body(AxumBody::new(Piecewise(body))).unwrap()
    });
    (origin, first, second)
}

/// A request whose answer's head has come.
async fn open(app: &Router) -> AxumBody {
    app.clone().oneshot(request("GET", "/", &[])).await.unwrap().into_body()
}

fn asks(app: &Router) -> JoinHandle<Got> {
    let app = app.clone();
    tokio::spawn(async move { get(&app, "/").await })
}

async fn finish(sender: mpsc::Sender<Piece>, text: &'static str) {
    sender.send(Ok(Bytes::from(text))).await.unwrap();
    drop(sender);
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_took_long_does_not_replace_a_newer_one() {
    for fields in [FRESH, VARIANTS] {
        let (origin, first, second) = two_bodies(fields);
        let app = origin.behind(HttpCacheLayer::new(cache(HttpCacheConfig::default())));
        let old = open(&app).await;
        // Quiet for longer than others wait for it.
        tokio::time::sleep(seconds(6)).await;
        let new = asks(&app);
        settle().await;
        finish(second, "new").await;
        assert_eq!(new.await.unwrap().body, "new");
        finish(first, "old").await;
        assert_eq!(old.collect().await.unwrap().to_bytes(), "old");
        settle().await;
        assert_eq!(get(&app, "/").await.body, "new");
        assert_eq!(origin.requests(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_softly_purged_while_it_comes_is_not_fresh_once_it_is_there() {
    for fields in [FRESH, VARIANTS] {
        let (store, (origin, first, second)) = (FakeStore::default(), two_bodies(fields));
        let (cache, app) = process(&store, &origin);
        let old = open(&app).await;
        assert!(cache.soft_purge_tag(None, "all").await.is_complete());
        finish(first, "old").await;
        assert_eq!(old.collect().await.unwrap().to_bytes(), "old");
        settle().await;
        let new = asks(&app);
        settle().await;
        assert_eq!(origin.requests(), 2, "{fields:?}");
        finish(second, "new").await;
        assert_eq!(new.await.unwrap().body, "new");
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_process_purges_while_it_comes_reaches_no_third_one() {
    for fields in [FRESH, VARIANTS] {
        let (store, (origin, first, _second)) = (FakeStore::default(), two_bodies(fields));
        let (_, one) = process(&store, &origin);
        let (two, _) = process(&store, &origin);
        let (_, third) = process(&store, &origin);
        let old = open(&one).await;
        store.lose_messages(true);
        assert!(two.purge_tag(None, "all").await.is_complete());
        finish(first, "old").await;
        assert_eq!(old.collect().await.unwrap().to_bytes(), "old");
        settle().await;
        let cached = get_with(&third, "/", &[("cache-control", "only-if-cached")]).await;
        assert_eq!(cached.status, 504, "{fields:?}: {}", cached.body);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_client_goes_away_after_its_answer_removes_its_target() {
    let mut written = 0;
    for steps in 0..400 {
        let (store, origin) = (FakeStore::default(), Origin::counting(FRESH));
        let (_, app) = process(&store, &origin);
        get(&app, "/").await;
        if dropped_after(&app, "POST", steps).await {
            assert!(written > 0, "it ends at once");
            return;
        }
        tokio::time::sleep(seconds(1)).await;
        if origin.requests() > 1 {
            written += 1;
            assert!(!get(&app, "/").await.is_hit(), "after {steps} steps");
        }
    }
    panic!("it never ends");
}

#[tokio::test]
async fn a_304_does_not_bring_back_what_was_purged_meanwhile() {
    for look in 1.. {
        let origin = Origin::new(|parts, n| {
            let fields = [("cache-control", "max-age=60"), ("etag", "\"v1\"")];
            if parts.headers.contains_key("if-none-match") {
                answer(304, &fields, "")
            } else {
                respond(&fields, &format!("answer {n}"))
            }
        });
        let (clock, cache) = Interrupted::cache();
        let app = origin.behind(HttpCacheLayer::new(cache.clone()));
        get(&app, "/").await;
        clock.forward(90);
        clock.interrupt(look, async move {
            assert!(cache.purge_uri(None, &"/".parse().unwrap()).await.is_complete());
        });
        get(&app, "/").await;
        if !clock.has_interrupted() {
            assert!(look > 3, "{look} looks only");
            return;
        }
        assert_ne!(get(&app, "/").await.body, "answer 0", "look {look}");
    }
}

#[tokio::test]
async fn the_answer_to_a_head_does_not_bring_back_what_was_replaced_meanwhile() {
    for look in 1.. {
        let origin = Origin::counting(&[("cache-control", "max-age=60, stale-if-error=600")]);
        let (clock, cache) = Interrupted::cache();
        let app = origin.behind(HttpCacheLayer::new(cache.clone()));
        get(&app, "/").await;
        clock.forward(90);
        let (other, later, got) =
            (app.clone(), Arc::clone(&clock), Arc::<Mutex<String>>::default());
        let told = Arc::clone(&got);
        clock.interrupt(look, async move {
            later.forward(1);
            *told.lock() = get(&other, "/").await.body;
        });
        send(&app, request("HEAD", "/", &[])).await;
        if !clock.has_interrupted() {
            assert!(look > 3, "{look} looks only");
            return;
        }
        // Right after it was found stale: what is fresh by then answers.
        assert!(look != 2 || origin.requests() == 2, "{} requests", origin.requests());
        // What the other one got, which may be the old one once the answer has confirmed it.
        assert_eq!(get(&app, "/").await.body, *got.lock(), "look {look}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_the_head_gets_nothing_that_has_to_be_validated() {
    let cases: [(Fields, u64); 2] = [
        (&[("cache-control", "no-cache"), ("etag", "\"v1\"")], 0),
        (&[("cache-control", "max-age=1, must-revalidate"), ("etag", "\"v1\"")], 4),
    ];
    for (fields, age) in cases {
        let (origin, first, second) = two_bodies(fields);
        let app = origin.behind(HttpCacheLayer::new(cache(HttpCacheConfig::default())));
        let early = open(&app).await;
        tokio::time::sleep(seconds(age)).await;
        let late = [asks(&app), asks(&app)];
        settle().await;
        assert_eq!(origin.requests(), 2, "one for both: {fields:?}");
        finish(second, "validated").await;
        for late in late {
            assert_eq!(late.await.unwrap().body, "validated");
        }
        finish(first, "early").await;
        assert_eq!(early.collect().await.unwrap().to_bytes(), "early");
    }
}

/// A process in which the removal of a tag is under way, as each write has it.
async fn while_removing(store: &FakeStore, app: &Router, ask: impl AsyncFnOnce()) {
    let gate = store.gate_records();
    let writer = app.clone();
    let write = tokio::spawn(async move { send(&writer, request("POST", "/b", &[])).await });
    gate.arrived().await;
    ask().await;
    gate.open();
    write.await.unwrap();
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_during_a_write_elsewhere_is_kept_in_memory() {
    let (store, origin) = (FakeStore::default(), Origin::counting(FRESH));
    let (cache, app) = process(&store, &origin);
    // The first one writes a record as well.
    get(&app, "/first").await;
    while_removing(&store, &app, async || {
        get(&app, "/a").await;
        assert!(get(&app, "/a").await.is_hit());
        assert_eq!((cache.stats().stored, cache.stats().discarded), (2, 0));
    })
    .await;
    assert!(get(&app, "/a").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_variant_asked_for_during_a_write_elsewhere_does_not_hide_the_others() {
    let (store, origin) = (FakeStore::default(), Origin::counting(VARIANTS));
    let (_, first) = process(&store, &origin);
    let (_, cold) = process(&store, &origin);
    let (_, third) = process(&store, &origin);
    let german = [("accept-language", "de")];
    let body = get_with(&first, "/", &german).await.body;
    while_removing(&store, &cold, async || {
        get_with(&cold, "/", &[("accept-language", "en")]).await;
    })
    .await;
    let cached = [("accept-language", "de"), ("cache-control", "only-if-cached")];
    assert_eq!(get_with(&third, "/", &cached).await.body, body);
    assert_eq!(get_with(&first, "/", &german).await.body, body);
}

/// Of two who validate it at once the second does not take the first one's word for a replacement.
#[tokio::test]
async fn what_is_only_confirmed_meanwhile_is_not_asked_for_whole() {
    for look in 1.. {
        let origin = Origin::new(|parts, _| {
            let fields = [("cache-control", "no-cache"), ("etag", "\"v1\"")];
            match parts.headers.contains_key("if-none-match") {
                true => answer(304, &fields, ""),
                false => respond(&fields, "the body"),
            }
        });
        let (clock, cache) = Interrupted::cache();
        let app = origin.behind(HttpCacheLayer::new(cache));
        get(&app, "/").await;
        clock.forward(1);
        let (other, later) = (app.clone(), Arc::clone(&clock));
        clock.interrupt(look, async move {
            later.forward(1);
            get(&other, "/").await;
        });
        get(&app, "/").await;
        if !clock.has_interrupted() {
            assert!(look > 3, "{look} looks only");
            return;
        }
        assert!(origin.last().headers.contains_key("if-none-match"), "look {look}");
    }
}

#[tokio::test]
async fn what_was_asked_for_by_a_clock_that_was_set_back_can_be_replaced() {
    let origin = Origin::counting(&[("cache-control", "max-age=60"), ("etag", "\"v1\"")]);
    let (clock, cache) = Interrupted::cache();
    // By which clients may ask for a reload.
    let app = origin.behind(HttpCacheLayer::new(cache.clone()).policy(Policy::rfc()));
    clock.forward(3_600);
    get(&app, "/").await;
    clock.back(3_600);
    let reload = [("cache-control", "no-cache")];
    assert_eq!(get_with(&app, "/", &reload).await.body, "answer 1");
    assert_eq!((cache.stats().stored, cache.stats().discarded), (2, 0));
}
