//! Lists, strings and numbers by table; any bytes by proptest.

use proptest::prelude::*;

use super::super::testing::headers;
use super::*;

fn split(value: &str) -> Vec<&str> {
    members(value.as_bytes()).map(|member| std::str::from_utf8(member).unwrap()).collect()
}

/// RFC 9110 sections 5.6.1 and 5.6.4.
#[test]
fn lists_are_split_at_commas_outside_strings() {
    assert_eq!(split("a, b"), ["a", "b"]);
    assert_eq!(split(" ,, a ,\t,b , "), ["a", "b"]);
    assert_eq!(split(r#"a="x, y", b"#), [r#"a="x, y""#, "b"]);
    assert_eq!(split(r#"a="x\", y", b"#), [r#"a="x\", y""#, "b"]);
    assert_eq!(split(""), [""; 0]);
    assert_eq!(split(" \t "), [""; 0]);
}

#[test]
fn a_string_without_an_end_hides_nothing() {
    assert_eq!(split(r#"a="x, no-store"#), [r#"a="x"#, "no-store"]);
    assert_eq!(split(r#"a="x\", no-store"#), [r#"a="x\""#, "no-store"]);
    assert!(has_open_string(br#"a="x"#));
    assert!(!has_open_string(br#"a="x""#));
}

#[test]
fn parts_keep_the_empty_ones() {
    let of = |value: &str| parts(value.as_bytes()).count();
    assert_eq!([of(""), of("a"), of("a,"), of(",a,,b")], [1, 1, 2, 4]);
}

#[test]
fn strings_lose_quotes_and_escapes() {
    assert_eq!(unquote(br#""a\"b\c""#), Some(b"a\"bc".to_vec()));
    assert_eq!(unquote(br#""""#), Some(Vec::new()));
    for broken in [r#"a"#, r#""a"#, r#""a"b"#, r#""a\""#, r#"""#, ""] {
        assert_eq!(unquote(broken.as_bytes()), None, "{broken}");
    }
}

/// RFC 9111 section 1.2.2.
#[test]
fn delta_seconds_are_digits_and_capped_at_2_to_the_31() {
    let check = |value: &str, expected| {
        assert_eq!(delta_seconds(value.as_bytes()), expected, "{value}");
    };
    check("0", Some(0));
    check("003600", Some(3600));
    check("2147483647", Some(2_147_483_647));
    check("2147483648", Some(MAX_DELTA_SECONDS));
    check("2147483649", Some(MAX_DELTA_SECONDS));
    check("99999999999", Some(MAX_DELTA_SECONDS));
    check(&"9".repeat(1000), Some(MAX_DELTA_SECONDS));
    for none in ["", "-1", "+1", "1.0", "1 ", " 1", "a", "1a", "0x1", "1e3", "'1'"] {
        check(none, None);
    }
}

#[test]
fn a_singleton_that_contradicts_itself_is_none() {
    let name = HeaderName::from_static("expires");
    assert_eq!(single(&headers(&[("expires", "a")]), &name).unwrap(), "a");
    assert_eq!(single(&headers(&[("expires", "a"), ("expires", "a")]), &name).unwrap(), "a");
    assert_eq!(single(&headers(&[("expires", "a"), ("expires", "b")]), &name), None);
    assert_eq!(single(&HeaderMap::new(), &name), None);
}

/// RFC 9111 section 3.1.
#[test]
fn what_belongs_to_one_connection_or_proxy_leaves() {
    let mut map = headers(&[
        ("connection", "close, A"),
        ("connection", "b,,\"c\""),
        ("a", "1"),
        ("b", "2"),
        ("c", "3"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("proxy-authentication-info", "x"),
        ("proxy-authorization", "x"),
        ("proxy-connection", "close"),
        ("te", "trailers"),
        ("trailer", "checksum"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("x-unknown", "4"),
    ]);
    remove_hop_by_hop(&mut map);
    let mut left: Vec<_> = map.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["c", "x-unknown"]);
}

/// A sender must not list these; one that does would make the cache read the response wrongly.
#[test]
fn a_connection_option_cannot_take_away_what_the_cache_goes_by() {
    let mut map = headers(&[
        ("connection", "cache-control, vary, date, content-encoding"),
        ("cache-control", "no-store"),
        ("vary", "cookie"),
        ("content-encoding", "gzip"),
    ]);
    remove_hop_by_hop(&mut map);
    assert_eq!(map.len(), 3);
}

proptest! {
    #[test]
    fn any_bytes_split_into_trimmed_parts_of_the_value(value in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut total = 0;
        for member in members(&value) {
            prop_assert_eq!(trim(member), member);
            prop_assert!(!member.is_empty());
            total += member.len();
        }
        prop_assert!(total <= value.len());
        prop_assert_eq!(parts(&value).filter(|part| !part.is_empty()).count(), members(&value).count());
        let _ = (unquote(&value), delta_seconds(&value));
    }
}
