//! Which targets an unsafe request makes void.

use proptest::prelude::*;

use super::super::testing::{Request, headers};
use super::*;

fn void(method: &str, uri: &str, status: u16, lines: &[(&str, &str)]) -> Vec<String> {
    let request = Request::new(method, uri, &[("host", "a.example")]);
    let status = StatusCode::from_u16(status).unwrap();
    let targets = invalidations(&request.view(), status, &headers(lines));
    targets.iter().map(ToString::to_string).collect()
}

/// The second of the two targets of a POST to `/dir/page?q`.
fn also(uri: &str, reference: &str) -> Option<String> {
    let targets = void("POST", uri, 201, &[("location", reference)]);
    assert_eq!(targets[0], uri);
    targets.get(1).cloned()
}

/// RFC 9111 section 4.4.
#[test]
fn unsafe_and_unknown_methods_void_their_target() {
    for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "FOO", "get"] {
        for status in [200, 201, 204, 303, 308, 399] {
            assert_eq!(void(method, "/page?q", status, &[]), ["/page?q"], "{method} {status}");
        }
    }
}

/// RFC 9111 section 4.4: not after an error, and never for a safe method.
#[test]
fn errors_and_safe_methods_void_nothing() {
    let lines = [("location", "/other")];
    for status in [400, 404, 412, 500, 503, 599, 100] {
        assert_eq!(void("POST", "/page", status, &lines), [""; 0], "{status}");
    }
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "SEARCH"] {
        assert_eq!(void(method, "/page", 200, &lines), [""; 0], "{method}");
    }
}

/// RFC 9111 section 4.4: `Location` and `Content-Location`, each once.
#[test]
fn both_locations_are_void_too() {
    let lines = [("location", "/one"), ("content-location", "/two")];
    assert_eq!(void("PUT", "/page", 201, &lines), ["/page", "/one", "/two"]);
    let same = [("location", "/page"), ("content-location", "/page")];
    assert_eq!(void("PUT", "/page", 201, &same), ["/page"]);
    assert_eq!(void("PUT", "/page", 201, &[("location", "/a"), ("location", "/b")]), ["/page"]);
}

/// RFC 3986 section 5.2.
#[test]
fn references_are_resolved_against_the_target() {
    let check = |reference: &str, expected: &str| {
        let found = also("/dir/page?q", reference);
        assert_eq!(found.as_deref(), (!expected.is_empty()).then_some(expected), "{reference}");
    };
    check("other", "/dir/other");
    check("./other", "/dir/other");
    check("../other", "/other");
    check("../../../other", "/other");
    check("/a/../b/./c", "/b/c");
    check("sub/", "/dir/sub/");
    check(".", "/dir/");
    check("..", "/");
    check("other?x=1/../2", "/dir/other?x=1/../2");
    check("?x", "/dir/page?x");
    check("#top", "");
    check("", "");
    check("/other#top", "/other");
    check("//a.example/x", "/x");
    check("http://a.example", "/");
    check("/with space", "");
}

/// RFC 9111 section 4.4: MUST NOT if the origin differs.
#[test]
fn another_origin_is_left_alone() {
    for reference in [
        "http://b.example/x",
        "//b.example/x",
        "http://a.example:8080/x",
        "http://a.example.b.example/x",
        "http://a.example@b.example/x",
        "ftp://a.example/x",
        "mailto:a.example",
        "javascript:alert(1)",
        "http:///x",
        "http://[::1/x",
    ] {
        assert_eq!(also("/page", reference), None, "{reference}");
    }
    for reference in [
        "http://a.example/x",
        "https://A.EXAMPLE/x",
        "http://a.example:80/x",
        "https://a.example:443/x",
    ] {
        assert_eq!(also("/page", reference).as_deref(), Some("/x"), "{reference}");
    }
}

/// With an absolute target the scheme counts, and the results are absolute too.
#[test]
fn an_absolute_target_has_its_own_origin() {
    let uri = "https://shop.example/page";
    assert_eq!(also(uri, "/x").as_deref(), Some("https://shop.example/x"));
    assert_eq!(also(uri, "https://shop.example:443/x").as_deref(), Some("https://shop.example/x"));
    assert_eq!(also(uri, "//shop.example/x").as_deref(), Some("https://shop.example/x"));
    assert_eq!(also(uri, "http://shop.example/x"), None);
    assert_eq!(also(uri, "http://a.example/x"), None);
}

/// RFC 9110 section 9.3.3: the comparison that lets an answer to `POST` be stored.
#[test]
fn its_own_location_is_recognised() {
    let own = |reference: &str| {
        let request = Request::new("POST", "/page?q", &[("host", "a.example")]);
        let lines = headers(&[("content-location", reference)]);
        is_own_location(&request.view(), &lines, &header::CONTENT_LOCATION)
    };
    assert!(own("/page?q") && own("page?q") && own("http://a.example/page?q") && own(""));
    assert!(!own("/page") && !own("/page?r") && !own("http://b.example/page?q"));
}

proptest! {
    /// Whatever it says, a reference never leads to another host.
    #[test]
    fn results_stay_with_the_origin(reference in "[a-z:/?#.@%\\[\\]]{0,30}") {
        for uri in ["/dir/page?q", "http://a.example/dir/page"] {
            let own: Uri = uri.parse().unwrap();
            if let Some(target) = also(uri, &reference) {
                let target: Uri = target.parse().unwrap();
                prop_assert_eq!(target.authority(), own.authority());
                prop_assert!(target.path().starts_with('/'));
            }
        }
    }
}
