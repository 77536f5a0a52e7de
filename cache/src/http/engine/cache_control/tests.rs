//! Directives by table, with the section of RFC 9111 that each rule comes from.

use proptest::prelude::*;

use super::super::testing::headers;
use super::*;

fn response(value: &str) -> CacheControl {
    CacheControl::parse(&headers(&[("cache-control", value)]))
}

fn request(value: &str) -> RequestDirectives {
    RequestDirectives::parse(&headers(&[("cache-control", value)]))
}

/// RFC 9111 sections 4.2.1, 5.2 and 5.2.2.1.
#[test]
fn lifetimes_are_read_strictly() {
    let check = |value: &str, expected: Seconds| {
        assert_eq!(response(value).max_age, expected, "{value}");
    };
    check("max-age=3600", Seconds::Is(3600));
    check("MaX-aGe=3600", Seconds::Is(3600));
    check("max-age=\"3600\"", Seconds::Is(3600));
    check("max-age=\"36\\00\"", Seconds::Is(3600));
    check("max-age=003600", Seconds::Is(3600));
    check("foo, max-age=1, bar=\"max-age=2\"", Seconds::Is(1));
    check("extension=\"max-age=3600\"", Seconds::Absent);
    check("x-max-age=3600", Seconds::Absent);
    check("max-age=99999999999", Seconds::Is(1 << 31));
    for invalid in [
        "max-age",
        "max-age=",
        "max-age=-1",
        "max-age=3600.0",
        "max-age=a3600",
        "max-age=3600a",
        "max-age='3600'",
        "max-age =3600",
        "max-age= 3600",
        "max-age=3600 x",
        "max-age=3600;x",
        "max-age=\"3600\"x",
        "max-age: 3600",
        "max-age=\"\"",
    ] {
        check(invalid, Seconds::Invalid);
    }
}

/// RFC 9111 section 4.2.1: the same value twice is one; two values contradict each other.
#[test]
fn contradicting_lifetimes_are_invalid() {
    let check = |lines: &[(&str, &str)], expected: Seconds| {
        assert_eq!(CacheControl::parse(&headers(lines)).max_age, expected, "{lines:?}");
    };
    check(&[("cache-control", "max-age=5, max-age=5")], Seconds::Is(5));
    check(&[("cache-control", "max-age=5"), ("cache-control", "max-age=\"5\"")], Seconds::Is(5));
    check(&[("cache-control", "max-age=1800, max-age=1")], Seconds::Invalid);
    check(&[("cache-control", "max-age=1"), ("cache-control", "max-age=9")], Seconds::Invalid);
    check(&[("cache-control", "max-age=5, max-age=x")], Seconds::Invalid);
}

/// A directive that restricts counts however it is written.
#[test]
fn restrictions_count_even_if_malformed() {
    for value in [
        "no-store",
        "No-StOrE",
        "no-store=1",
        "no-store foo",
        "no-store;x",
        "a=\"b, no-store",
        "no-store=\"\"",
    ] {
        assert!(response(value).no_store, "{value}");
    }
    assert!(response("must-revalidate=0").must_revalidate);
    assert!(response("proxy-revalidate x").proxy_revalidate);
    assert!(response("private x").private.is_whole());
    assert!(!response("x-no-store, ext=\"no-store\"").no_store);
}

/// What allows something counts only if it is written as its definition says.
#[test]
fn permissions_have_to_be_well_formed() {
    assert!(response("public").public);
    assert!(response("PUBLIC").public);
    assert!(response("must-understand").must_understand);
    for value in ["public=1", "public x", "ext=\"public\"", "must-understand=1"] {
        let directives = response(value);
        assert!(!directives.public && !directives.must_understand, "{value}");
    }
    assert_eq!(response("stale-if-error=x").stale_if_error, Seconds::Invalid);
    assert_eq!(response("stale-while-revalidate").stale_while_revalidate, Seconds::Invalid);
}

