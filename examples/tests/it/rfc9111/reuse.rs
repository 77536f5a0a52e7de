//! Sections 2, 4 and 4.1: which stored response answers a request.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{Scene, date, passing, reply};
use crate::proxy::Reply;

const FRESH: &str = "cache-control: max-age=60";

#[tokio::test]
async fn another_target_is_another_response() {
    let scene = Scene::rfc().await;
    for (first, second) in [("?a=1", "?a=2"), ("?a=1", ""), ("", "?"), ("/x", "/X"), ("/%2f", "//")]
    {
        let path = scene.path();
        let (first, second) = (format!("{path}{first}"), format!("{path}{second}"));
        scene.fetch(&first, "", reply(200, FRESH, "first")).await;
        scene.fetch(&second, "", passing("second")).await;
        assert_eq!(scene.get(&first, "").await.text(), "first", "{first}");
        assert_eq!(scene.asked(&first), 1);
    }
    let path = scene.path();
    scene.fetch(&path, "host: a.test", reply(200, FRESH, "first")).await;
    scene.fetch(&path, "host: b.test", passing("second")).await;
}

#[tokio::test]
async fn the_answer_to_head_has_the_fields_of_get() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let line = "cache-control: max-age=60 | etag: \"a\" | content-type: text/plain | x-kept: 1";
    scene.fetch(&path, "", reply(200, line, "first")).await;
    let fields = |answer: crate::proxy::Answer| {
        let counting = ["age", "cache-status"];
        let mut fields = answer.headers;
        fields.retain(|(name, _)| !counting.contains(&name.as_str()));
        fields.sort();
        fields
    };
    let (get, head) = (scene.get(&path, "").await, scene.request("HEAD", &path, "").await);
    assert_eq!(fields(head), fields(get));
    assert_eq!(scene.asked(&path), 1);
}

#[tokio::test]
async fn a_stored_get_answers_head_and_a_head_answers_no_get() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    scene.fetch(&path, "", reply(200, FRESH, "first")).await;
    let answer = scene.request("HEAD", &path, "").await;
    assert_eq!((answer.status, answer.header("content-length").as_deref()), (200, Some("5")));
    assert!(answer.header("age").is_some() && answer.body.is_empty(), "{answer:?}");
    assert_eq!(scene.asked(&path), 1);

    let path = scene.path();
    scene.origin.script(&path, [reply(200, FRESH, "first")]);
    assert_eq!(scene.request("HEAD", &path, "").await.status, 200);
    assert_eq!(scene.fetch(&path, "", passing("second")).await.text(), "second");
}

#[tokio::test]
async fn a_method_that_is_not_safe_is_written_through() {
    let scene = Scene::rfc().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "WHATEVER"] {
        let path = scene.path();
        scene.fetch(&path, "", reply(200, FRESH, "stored")).await;
        scene.origin.script(&path, [passing("origin")]);
        assert_eq!(scene.request(method, &path, "").await.text(), "origin", "{method}");
        assert_eq!(scene.asked(&path), 2, "{method}");
    }
}

#[tokio::test]
async fn every_field_that_vary_names_must_match() {
    let scene = Scene::rfc().await;
    for (vary, first, second, reused) in [
        ("Foo", "foo: 1", "foo: 1", true),
        ("foo", "FOO: 1", "Foo: 1", true),
        ("Foo", "foo: 1", "foo: 2", false),
        ("Foo", "foo: 1", "", false),
        ("Foo", "", "foo: 1", false),
        ("Foo", "", "", true),
        ("Foo", "foo: ", "", false),
        ("Foo, Bar", "foo: 1 | bar: a", "foo: 1 | bar: a", true),
        ("Foo, Bar", "foo: 1 | bar: a", "bar: a | foo: 1", true),
        ("Foo, Bar", "foo: 1 | bar: a", "foo: 1 | bar: b", false),
        ("Foo, Bar", "foo: 1 | bar: a", "foo: a | bar: 1", false),
        ("Foo, Bar", "foo: 1", "foo: 1 | bar: b", false),
        // Lines of one field are one list; order within it counts.
        ("Foo", "foo: 1 | foo: 2", "foo: 1, 2", true),
        ("Foo", "foo: 1, 2", "foo: 2, 1", false),
        ("Foo", "foo: 1 2", "foo: 12", false),
    ] {
        let line = format!("cache-control: max-age=60 | vary: {vary}");
        let found = scene.reuses(first, reply(200, &line, "x"), second).await;
        assert_eq!(found, reused, "{vary}: {first:?}, then {second:?}");
    }
    // Two lines of Vary are one list as well.
    let line = "cache-control: max-age=60 | vary: foo | vary: bar";
    assert!(!scene.reuses("foo: 1 | bar: 1", reply(200, line, "x"), "foo: 1 | bar: 2").await);
}

