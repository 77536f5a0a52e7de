//! Entity tags and their comparison (RFC 9110 section 8.8.3).

use proptest::prelude::*;

use super::super::testing::headers;
use super::*;

fn tag(value: &str) -> EntityTag<'_> {
    EntityTag::parse(value.as_bytes()).unwrap()
}

/// RFC 9110 section 8.8.3.
#[test]
fn a_tag_is_quoted_and_its_backslash_is_a_byte() {
    assert!(!tag("\"abc\"").weak);
    assert!(tag("W/\"abc\"").weak);
    assert_eq!(tag("\"\"").opaque, b"");
    assert_eq!(tag("\"a,b\\\"").opaque, b"a,b\\");
    assert_eq!(tag("\"\u{fc}\"").opaque, "\u{fc}".as_bytes());
    for none in [
        "abc",
        "'abc'",
        "w/\"abc\"",
        "W\\\"abc\"",
        "W\"abc\"",
        "\"abc",
        "\"a b\"",
        "\"a\"x",
        "*",
        "",
    ] {
        assert_eq!(EntityTag::parse(none.as_bytes()), None, "{none}");
    }
}

/// The table of RFC 9110 section 8.8.3.2.
#[test]
fn strong_and_weak_comparison() {
    let check = |one: &str, two: &str, strong: bool, weak: bool| {
        assert_eq!(tag(one).strongly_equals(&tag(two)), strong, "{one} {two}");
        assert_eq!(tag(one).weakly_equals(&tag(two)), weak, "{one} {two}");
    };
    check("W/\"1\"", "W/\"1\"", false, true);
    check("W/\"1\"", "W/\"2\"", false, false);
    check("W/\"1\"", "\"1\"", false, true);
    check("\"1\"", "\"1\"", true, true);
    check("\"1\"", "\"a\"", false, false);
}

#[test]
fn two_different_tags_are_none() {
    assert!(EntityTag::of(&headers(&[("etag", "\"a\""), ("etag", "\"a\"")])).is_some());
    assert!(EntityTag::of(&headers(&[("etag", "\"a\""), ("etag", "\"b\"")])).is_none());
    assert!(EntityTag::of(&headers(&[("etag", "a")])).is_none());
}

/// RFC 9110 section 13.1.2.
#[test]
fn a_list_of_tags_over_all_lines() {
    let name = header::IF_NONE_MATCH;
    let matches = |lines: &[&str], stored: &str| {
        let lines: Vec<_> = lines.iter().map(|line| ("if-none-match", *line)).collect();
        let map = headers(&lines);
        NoneMatch::parse(&map, &name).unwrap().matches(EntityTag::parse(stored.as_bytes()).as_ref())
    };
    assert!(matches(&["\"a\""], "\"a\""));
    assert!(matches(&["W/\"a\""], "\"a\""));
    assert!(matches(&["\"x\", \"a\" ,\"y\""], "\"a\""));
    assert!(matches(&["\"x\"", "\"a\""], "\"a\""));
    assert!(matches(&["\"x,\", garbage, \"a\""], "\"a\""));
    assert!(matches(&[" * "], "\"a\""));
    assert!(matches(&["*"], "none"));
    assert!(!matches(&["a"], "\"a\""));
    assert!(!matches(&["\"a"], "\"a\""));
    assert!(!matches(&["\"x, \"a\""], "\"a\""));
    assert!(!matches(&[""], "\"a\""));
    assert!(!matches(&["\"a\""], "none"));
    assert_eq!(NoneMatch::parse(&HeaderMap::new(), &name), None);
}

/// RFC 9110 section 8.8.2.2.
#[test]
fn a_date_long_before_the_response_is_strong() {
    assert!(is_strong_date(0, 60));
    assert!(!is_strong_date(1, 60));
    assert!(!is_strong_date(60, 0));
}

proptest! {
    #[test]
    fn any_bytes_are_read(value in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = EntityTag::parse(&value);
        if let Ok(value) = http::HeaderValue::from_bytes(&value) {
            let _ = NoneMatch::parse(&headers(&[("if-none-match", value.as_bytes())]), &header::IF_NONE_MATCH);
        }
    }
}
