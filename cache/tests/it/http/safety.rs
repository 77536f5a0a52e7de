//! What must not be shared is not.

use escala_cache::http::{HttpCacheConfig, HttpCacheLayer, Policy};

use super::support::{Origin, answer, cache, get, get_with, request, respond, seconds, send};

fn layer() -> HttpCacheLayer {
    HttpCacheLayer::new(cache(HttpCacheConfig::default())).ttl(seconds(60))
}

#[tokio::test(start_paused = true)]
async fn what_is_not_for_all_is_not_stored() {
    let lists: [&'static [(&'static str, &'static str)]; 7] = [
        &[("cache-control", "private, max-age=60")],
        &[("cache-control", "no-store, max-age=60")],
        &[("cache-control", "max-age=60"), ("set-cookie", "session=1")],
        &[("cache-control", "max-age=60"), ("vary", "*")],
        &[("cache-control", "max-age=60"), ("vary", "accept, *")],
        &[("cache-control", "max-age=60"), ("cdn-cache-control", "no-store")],
        &[("cache-control", "max-age=0")],
    ];
    for fields in lists {
        let origin = Origin::counting(fields);
        let app = origin.behind(HttpCacheLayer::new(cache(HttpCacheConfig::default())));
        assert_eq!(get(&app, "/").await.body, "answer 0");
        assert_eq!(get(&app, "/").await.body, "answer 1", "{fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_credentials_is_stored_only_if_it_says_public() {
    let credentials = [("authorization", "Bearer secret")];
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    let app = origin.behind(layer());
    get_with(&app, "/", &credentials).await;
    assert_eq!(get(&app, "/").await.body, "answer 1");
    let origin = Origin::counting(&[("cache-control", "public, max-age=60")]);
    let app = origin.behind(layer());
    get_with(&app, "/", &credentials).await;
    assert_eq!(get(&app, "/").await.body, "answer 0");
}

#[tokio::test(start_paused = true)]
async fn one_with_credentials_does_not_mark_the_key_for_all() {
    let origin = Origin::new(|parts, n| {
        let private = parts.headers.contains_key("authorization");
        let control = if private { "private" } else { "max-age=60" };
        respond(&[("cache-control", control)], &format!("answer {n}"))
    });
    let cache = cache(HttpCacheConfig::default());
    let app = origin.behind(HttpCacheLayer::new(cache.clone()));
    get_with(&app, "/", &[("authorization", "Bearer secret")]).await;
    origin.close();
    let (first, second) = (app.clone(), app.clone());
    let first = tokio::spawn(async move { get(&first, "/").await });
    origin.begun().await;
    origin.begun().await;
    let second = tokio::spawn(async move { get(&second, "/").await });
    super::support::settle().await;
    origin.open();
    assert_eq!(first.await.unwrap().body, second.await.unwrap().body);
    assert_eq!(cache.stats().coalesced, 1);
}

#[tokio::test(start_paused = true)]
async fn errors_and_strange_answers_are_not_kept_by_a_default_lifetime() {
    for status in [201, 302, 401, 403, 500, 503] {
        let origin = Origin::new(move |_, n| answer(status, &[], &format!("answer {n}")));
        let app = origin.behind(layer());
        get(&app, "/").await;
        assert_eq!(get(&app, "/").await.body, "answer 1", "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_events_is_not_shared_whatever_its_lifetime() {
    let origin = Origin::counting(&[("content-type", "text/event-stream; charset=utf-8")]);
    let app = origin.behind(layer());
    get(&app, "/").await;
    assert_eq!(get(&app, "/").await.body, "answer 1");
}

#[tokio::test(start_paused = true)]
async fn preconditions_that_are_the_origins_to_judge_reach_it() {
    let origin = Origin::counting(&[("cache-control", "max-age=60"), ("etag", "\"x\"")]);
    let app = origin.behind(layer());
    get(&app, "/").await;
    let asked = get_with(&app, "/", &[("if-match", "\"y\"")]).await;
    assert_eq!(asked.how(), "fwd=request; fwd-status=200");
    assert_eq!(origin.last().headers["if-match"], "\"y\"");
}

#[tokio::test(start_paused = true)]
async fn a_get_with_a_body_passes_the_cache_by() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    let app = origin.behind(layer());
    let mut with_body = request("GET", "/", &[]);
    *with_body.body_mut() = axum::body::Body::from("poison");
    assert_eq!(send(&app, with_body).await.how(), "fwd=bypass; fwd-status=200");
    assert_eq!(get(&app, "/").await.body, "answer 1");
}

#[tokio::test(start_paused = true)]
async fn clients_cannot_make_the_origin_work_unless_the_policy_says_so() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    let app = origin.behind(layer());
    get(&app, "/").await;
    for wish in ["no-cache", "max-age=0"] {
        assert!(get_with(&app, "/", &[("cache-control", wish)]).await.is_hit(), "{wish}");
    }
    let app = origin.behind(layer().policy(Policy::rfc()));
    get(&app, "/").await;
    let asked = get_with(&app, "/", &[("cache-control", "no-cache")]).await;
    assert_eq!(asked.body, "answer 2");
    assert_eq!(get(&app, "/").await.body, "answer 2", "and the answer replaces the stored one");
}

#[tokio::test(start_paused = true)]
async fn an_unsafe_request_removes_its_target_and_where_it_points() {
    let origin = Origin::new(|parts, n| {
        if parts.method == "POST" {
            return respond(&[("location", "/list"), ("content-location", "/item")], "done");
        }
        if parts.method == "DELETE" {
            return answer(500, &[], "failed");
        }
        respond(&[("cache-control", "max-age=60")], &format!("answer {n}"))
    });
    let cache = cache(HttpCacheConfig::default());
    let app = origin.behind(HttpCacheLayer::new(cache.clone()));
    let host = [("host", "shop.example")];
    for uri in ["/new", "/list", "/item", "/other"] {
        get_with(&app, uri, &host).await;
    }
    send(&app, request("DELETE", "/new", &host)).await;
    assert!(get_with(&app, "/new", &host).await.is_hit(), "an error changes nothing");
    send(&app, request("POST", "/new", &host)).await;
    for uri in ["/new", "/list", "/item"] {
        assert!(!get_with(&app, uri, &host).await.is_hit(), "{uri}");
    }
    assert!(get_with(&app, "/other", &host).await.is_hit());
    assert_eq!(cache.stats().invalidations, 3);
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_post_is_kept_for_gets_if_policy_and_answer_say_so() {
    let origin = Origin::new(|_, n| {
        let fields = [("cache-control", "max-age=60"), ("content-location", "/form")];
        respond(&fields, &format!("answer {n}"))
    });
    let host = [("host", "shop.example")];
    for (policy, expected) in [(Policy::safe(), "answer 1"), (Policy::rfc(), "answer 2")] {
        let app = origin.behind(layer().policy(policy));
        send(&app, request("POST", "/form", &host)).await;
        assert_eq!(get_with(&app, "/form", &host).await.body, expected);
    }
}
