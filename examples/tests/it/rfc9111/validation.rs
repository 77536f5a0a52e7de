//! Section 4.3: asking the origin whether a stored response is still good, and being asked.

use super::{Scene, date, passing, reply};
use crate::proxy::Reply;

const STALE: &str = "cache-control: max-age=10 | age: 20";

#[tokio::test]
async fn a_validation_asks_with_the_validators_that_were_stored() {
    let scene = Scene::rfc().await;
    let modified = date(-1_000);
    let both = format!("{STALE} | etag: \"a\" | last-modified: {modified}");
    let time = format!("{STALE} | last-modified: {modified}");
    for (line, tag, since) in [
        (&format!("{STALE} | etag: \"a\""), Some("\"a\""), None),
        (&format!("{STALE} | etag: W/\"a\""), Some("W/\"a\""), None),
        (&time, None, Some(modified.as_str())),
        (&both, Some("\"a\""), Some(modified.as_str())),
    ] {
        let path = scene.path();
        scene.fetch(&path, "", reply(200, line, "stored")).await;
        let mut confirmed = Reply::new(304).header("Cache-Control", "max-age=60");
        if let Some(tag) = tag {
            confirmed = confirmed.header("ETag", tag);
        }
        let answer = scene.fetch(&path, "", confirmed).await;
        assert_eq!((answer.status, answer.text()), (200, "stored"), "{line}");
        let seen = &scene.origin.seen(&path)[1];
        assert_eq!(seen.header("if-none-match").as_deref(), tag, "{line}");
        assert_eq!(seen.header("if-modified-since").as_deref(), since, "{line}");
        // Fresh again.
        assert_eq!(scene.get(&path, "").await.text(), "stored", "{line}");
        assert_eq!(scene.asked(&path), 2, "{line}");
    }
}

#[tokio::test]
async fn without_a_validator_a_stale_response_is_fetched_anew() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    scene.fetch(&path, "", reply(200, STALE, "stored")).await;
    assert_eq!(scene.fetch(&path, "", passing("new")).await.text(), "new");
    let seen = &scene.origin.seen(&path)[1];
    assert_eq!((seen.header("if-none-match"), seen.header("if-modified-since")), (None, None));
}

#[tokio::test]
async fn a_full_answer_to_a_validation_takes_the_place_of_the_stored_one() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    scene.fetch(&path, "", reply(200, &format!("{STALE} | etag: \"a\""), "old")).await;
    let new = reply(200, "cache-control: max-age=60 | etag: \"b\"", "new");
    assert_eq!(scene.fetch(&path, "", new).await.text(), "new");
    assert_eq!(scene.get(&path, "").await.text(), "new");
    assert_eq!(scene.asked(&path), 2);
}

#[tokio::test]
async fn an_error_in_answer_to_a_validation_is_forwarded() {
    let scene = Scene::start("--profile safe").await;
    let path = scene.path();
    scene.fetch(&path, "", reply(200, &format!("{STALE} | etag: \"a\""), "old")).await;
    let answer = scene.fetch(&path, "", reply(500, "", "error")).await;
    assert_eq!((answer.status, answer.text()), (500, "error"));
}

#[tokio::test]
async fn a_clients_condition_is_answered_from_the_store() {
    let scene = Scene::rfc().await;
    let (modified, before, after) = (date(-1_000), date(-2_000), date(-500));
    let since = |time: &str| format!("if-modified-since: {time}");
    let path = scene.path();
    let line = format!(
        "cache-control: max-age=60 | etag: \"a\" | last-modified: {modified} | content-type: text/plain"
    );
    scene.fetch(&path, "", reply(200, &line, "stored")).await;
    for (condition, status) in [
        ("if-none-match: \"a\"".to_owned(), 304),
        ("if-none-match: W/\"a\"".to_owned(), 304),
        ("if-none-match: \"b\", \"a\"".to_owned(), 304),
        ("if-none-match: \"b\" | if-none-match: \"a\"".to_owned(), 304),
        ("if-none-match: *".to_owned(), 304),
        ("if-none-match: \"b\"".to_owned(), 200),
        ("if-none-match: \"b, a\"".to_owned(), 200),
        (since(&modified), 304),
        (since(&after), 304),
        (since(&before), 200),
        (since("yesterday"), 200),
        // The entity tag decides, whatever the time says.
        (format!("if-none-match: \"a\" | {}", since(&before)), 304),
        (format!("if-none-match: \"b\" | {}", since(&after)), 200),
    ] {
        let answer = scene.get(&path, &condition).await;
        assert_eq!(answer.status, status, "{condition}");
        assert_eq!(answer.header("etag").as_deref(), Some("\"a\""), "{condition}");
        assert!(answer.header("age").is_some() && answer.header("date").is_some(), "{condition}");
        assert_eq!(answer.header("cache-control").as_deref(), Some("max-age=60"), "{condition}");
        assert_eq!(answer.text(), if status == 304 { "" } else { "stored" }, "{condition}");
        // A 304 does not describe a body that the client has already.
        assert_eq!(answer.header("content-type").is_some(), status == 200, "{condition}");
    }
    assert_eq!(scene.asked(&path), 1);
}