#[tokio::test]
async fn a_vary_of_everything_never_matches() {
    let scene = Scene::rfc().await;
    scene
        .check_responses(&[
            ("cache-control: max-age=60 | vary: *", false),
            ("cache-control: max-age=60 | vary: *, *", false),
            ("cache-control: max-age=60 | vary: , *", false),
            ("cache-control: max-age=60 | vary: foo, *", false),
            ("cache-control: max-age=60 | vary: foo | vary: *", false),
        ])
        .await;
}

#[tokio::test]
async fn variants_live_side_by_side() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let line = "cache-control: max-age=60 | vary: accept-language";
    for language in ["en", "de", "es"] {
        let request = format!("accept-language: {language}");
        scene.fetch(&path, &request, reply(200, line, language)).await;
    }
    for language in ["de", "en", "es", "de"] {
        let request = format!("accept-language: {language}");
        assert_eq!(scene.get(&path, &request).await.text(), language);
    }
    assert_eq!(scene.asked(&path), 3);
}

#[tokio::test]
async fn of_two_that_match_the_more_recent_one_is_used() {
    let scene = Scene::rfc().await;
    for (first, second, used) in [(-20, -5, "second"), (-5, -20, "first")] {
        let path = scene.path();
        let line =
            |vary, age| format!("cache-control: max-age=60 | vary: {vary} | date: {}", date(age));
        scene.fetch(&path, "a: 1 | b: 1", reply(200, &line("a", first), "first")).await;
        scene.fetch(&path, "a: 2 | b: 1", reply(200, &line("b", second), "second")).await;
        // The first matches by `a`, the second by `b`.
        let answer = scene.get(&path, "a: 1 | b: 1").await;
        assert_eq!((answer.text(), scene.asked(&path)), (used, 2), "{first}, {second}");
    }
}

#[tokio::test]
async fn one_that_says_how_it_varies_wins_over_one_that_does_not() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let line = format!("cache-control: max-age=60 | vary: a | date: {}", date(-20));
    scene.fetch(&path, "a: 1", reply(200, &line, "of one")).await;
    // More recent, but its origin has forgotten to say.
    let line = format!("cache-control: max-age=60 | date: {}", date(-5));
    scene.fetch(&path, "a: 2", reply(200, &line, "forgetful")).await;
    assert_eq!(scene.get(&path, "a: 1").await.text(), "of one");
    assert_eq!(scene.asked(&path), 2);
}

#[tokio::test]
async fn a_reused_response_has_its_age_and_keeps_its_date() {
    let scene = Scene::rfc().await;
    for (given, least) in [("", 0), ("age: 30", 30), ("age: 7 | age: 9", 7)] {
        let path = scene.path();
        let old = date(-5);
        let line = format!("cache-control: max-age=60 | date: {old} | {given}");
        scene.fetch(&path, "", reply(200, line.trim_end_matches(" | "), "x")).await;
        let answer = scene.get(&path, "").await;
        assert_eq!(scene.asked(&path), 1);
        let age: u64 = answer.header("age").expect("Age").parse().expect("one number");
        // Date alone makes it five seconds old.
        let least = least.max(5);
        assert!((least..least + 20).contains(&age), "{given}: {age}");
        assert_eq!(answer.header("date"), Some(old), "{given}");
    }
}

#[tokio::test]
async fn the_time_a_response_took_is_part_of_its_age() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let go = Arc::new(Semaphore::new(0));
    let head = format!(
        "HTTP/1.1 200 OK\r\nDate: {}\r\nAge: 5\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\nx",
        date(0)
    );
    let slow = Reply::raw("").wait(&go).bytes(&head);
    let late = async {
        // Time is what this is about, and Age counts whole seconds.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        go.add_permits(1);
    };
    tokio::join!(scene.fetch(&path, "", slow), late);
    let age: u64 = scene.get(&path, "").await.header("age").expect("Age").parse().expect("number");
    assert!((6..30).contains(&age), "{age}");
}

#[tokio::test]
async fn a_response_that_was_just_fetched_has_the_age_it_came_with() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let answer = scene.fetch(&path, "", reply(200, "cache-control: max-age=60", "x")).await;
    assert!(matches!(answer.header("age").as_deref(), None | Some("0")), "{answer:?}");
    let path = scene.path();
    let answer =
        scene.fetch(&path, "", reply(200, "cache-control: max-age=60 | age: 9", "x")).await;
    assert_eq!(answer.header("age").as_deref(), Some("9"));
}
