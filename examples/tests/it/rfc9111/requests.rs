//! Sections 5.2.1 and 5.4: what a client may ask of a cache.

use super::{Scene, passing, reply};

/// Fresh for another 50 s or so, 50 s old.
const STORED: &str = "cache-control: max-age=100 | age: 50 | etag: \"a\"";
/// Stale for 50 s.
const STALE: &str = "cache-control: max-age=100 | age: 150 | etag: \"a\"";

async fn check(scene: &Scene, rows: &[(&str, &str, bool)]) {
    for (stored, request, reused) in rows {
        let found = scene.reuses("", reply(200, stored, "first"), request).await;
        assert_eq!(found, *reused, "{stored}, then {request}");
    }
}

#[tokio::test]
async fn a_request_may_want_it_younger() {
    let scene = Scene::rfc().await;
    let rows = [
        (STORED, "cache-control: max-age=80", true),
        (STORED, "cache-control: max-age=40", false),
        (STORED, "cache-control: max-age=0", false),
        (STORED, "cache-control: min-fresh=20", true),
        (STORED, "cache-control: min-fresh=80", false),
        (STORED, "cache-control: unknown", true),
        // A reload of what never changes (RFC 8246).
        ("cache-control: max-age=100, immutable | age: 50", "cache-control: max-age=0", true),
        ("cache-control: max-age=100, immutable | age: 100", "cache-control: max-age=0", false),
    ];
    check(&scene, &rows).await;
}

#[tokio::test]
async fn a_request_may_take_it_stale() {
    let scene = Scene::rfc().await;
    let must = "cache-control: max-age=100, must-revalidate | age: 150 | etag: \"a\"";
    let shared = "cache-control: s-maxage=100 | age: 150 | etag: \"a\"";
    let no_cache = "cache-control: no-cache, max-age=100 | age: 150 | etag: \"a\"";
    let rows = [
        (STALE, "", false),
        (STALE, "cache-control: max-stale", true),
        (STALE, "cache-control: max-stale=100", true),
        (STALE, "cache-control: max-stale=20", false),
        (must, "cache-control: max-stale", false),
        (shared, "cache-control: max-stale", false),
        (no_cache, "cache-control: max-stale", false),
    ];
    check(&scene, &rows).await;
}

#[tokio::test]
async fn a_request_may_want_the_origin_asked() {
    let scene = Scene::rfc().await;
    let rows = [
        (STORED, "cache-control: no-cache", false),
        (STORED, "cache-control: No-Cache", false),
        (STORED, "pragma: no-cache", false),
        (STORED, "pragma: no-cache | cache-control: max-stale", true),
        (STORED, "pragma: unknown", true),
    ];
    check(&scene, &rows).await;
    // Asked, not thrown away: a 304 is enough.
    let path = scene.path();
    scene.fetch(&path, "", reply(200, STORED, "first")).await;
    let confirmed = crate::proxy::Reply::new(304).header("ETag", "\"a\"");
    let answer = scene.fetch(&path, "cache-control: no-cache", confirmed).await;
    assert_eq!((answer.status, answer.text()), (200, "first"));
}

#[tokio::test]
async fn a_request_may_want_nothing_but_what_is_stored() {
    let scene = Scene::rfc().await;
    let only = "cache-control: only-if-cached";
    check(&scene, &[(STORED, only, true)]).await;
    for stored in [None, Some(STALE)] {
        let path = scene.path();
        if let Some(line) = stored {
            scene.fetch(&path, "", reply(200, line, "first")).await;
        }
        let before = scene.asked(&path);
        assert_eq!(scene.get(&path, only).await.status, 504, "{stored:?}");
        assert_eq!(scene.asked(&path), before);
    }
    let path = scene.path();
    scene.fetch(&path, "", reply(200, STALE, "first")).await;
    let answer = scene.get(&path, "cache-control: only-if-cached, max-stale").await;
    assert_eq!((answer.status, answer.text()), (200, "first"));
}

#[tokio::test]
async fn in_the_safe_profile_a_client_cannot_make_the_origin_work() {
    let scene = Scene::start("--profile safe").await;
    let rows = [
        (STORED, "cache-control: no-cache", true),
        (STORED, "cache-control: max-age=0", true),
        (STORED, "cache-control: min-fresh=80", true),
        (STORED, "pragma: no-cache", true),
        (STALE, "cache-control: max-stale", true),
    ];
    check(&scene, &rows).await;
    assert_eq!(scene.get(&scene.path(), "cache-control: only-if-cached").await.status, 504);
    let first = reply(200, "cache-control: max-age=60", "first");
    assert!(!scene.reuses("cache-control: no-store", first, "").await);
}

#[tokio::test]
async fn in_the_safe_profile_nothing_is_shared_that_was_not_plainly_meant_to_be() {
    let scene = Scene::start("--profile safe").await;
    let old = format!("last-modified: {}", super::date(-1_000_000));
    for (status, line, reused) in [
        (200, "cache-control: max-age=60", true),
        (404, "cache-control: max-age=60", true),
        (200, old.as_str(), false),
        (200, "cache-control: max-age=60 | set-cookie: a=1", false),
        (500, "cache-control: max-age=60", false),
        (403, "cache-control: max-age=60", false),
    ] {
        let row = format!("{status} {line}");
        assert_eq!(scene.reuses("", reply(status, line, "x"), "").await, reused, "{row}");
    }
    for (line, reused) in [
        ("cache-control: s-maxage=60", false),
        ("cache-control: max-age=60, must-revalidate", false),
        ("cache-control: max-age=60, public", true),
    ] {
        let stored = scene.reuses("authorization: Basic dXNlcg==", reply(200, line, "x"), "");
        assert_eq!(stored.await, reused, "{line}");
    }
    // Unreachable is unreachable.
    let path = scene.path();
    scene.fetch(&path, "", reply(200, STALE, "old")).await;
    let answer = scene.fetch(&path, "", crate::proxy::Reply::raw("").close()).await;
    assert_eq!(answer.status, 502);
    assert_eq!(scene.fetch(&path, "", passing("new")).await.text(), "new");
}