#[tokio::test]
async fn a_condition_is_about_a_success() {
    let scene = Scene::rfc().await;
    for status in [404, 301] {
        let path = scene.path();
        let line = "cache-control: max-age=60 | etag: \"a\"";
        scene.fetch(&path, "", reply(status, line, "stored")).await;
        let answer = scene.get(&path, "if-none-match: \"a\"").await;
        assert_eq!((answer.status, answer.text()), (status, "stored"));
        let answer = scene.get(&path, "range: bytes=0-1").await;
        assert_eq!((answer.status, answer.text()), (status, "stored"));
        assert_eq!(scene.asked(&path), 1);
    }
}

#[tokio::test]
async fn a_condition_on_a_response_without_last_modified_compares_with_its_date() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let line = format!("cache-control: max-age=60 | date: {}", date(-20));
    scene.fetch(&path, "", reply(200, &line, "stored")).await;
    let after = scene.get(&path, &format!("if-modified-since: {}", date(-10))).await;
    assert_eq!(after.status, 304);
    let before = scene.get(&path, &format!("if-modified-since: {}", date(-30))).await;
    assert_eq!((before.status, before.text()), (200, "stored"));
    assert_eq!(scene.asked(&path), 1);
}

#[tokio::test]
async fn conditions_that_are_for_the_origin_are_not_evaluated() {
    let scene = Scene::rfc().await;
    for condition in
        ["if-match: \"b\"".to_owned(), format!("if-unmodified-since: {}", date(-2_000))]
    {
        let path = scene.path();
        let line =
            format!("cache-control: max-age=60 | etag: \"a\" | last-modified: {}", date(-1_000));
        scene.fetch(&path, "", reply(200, &line, "stored")).await;
        scene.origin.script(&path, [passing("the origin's answer")]);
        let answer = scene.get(&path, &condition).await;
        assert_eq!(answer.status, 200, "{condition}");
    }
}

#[tokio::test]
async fn a_condition_with_nothing_stored_is_the_origins() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let condition = "if-none-match: \"a\" | if-match: \"a\"";
    let answer = scene.fetch(&path, condition, Reply::new(304).header("ETag", "\"a\"")).await;
    assert_eq!(answer.status, 304);
    let seen = &scene.origin.seen(&path)[0];
    assert_eq!(seen.header("if-none-match").as_deref(), Some("\"a\""));
    assert_eq!(seen.header("if-match").as_deref(), Some("\"a\""));
    // The 304 is no response to store.
    assert_eq!(scene.fetch(&path, "", passing("whole")).await.text(), "whole");
}

#[tokio::test]
async fn a_clients_condition_on_a_stale_response_is_answered_once_it_is_validated() {
    let scene = Scene::rfc().await;
    for (condition, status) in [("if-none-match: \"a\"", 304), ("if-none-match: \"b\"", 200)] {
        let path = scene.path();
        scene.fetch(&path, "", reply(200, &format!("{STALE} | etag: \"a\""), "stored")).await;
        let confirmed =
            Reply::new(304).header("ETag", "\"a\"").header("Cache-Control", "max-age=60");
        let answer = scene.fetch(&path, condition, confirmed).await;
        assert_eq!(answer.status, status, "{condition}");
        assert_eq!(answer.text(), if status == 304 { "" } else { "stored" });
        let seen = &scene.origin.seen(&path)[1];
        let asked = seen.header("if-none-match").expect("a condition");
        assert!(asked.contains("\"a\""), "{asked}");
    }
}

