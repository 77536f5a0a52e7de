//! Sections 3, 3.1, 3.3, 3.4 and 3.5: what may be stored, and what of it.

use super::{Scene, date, passing, reply};
use crate::proxy::Reply;

const FRESH: &str = "cache-control: max-age=60";

#[tokio::test]
async fn an_answer_to_a_method_that_is_not_understood_is_not_stored() {
    let scene = Scene::rfc().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "WHATEVER"] {
        let path = scene.path();
        scene
            .origin
            .script(&path, [reply(200, FRESH, "first"), passing("second"), passing("third")]);
        assert_eq!(scene.request(method, &path, "").await.text(), "first", "{method}");
        assert_eq!(scene.get(&path, "").await.text(), "second", "a GET after {method}");
        assert_eq!(scene.request(method, &path, "").await.text(), "third", "{method}");
    }
}

#[tokio::test]
async fn an_interim_response_is_not_stored() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let interim = "HTTP/1.1 103 Early Hints\r\nCache-Control: max-age=60\r\nX-Early: 1\r\n\r\n";
    let last = format!(
        "HTTP/1.1 200 OK\r\nDate: {}\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nfinal",
        date(0)
    );
    let stored = scene.fetch(&path, "", Reply::raw(&format!("{interim}{last}"))).await;
    assert_eq!((stored.status, stored.text()), (200, "final"));
    let answer = scene.get(&path, "").await;
    assert_eq!((answer.status, answer.text(), scene.asked(&path)), (200, "final", 1));
    assert_eq!(answer.header("x-early"), None);
}

#[tokio::test]
async fn must_understand_is_about_the_status() {
    let scene = Scene::rfc().await;
    for (status, line, reused) in [
        (599, "cache-control: max-age=60, must-understand", false),
        (599, "cache-control: max-age=60, must-understand, no-store", false),
        (299, "cache-control: max-age=60, must-understand", false),
        (200, "cache-control: max-age=60, must-understand, no-store", true),
        (404, "cache-control: max-age=60, must-understand, no-store", true),
        (200, "cache-control: max-age=60, no-store", false),
    ] {
        let row = format!("{status} {line}");
        assert_eq!(scene.reuses("", reply(status, line, "x"), "").await, reused, "{row}");
    }
}

#[tokio::test]
async fn a_response_with_no_store_or_private_is_not_stored() {
    let scene = Scene::rfc().await;
    scene
        .check_responses(&[
            ("cache-control: no-store", false),
            ("cache-control: no-store, max-age=60", false),
            ("cache-control: max-age=60 | cache-control: no-store", false),
            ("cache-control: max-age=60, No-Store", false),
            ("cache-control: private", false),
            ("cache-control: private, max-age=60", false),
            ("cache-control: max-age=60, PRIVATE", false),
            ("cache-control: private, s-maxage=60", false),
            ("cache-control: public, private, max-age=60", false),
            ("cache-control: max-age=60, no-storey", true),
            ("cache-control: max-age=60, x=\"no-store\"", true),
        ])
        .await;
}

#[tokio::test]
async fn an_answer_to_a_request_with_no_store_is_not_stored() {
    let scene = Scene::rfc().await;
    let fresh = reply(200, FRESH, "first");
    assert!(!scene.reuses("cache-control: no-store", fresh, "").await);
}

#[tokio::test]
async fn a_response_is_stored_for_a_reason_only() {
    let scene = Scene::rfc().await;
    let (past, future) = (date(-1_000_000), date(1_000));
    let old = format!("last-modified: {past}");
    let public = format!("cache-control: public | last-modified: {past}");
    for (status, line, reused) in [
        (200, String::new(), false),
        (200, "etag: \"a\"".to_owned(), false),
        (200, format!("expires: {future}"), true),
        (200, "cache-control: s-maxage=60".to_owned(), true),
        (200, old.clone(), true),
        (404, old.clone(), true),
        // Not heuristically cacheable.
        (201, old.clone(), false),
        (302, old.clone(), false),
        (403, old.clone(), false),
        (500, old, false),
        (403, public, true),
        (201, FRESH.to_owned(), true),
        (302, FRESH.to_owned(), true),
        (500, FRESH.to_owned(), true),
    ] {
        let row = format!("{status} {line}");
        assert_eq!(scene.reuses("", reply(status, &line, "x"), "").await, reused, "{row}");
    }
}

#[tokio::test]
async fn an_answer_to_authorization_is_shared_only_if_it_says_so() {
    let scene = Scene::rfc().await;
    for (line, reused) in [
        (FRESH, false),
        ("cache-control: max-age=60, public", true),
        ("cache-control: s-maxage=60", true),
        ("cache-control: max-age=60, must-revalidate", true),
        ("cache-control: max-age=60, proxy-revalidate", false),
        ("cache-control: max-age=60, private", false),
    ] {
        for second in ["authorization: Basic b3RoZXI=", ""] {
            let stored =
                scene.reuses("authorization: Basic dXNlcg==", reply(200, line, "x"), second);
            assert_eq!(stored.await, reused, "{line}, then {second:?}");
        }
    }
}

