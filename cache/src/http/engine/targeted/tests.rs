//! Targeted fields (RFC 9213): which one is obeyed, and what makes one invalid.

use proptest::prelude::*;

use super::super::testing::headers;
use super::*;

fn read(value: &str) -> Option<CacheControl> {
    parse(value.as_bytes())
}

/// RFC 9213 section 2.1.
#[test]
fn directives_are_members_of_a_dictionary() {
    let directives = read("max-age=60, no-store, must-revalidate;x=1, foo=bar").unwrap();
    assert_eq!(directives.max_age, Seconds::Is(60));
    assert!(directives.no_store && directives.must_revalidate);
    assert_eq!(read("max-age=0").unwrap().max_age, Seconds::Is(0));
    assert_eq!(read("max-age=99999999999").unwrap().max_age, Seconds::Is(1 << 31));
    assert_eq!(read("max-age=-5").unwrap().max_age, Seconds::Invalid);
    // The last one of a key counts.
    assert_eq!(read("max-age=1, max-age=2").unwrap().max_age, Seconds::Is(2));
    assert_eq!(read("max-age=x, max-age=2").unwrap().max_age, Seconds::Is(2));
    assert!(!read("no-store=?0, max-age=1").unwrap().no_store);
    assert!(read("foo").is_some());
}

/// RFC 9213 section 2.2: a field that is no structured field, or empty, is ignored.
#[test]
fn what_is_invalid_is_ignored_as_a_whole() {
    for value in [
        "",
        " ",
        "max-age=10000, &&&&&",
        "max-age=\"10000\"",
        "max-age=1.5",
        "max-age",
        "MaX-aGe=3600",
        "max-age =100",
        "max-age= 100",
        "max-age=1,",
        "s-maxage=(1)",
        "stale-if-error=x",
        "max-age=9999999999999999",
        "max-age=1, f\u{fc}",
    ] {
        assert_eq!(read(value), None, "{value}");
    }
}

#[test]
fn restrictions_count_whatever_their_type() {
    assert!(read("no-store=1").unwrap().no_store);
    assert!(read("no-store=\"x\"").unwrap().no_store);
    assert!(read("private=1").unwrap().private.is_whole());
    assert!(!read("public=1, must-understand=2").unwrap().public);
    assert!(read("public").unwrap().public);
}

#[test]
fn qualified_directives_name_fields_in_any_shape() {
    for value in ["private=\"a, b\"", "private=(\"a\" b)", "private=(\"a, b\")"] {
        assert_eq!(read(value).unwrap().private.names().len(), 2, "{value}");
    }
    assert_eq!(read("no-cache=a").unwrap().no_cache.names().len(), 1);
    for value in ["private", "private=()", "private=(1)", "private=\"\"", "private=(a 1)"] {
        assert!(read(value).unwrap().private.is_whole(), "{value}");
    }
}

/// RFC 9213 section 2.2: the first of the list that is valid, not the first that is there.
#[test]
fn the_first_valid_field_of_the_list_is_obeyed() {
    let list: Vec<HeaderName> =
        ["own-cache-control", "cdn-cache-control"].map(|name| name.parse().unwrap()).to_vec();
    let max_age =
        |lines: &[(&str, &str)]| select(&list, &headers(lines)).map(|found| found.max_age);
    let cdn = ("cdn-cache-control", "max-age=1");
    assert_eq!(max_age(&[cdn, ("own-cache-control", "max-age=2")]), Some(Seconds::Is(2)));
    assert_eq!(max_age(&[cdn, ("own-cache-control", "&")]), Some(Seconds::Is(1)));
    assert_eq!(max_age(&[cdn, ("own-cache-control", "")]), Some(Seconds::Is(1)));
    assert_eq!(max_age(&[("surrogate-control", "max-age=3")]), None);
    let two = [("cdn-cache-control", "foo"), ("cdn-cache-control", "max-age=4")];
    assert_eq!(max_age(&two), Some(Seconds::Is(4)));
}

proptest! {
    #[test]
    fn any_bytes_are_read(value in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = parse(&value);
    }

    #[test]
    fn almost_valid_fields_are_read(value in "[a-z=,;\"() ?01*-]{0,60}") {
        let _ = parse(value.as_bytes());
    }
}