#[tokio::test]
async fn a_range_is_of_the_response_that_if_range_means() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let modified = date(-1_000);
    let line = format!("cache-control: max-age=60 | etag: \"a\" | last-modified: {modified}");
    scene.fetch(&path, "", reply(200, &line, "0123456789")).await;
    for (condition, status, body) in [
        ("if-range: \"a\"".to_owned(), 206, "0123"),
        (format!("if-range: {modified}"), 206, "0123"),
        ("if-range: \"b\"".to_owned(), 200, "0123456789"),
        ("if-range: W/\"a\"".to_owned(), 200, "0123456789"),
        (format!("if-range: {}", date(-500)), 200, "0123456789"),
    ] {
        let answer = scene.get(&path, &format!("range: bytes=0-3 | {condition}")).await;
        assert_eq!((answer.status, answer.text()), (status, body), "{condition}");
    }
    assert_eq!(scene.asked(&path), 1);
    let part = scene.get(&path, "range: bytes=2-3").await;
    assert_eq!(part.header("content-range").as_deref(), Some("bytes 2-3/10"));
    assert_eq!(part.header("content-length").as_deref(), Some("2"));
    for name in ["date", "etag", "cache-control", "age"] {
        assert!(part.header(name).is_some(), "{name}");
    }
    let beyond = scene.get(&path, "range: bytes=10-").await;
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.header("content-range").as_deref(), Some("bytes */10"));
}

#[tokio::test]
async fn several_ranges_are_one_body_and_what_is_no_range_is_ignored() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let line = "cache-control: max-age=60 | content-type: text/plain";
    scene.fetch(&path, "", reply(200, line, "0123456789")).await;
    let answer = scene.get(&path, "range: bytes=0-1, 5-6").await;
    let kind = answer.header("content-type").expect("Content-Type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect("several parts");
    let part = |range: &str, bytes: &str| {
        format!(
            "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/10\r\n\r\n{bytes}\r\n"
        )
    };
    let whole = format!("{}{}--{boundary}--\r\n", part("0-1", "01"), part("5-6", "56"));
    let lower = |text: &str| text.to_lowercase().trim().to_owned();
    assert_eq!((answer.status, lower(answer.text())), (206, lower(&whole)));
    let many: Vec<String> = (0..50).map(|n| format!("{n}-{n}")).collect();
    let many = format!("range: bytes={}", many.join(","));
    for ignored in ["range: lines=0-1", "range: bytes=1-0", "range: bytes=a-b", "range: 0-1", &many]
    {
        let answer = scene.get(&path, ignored).await;
        assert_eq!((answer.status, answer.text()), (200, "0123456789"), "{ignored}");
    }
    assert_eq!(scene.asked(&path), 1);
}

#[tokio::test]
async fn a_304_about_another_response_confirms_nothing() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    scene.fetch(&path, "", reply(200, &format!("{STALE} | etag: \"a\""), "old")).await;
    let other = Reply::new(304).header("ETag", "\"b\"").header("Cache-Control", "max-age=60");
    scene.origin.script(&path, [other, passing("new")]);
    assert_eq!(scene.get(&path, "").await.text(), "new");
    let seen = scene.origin.seen(&path);
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[2].header("if-none-match"), None, "asked for the whole");
}

#[tokio::test]
async fn a_304_chooses_among_the_variants_whose_tags_were_sent() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let line = |tag: &str| format!("cache-control: max-age=60 | vary: foo | etag: \"{tag}\"");
    scene.fetch(&path, "foo: 1", reply(200, &line("one"), "one")).await;
    scene.fetch(&path, "foo: 2", reply(200, &line("two"), "two")).await;
    let chosen = Reply::new(304).header("ETag", "\"one\"").header("Vary", "foo");
    let answer = scene.fetch(&path, "foo: 3", chosen.header("Cache-Control", "max-age=60")).await;
    let asked = scene.origin.seen(&path)[2].header("if-none-match").expect("the tags");
    assert!(asked.contains("\"one\"") && asked.contains("\"two\""), "{asked}");
    assert_eq!((answer.status, answer.text()), (200, "one"));
}