#[tokio::test]
async fn every_field_is_stored_but_those_of_one_connection_or_one_proxy() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let line = "cache-control: max-age=60, unknown=\"a, b\" | x-unknown: 1 | x-unknown: 2 | etag: \"a\" \
        | content-type: text/plain | content-foo: \u{e9} | set-cookie: a=1 | set-cookie: b=2 \
        | link: <a> | link: <b> | connection: x-hop | x-hop: 1 | keep-alive: timeout=5 \
        | proxy-connection: close | te: gzip | upgrade: h2c | proxy-authenticate: Basic \
        | proxy-authentication-info: x | proxy-authorization: Basic dXNlcg==";
    scene.fetch(&path, "", reply(200, line, "x")).await;
    let answer = scene.get(&path, "").await;
    assert_eq!(scene.asked(&path), 1);
    for (name, value) in [
        ("cache-control", Some("max-age=60, unknown=\"a, b\"")),
        ("x-unknown", Some("1, 2")),
        ("etag", Some("\"a\"")),
        ("content-type", Some("text/plain")),
        ("content-foo", Some("\u{e9}")),
        ("set-cookie", Some("a=1, b=2")),
        ("link", Some("<a>, <b>")),
        ("content-length", Some("1")),
        ("connection", None),
        ("x-hop", None),
        ("keep-alive", None),
        ("proxy-connection", None),
        ("te", None),
        ("upgrade", None),
        ("proxy-authenticate", None),
        ("proxy-authentication-info", None),
        ("proxy-authorization", None),
    ] {
        assert_eq!(answer.header(name).as_deref(), value, "{name}");
    }
    let cookies = answer.headers.iter().filter(|(name, _)| name == "set-cookie").count();
    assert_eq!(cookies, 2, "two lines stay two lines");
}

#[tokio::test]
async fn fields_that_are_private_or_must_be_asked_about_are_not_reused_without() {
    let scene = Scene::rfc().await;
    for directive in ["no-cache=\"x-a, X-B\"", "private=\"x-a, X-B\"", "private=x-a, no-cache=x-b"]
    {
        let path = scene.path();
        let line = format!("cache-control: max-age=60, {directive} | x-a: 1 | x-b: 1 | x-c: 1");
        let first = scene.fetch(&path, "", reply(200, &line, "x")).await;
        assert_eq!(first.header("x-a").as_deref(), Some("1"), "{directive}: meant for this client");
        scene.origin.script(&path, [passing("new")]);
        let answer = scene.get(&path, "").await;
        // A cache may treat it as the directive without names; it may not send the fields.
        if scene.asked(&path) == 1 {
            let kept = ["x-a", "x-b", "x-c"].map(|name| answer.header(name));
            assert_eq!(kept, [None, None, Some("1".to_owned())], "{directive}");
        }
    }
}

#[tokio::test]
async fn trailers_do_not_become_headers() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let chunked = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\
        Trailer: X-Sum, ETag\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\nETag: \"late\"\r\n\r\n";
    scene.fetch(&path, "te: trailers", Reply::raw(chunked)).await;
    let answer = scene.get(&path, "te: trailers").await;
    assert_eq!((answer.text(), scene.asked(&path)), ("abc", 1));
    assert_eq!((answer.header("x-sum"), answer.header("etag")), (None, None));
}

#[tokio::test]
async fn an_answer_about_one_request_is_not_stored() {
    let scene = Scene::rfc().await;
    for status in [412, 428, 429, 431, 511] {
        let row = reply(status, "cache-control: max-age=60, public", "x");
        assert!(!scene.reuses("", row, "").await, "{status}");
    }
}

#[tokio::test]
async fn an_answer_to_post_is_stored_for_get_if_it_is_that_of_its_target() {
    let scene = Scene::rfc().await;
    for (location, reused) in [("", true), ("/other", false)] {
        let path = scene.path();
        let location = if location.is_empty() { &path } else { location };
        let line = format!("cache-control: max-age=60 | content-location: {location}");
        scene.origin.script(&path, [reply(200, &line, "posted"), passing("got")]);
        assert_eq!(scene.request("POST", &path, "").await.text(), "posted");
        let expected = if reused { "posted" } else { "got" };
        assert_eq!(scene.get(&path, "").await.text(), expected, "{location}");
    }
}

#[tokio::test]
async fn an_incomplete_response_answers_nothing() {
    let scene = Scene::rfc().await;
    let head = format!("HTTP/1.1 200 OK\r\nDate: {}\r\nCache-Control: max-age=60\r\n", date(0));
    for broken in [
        Reply::raw(&format!("{head}Content-Length: 10\r\n\r\nhalf")),
        Reply::raw(&format!("{head}Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")),
        Reply::raw(&format!("{head}Transfer-Encoding: chunked\r\n\r\nnonsense\r\n")),
    ] {
        let path = scene.path();
        scene.origin.script(&path, [broken.close(), passing("whole")]);
        let mut client = scene.proxy.client().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: origin.test\r\n\r\n")).await;
        let _broken = client.rest().await;
        let answer = scene.get(&path, "").await;
        assert_eq!((answer.status, answer.text()), (200, "whole"));
    }
}

#[tokio::test]
async fn a_part_is_not_reused_as_a_whole() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let line = "cache-control: max-age=60 | content-range: bytes 0-3/10 | etag: \"a\"";
    let answer = scene.fetch(&path, "range: bytes=0-3", reply(206, line, "part")).await;
    assert_eq!((answer.status, answer.text()), (206, "part"));
    assert_eq!(scene.fetch(&path, "", passing("whole")).await.text(), "whole");

    let path = scene.path();
    scene
        .fetch(&path, "", reply(200, "cache-control: max-age=60 | etag: \"a\"", "0123456789"))
        .await;
    for (range, part) in [("0-3", "0123"), ("4-", "456789"), ("-2", "89"), ("8-100", "89")] {
        let answer = scene.get(&path, &format!("range: bytes={range}")).await;
        assert_eq!((answer.status, answer.text()), (206, part), "{range}");
    }
    assert_eq!(scene.asked(&path), 1);
}
