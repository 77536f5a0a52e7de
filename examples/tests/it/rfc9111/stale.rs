//! Sections 4.2.4, 5.2.2.2, 5.2.2.8, 5.2.2.10 and RFC 5861: what may be served stale, and what not.

use super::{Scene, passing, reply};
use crate::proxy::Reply;

/// Stored stale: it was old when it came.
fn stale(directives: &str, body: &str) -> Reply {
    reply(200, &format!("cache-control: max-age=10{directives} | age: 20 | etag: \"a\""), body)
}

#[tokio::test]
async fn a_stale_response_is_not_served_while_the_origin_answers() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    scene.fetch(&path, "", stale("", "old")).await;
    assert_eq!(scene.fetch(&path, "", passing("new")).await.text(), "new");
    // Nor instead of an answer that only looks like a failure.
    for status in [403, 404, 410, 501] {
        let path = scene.path();
        scene.fetch(&path, "", stale("", "old")).await;
        assert_eq!(scene.fetch(&path, "", reply(status, "", "")).await.status, status);
    }
    // Nor, unless the origin or the profile allows it, instead of an error.
    let scene = Scene::start("--profile safe").await;
    let path = scene.path();
    scene.fetch(&path, "", stale("", "old")).await;
    assert_eq!(scene.fetch(&path, "", reply(503, "", "away")).await.status, 503);
}

#[tokio::test]
async fn a_stale_response_is_served_when_the_origin_cannot_be_reached() {
    let scene = Scene::rfc().await;
    // A failed validation may count as no answer at all (section 4.3.3).
    let path = scene.path();
    scene.fetch(&path, "", stale("", "old")).await;
    assert_eq!(scene.fetch(&path, "", reply(503, "", "away")).await.text(), "old");
    let path = scene.path();
    scene.fetch(&path, "", stale("", "old")).await;
    let answer = scene.fetch(&path, "", Reply::raw("").close()).await;
    assert_eq!((answer.status, answer.text()), (200, "old"));
    assert_eq!(answer.header("age").map(|age| age.parse::<u64>().expect("age") >= 20), Some(true));
}

#[tokio::test]
async fn a_response_that_must_be_validated_is_never_served_without() {
    let scene = Scene::rfc().await;
    for (line, body) in [
        ("cache-control: max-age=10, must-revalidate | age: 20 | etag: \"a\"", "a"),
        ("cache-control: max-age=10, proxy-revalidate | age: 20 | etag: \"a\"", "b"),
        ("cache-control: s-maxage=10 | age: 20 | etag: \"a\"", "c"),
        ("cache-control: max-age=60, no-cache | etag: \"a\"", "d"),
        ("cache-control: no-cache | etag: \"a\"", "e"),
        (
            "cache-control: max-age=10, must-revalidate, stale-if-error=60 | age: 20 | etag: \"a\"",
            "f",
        ),
        (
            "cache-control: max-age=10, must-revalidate, stale-while-revalidate=60 | age: 20 | etag: \"a\"",
            "g",
        ),
    ] {
        // Not reached, whatever the client would take: an error, and 504 unless another fits.
        let path = scene.path();
        scene.fetch(&path, "", reply(200, line, body)).await;
        let answer = scene.fetch(&path, "cache-control: max-stale", Reply::raw("").close()).await;
        assert!(matches!(answer.status, 502 | 504), "{line}: {answer:?}");
        // An error of the origin stays one.
        let answer = scene.fetch(&path, "", reply(503, "", "away")).await;
        assert_eq!((answer.status, answer.text()), (503, "away"), "{line}");
        // Confirmed, it is as good as new.
        let answer = scene.fetch(&path, "", Reply::new(304).header("ETag", "\"a\"")).await;
        assert_eq!((answer.status, answer.text()), (200, body), "{line}");
    }
}

#[tokio::test]
async fn stale_if_error_covers_errors_for_its_time() {
    let scene = Scene::rfc().await;
    for status in [500, 502, 503, 504] {
        let path = scene.path();
        scene.fetch(&path, "", stale(", stale-if-error=60", "old")).await;
        let answer = scene.fetch(&path, "", reply(status, "", "error")).await;
        assert_eq!((answer.status, answer.text()), (200, "old"), "{status}");
    }
    for (status, directive) in
        [(404, ", stale-if-error=60"), (501, ", stale-if-error=60"), (500, ", stale-if-error=5")]
    {
        let path = scene.path();
        scene.fetch(&path, "", stale(directive, "old")).await;
        let answer = scene.fetch(&path, "", reply(status, "", "error")).await;
        assert_eq!((answer.status, answer.text()), (status, "error"), "{directive}");
    }
}

#[tokio::test]
async fn stale_while_revalidate_serves_and_asks_behind_the_clients_back() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    scene.fetch(&path, "", stale(", stale-while-revalidate=60", "old")).await;
    scene.origin.script(&path, [reply(200, "cache-control: max-age=60", "new")]);
    assert_eq!(scene.get(&path, "").await.text(), "old");
    scene.until("the new one is there", async || scene.get(&path, "").await.text() == "new").await;
    assert_eq!(scene.asked(&path), 2);
    assert_eq!(scene.origin.seen(&path)[1].header("if-none-match").as_deref(), Some("\"a\""));

    let path = scene.path();
    scene.fetch(&path, "", stale(", stale-while-revalidate=5", "old")).await;
    assert_eq!(scene.fetch(&path, "", passing("new")).await.text(), "new", "its time is over");
}
