//! Sections 3.2, 4.3.4 and 4.3.5: a confirmed response takes the new fields over.

use super::{Scene, passing, reply};
use crate::proxy::Reply;

const STALE: &str = "cache-control: max-age=10 | age: 20 | etag: \"a\"";

#[tokio::test]
async fn a_304_replaces_the_fields_it_brings_and_keeps_the_others() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let line = format!(
        "{STALE} | content-type: text/plain | content-encoding: identity | x-old: 1 | x-both: old | x-both: old2"
    );
    scene.fetch(&path, "", reply(200, &line, "stored")).await;
    let confirmed = Reply::new(304)
        .header("ETag", "\"a\"")
        .header("Cache-Control", "max-age=60")
        .header("X-Both", "new")
        .header("X-New", "1")
        .header("Set-Cookie", "a=1")
        .header("Content-Length", "999")
        .header("Connection", "x-hop")
        .header("X-Hop", "1");
    let first = scene.fetch(&path, "", confirmed).await;
    let second = scene.get(&path, "").await;
    assert_eq!(scene.asked(&path), 2);
    for answer in [&first, &second] {
        assert_eq!((answer.status, answer.text()), (200, "stored"));
        for (name, value) in [
            ("cache-control", Some("max-age=60")),
            ("x-both", Some("new")),
            ("x-new", Some("1")),
            ("x-old", Some("1")),
            ("set-cookie", Some("a=1")),
            ("content-type", Some("text/plain")),
            ("content-length", Some("6")),
            ("x-hop", None),
            ("connection", None),
        ] {
            assert_eq!(answer.header(name).as_deref(), value, "{name}");
        }
        let age: u64 = answer.header("age").expect("Age").parse().expect("number");
        assert!(age < 20, "the age of the 304 is the one that counts: {age}");
    }
}

#[tokio::test]
async fn a_warning_about_staleness_ends_with_it() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let line = format!("{STALE} | warning: 110 - \"stale\" | warning: 299 - \"mind\"");
    scene.fetch(&path, "", reply(200, &line, "stored")).await;
    let confirmed = Reply::new(304).header("ETag", "\"a\"").header("Cache-Control", "max-age=60");
    let answer = scene.fetch(&path, "", confirmed).await;
    assert_eq!(answer.header("warning").as_deref(), Some("299 - \"mind\""));
}

#[tokio::test]
async fn a_304_may_forbid_what_was_stored() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    scene.fetch(&path, "", reply(200, STALE, "stored")).await;
    let forbids = Reply::new(304).header("ETag", "\"a\"").header("Cache-Control", "no-store");
    assert_eq!(scene.fetch(&path, "", forbids).await.text(), "stored");
    assert_eq!(scene.fetch(&path, "", passing("new")).await.text(), "new");
    assert_eq!(scene.origin.seen(&path)[2].header("if-none-match"), None);
}

#[tokio::test]
async fn a_head_that_agrees_freshens_and_one_that_does_not_makes_stale() {
    let scene = Scene::rfc().await;
    let head =
        |line: &str, length: usize| reply(200, &format!("{line} | x-new: 1"), &"x".repeat(length));
    for (line, length, agrees) in [
        ("cache-control: max-age=60 | etag: \"a\"", 6, true),
        ("cache-control: max-age=60 | etag: \"b\"", 6, false),
        ("cache-control: max-age=60 | etag: \"a\"", 7, false),
    ] {
        let path = scene.path();
        scene.fetch(&path, "", reply(200, STALE, "stored")).await;
        scene.origin.script(&path, [head(line, length)]);
        assert_eq!(scene.request("HEAD", &path, "").await.status, 200, "{line}");
        assert_eq!(scene.asked(&path), 2);
        scene.origin.script(&path, [passing("new")]);
        let answer = scene.get(&path, "").await;
        if agrees {
            assert_eq!((answer.text(), scene.asked(&path)), ("stored", 2), "{line}");
            assert_eq!(answer.header("x-new").as_deref(), Some("1"), "{line}");
        } else {
            assert_eq!((answer.text(), scene.asked(&path)), ("new", 3), "{line}");
        }
    }
}