/// RFC 9111 sections 5.2.2.4 and 5.2.2.7.
#[test]
fn qualified_directives_are_about_their_fields() {
    let names = |value: &str| {
        let scope = response(value).no_cache;
        scope.names().iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("no-cache=\"a\""), ["a"]);
    assert_eq!(names("no-cache=\"A, set-Cookie,\""), ["a", "set-cookie"]);
    assert_eq!(names("no-cache=a"), ["a"]);
    assert_eq!(names("no-cache=\"a\", no-cache=\"b\""), ["a", "b"]);
    assert_eq!(response("private=\"x\"").private.names().len(), 1);
    for whole in [
        "no-cache",
        "no-cache=",
        "no-cache=\"\"",
        "no-cache=\"a b\"",
        "no-cache=\"a",
        "no-cache=\"a\"x",
        "no-cache, no-cache=\"a\"",
        "no-cache=\"a\", no-cache",
        // The cache itself goes by these.
        "no-cache=\"cache-control\"",
        "no-cache=\"a, Vary\"",
        "no-cache=\"etag\"",
    ] {
        assert!(response(whole).no_cache.is_whole(), "{whole}");
    }
}

#[test]
fn a_string_without_an_end_makes_the_whole_field_suspect() {
    assert!(response("max-age=5, ext=\"foo").broken);
    assert!(!response("max-age=5, ext=\"foo\"").broken);
}

/// RFC 9111 section 5.2.3.
#[test]
fn unknown_directives_are_ignored() {
    assert_eq!(response("foo, bar=1, baz=\"x, y\", no-transform"), CacheControl::default());
    assert_eq!(request("foo, bar=1, no-transform"), RequestDirectives::default());
}

/// RFC 9111 section 5.2.1.
#[test]
fn request_directives_are_read_leniently() {
    let directives = request("No-Cache, no-store, only-if-cached, max-age=5, min-fresh=\"6\"");
    assert!(directives.no_cache && directives.no_store && directives.only_if_cached);
    assert_eq!((directives.max_age, directives.min_fresh), (Some(5), Some(6)));
    assert_eq!(request("max-age=x, min-fresh, max-stale=y"), RequestDirectives::default());
    assert_eq!(request("max-stale").max_stale, Some(MaxStale::Any));
    assert_eq!(request("max-stale=7").max_stale, Some(MaxStale::Seconds(7)));
    assert_eq!(request("max-stale, max-stale=7").max_stale, Some(MaxStale::Seconds(7)));
    assert_eq!(request("max-stale=7, max-stale").max_stale, Some(MaxStale::Seconds(7)));
    assert_eq!(request("max-stale=7, max-stale=3").max_stale, Some(MaxStale::Seconds(3)));
    assert_eq!(request("max-age=7, max-age=3").max_age, Some(3));
    assert_eq!(request("min-fresh=7, min-fresh=3").min_fresh, Some(7));
    assert_eq!(request("stale-if-error=60").stale_if_error, Some(60));
}

/// RFC 9111 section 5.4.
#[test]
fn pragma_counts_only_without_cache_control() {
    let parse = |lines: &[(&str, &str)]| RequestDirectives::parse(&headers(lines)).no_cache;
    assert!(parse(&[("pragma", "no-cache")]));
    assert!(parse(&[("pragma", "foo, No-Cache")]));
    assert!(!parse(&[("pragma", "foo")]));
    assert!(!parse(&[("pragma", "no-cache"), ("cache-control", "max-stale")]));
    assert!(!parse(&[("pragma", "no-cache"), ("cache-control", "")]));
}

proptest! {
    /// Any bytes are read in one way or another, and a `no-store` of its own line always counts.
    #[test]
    fn any_bytes_are_read(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..4)) {
        let directives = CacheControl::parse_values(lines.iter().map(Vec::as_slice));
        let more = lines.iter().map(Vec::as_slice).chain([b"no-store".as_slice()]);
        let with = CacheControl::parse_values(more);
        prop_assert!(with.no_store);
        prop_assert_eq!(CacheControl { no_store: with.no_store, ..directives }, with);
    }

    /// Directives separated in any way mean the same.
    #[test]
    fn lines_and_commas_are_the_same(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("max-age=5"), Just("s-maxage=7"), Just("no-cache"), Just("no-cache=\"a, b\""),
                Just("private"), Just("public"), Just("ext=\"x, no-store\""), Just("no-store"),
            ],
            0..6,
        ),
    ) {
        let one = parts.join(" ,, ");
        let joined = CacheControl::parse_values([one.as_bytes()].into_iter());
        let apart = CacheControl::parse_values(parts.iter().map(|part| part.as_bytes()));
        prop_assert_eq!(joined, apart);
    }
}
