//! Which requests select the same response, and that key and comparison agree.

use proptest::prelude::*;

use super::super::testing::headers;
use super::*;

fn names(lines: &[(&str, &str)]) -> Option<Vec<String>> {
    match Vary::parse(&headers(lines)) {
        Vary::Any => None,
        Vary::Names(names) => Some(names.iter().map(|name| name.as_str().to_owned()).collect()),
    }
}

fn matches(field: &str, stored: &[&str], presented: &[&str]) -> bool {
    let lines =
        |values: &[&str]| headers(&values.iter().map(|value| (field, *value)).collect::<Vec<_>>());
    let name: HeaderName = field.parse().unwrap();
    let (stored, presented) = (lines(stored), lines(presented));
    let fits = VaryField::of(&name, &stored).matches(&presented);
    let names = [name];
    let same_key = secondary_key(&names, &stored) == secondary_key(&names, &presented);
    assert_eq!(fits, same_key, "key and comparison disagree: {field} {stored:?} {presented:?}");
    fits
}

/// RFC 9110 section 12.5.5, RFC 9111 section 4.1.
#[test]
fn vary_is_a_list_over_all_its_lines() {
    assert_eq!(names(&[]).unwrap(), [""; 0]);
    assert_eq!(names(&[("vary", "")]).unwrap(), [""; 0]);
    assert_eq!(names(&[("vary", "Foo, bar,foo")]).unwrap(), ["bar", "foo"]);
    assert_eq!(names(&[("vary", "foo"), ("vary", "Bar")]).unwrap(), ["bar", "foo"]);
}

/// RFC 9111 section 4.1: a member `*` always fails to match.
#[test]
fn a_star_anywhere_matches_nothing() {
    for value in ["*", "*, *", ", *", "*, Foo", "Foo, *", "Foo ,*,", "\"*\", *"] {
        assert_eq!(names(&[("vary", value)]), None, "{value}");
    }
    assert_eq!(names(&[("vary", ""), ("vary", "*")]), None);
    assert_eq!(names(&[("vary", "foo"), ("vary", "*")]), None);
}

#[test]
fn a_vary_nobody_can_read_matches_nothing() {
    for value in ["foo bar", "foo;q=1", "\"foo\"", "f\u{fc}"] {
        assert_eq!(names(&[("vary", value)]), None, "{value}");
    }
    let many: Vec<String> = (0..MAX_NAMES + 1).map(|index| format!("x-{index}")).collect();
    assert_eq!(names(&[("vary", &many.join(","))]), None);
    assert_eq!(names(&[("vary", &many[1..].join(","))]).unwrap().len(), MAX_NAMES);
}

/// RFC 9111 section 4.1.
#[test]
fn equal_values_match_and_others_do_not() {
    assert!(matches("foo", &["1"], &["1"]));
    assert!(!matches("foo", &["1"], &["2"]));
    assert!(!matches("foo", &["a"], &["A"]));
    assert!(!matches("foo", &["1, 2"], &["2, 1"]));
    assert!(!matches("foo", &["1,,2"], &["1,2"]));
}

/// RFC 9111 section 4.1: absent matches absent, and absent alone.
#[test]
fn an_absent_field_matches_only_an_absent_one() {
    assert!(matches("foo", &[], &[]));
    assert!(!matches("foo", &[], &["1"]));
    assert!(!matches("foo", &["1"], &[]));
    assert!(!matches("foo", &[], &[""]));
    assert!(!matches("accept-language", &[], &[""]));
}

/// RFC 9111 section 4.1: whitespace, where the syntax allows it, and combined lines.
#[test]
fn whitespace_and_lines_do_not_matter() {
    assert!(matches("foo", &["1,2"], &[" 1, 2 "]));
    assert!(matches("foo", &["1, 2"], &["1", "2"]));
    assert!(matches("foo", &["1", "2"], &["1 ,\t2"]));
    assert!(!matches("foo", &["1 2"], &["12"]));
    assert!(!matches("foo", &["\"1, 2\""], &["\"1,2\""]));
}

/// RFC 9110 sections 12.5.2 to 12.5.4: weights count, not order; names are case-insensitive.
#[test]
fn weighed_fields_match_in_any_order_and_case() {
    assert!(matches("accept-language", &["en, de"], &["de, en"]));
    assert!(matches("accept-language", &["en, de"], &["eN ,   De"]));
    assert!(matches("accept-encoding", &["gzip;q=1.0, br;q=0.50"], &["br; q=0.5", "GZIP"]));
    assert!(matches("accept-charset", &["utf-8"], &["UTF-8"]));
    assert!(!matches("accept-language", &["en, de"], &["en"]));
    assert!(!matches("accept-language", &["en;q=0.5, de"], &["en, de;q=0.5"]));
    assert!(!matches("accept-language", &["en;q=0"], &["en"]));
    assert!(!matches("accept-encoding", &["gzip;q=0.1"], &["gzip;q=0.10001"]));
    // `Accept` has parameters whose case counts, so it is compared as it is.
    assert!(!matches("accept", &["text/html, text/plain"], &["text/plain, text/html"]));
}

#[test]
fn fields_do_not_run_into_one_another() {
    let names: Vec<HeaderName> = ["a", "b"].iter().map(|name| name.parse().unwrap()).collect();
    let key = |lines: &[(&str, &str)]| secondary_key(&names, &headers(lines));
    assert_ne!(key(&[("a", "1b"), ("b", "2")]), key(&[("a", "1"), ("b", "b2")]));
    assert_ne!(key(&[("a", "1")]), key(&[("b", "1")]));
    assert_ne!(key(&[("a", "")]), key(&[]));
}

#[test]
fn debug_does_not_show_the_value() {
    let request = headers(&[("cookie", "secret")]);
    assert_eq!(format!("{:?}", VaryField::of(&header::COOKIE, &request)), "cookie");
}

proptest! {
    /// Whatever the bytes: a request always matches itself, and comparison and key agree.
    #[test]
    fn comparison_and_key_agree(
        field in prop_oneof![Just("foo"), Just("accept-language"), Just("accept-encoding")],
        one in proptest::collection::vec("[ aA,;q=.01\"\\\\]{0,12}", 0..3),
        two in proptest::collection::vec("[ aA,;q=.01\"\\\\]{0,12}", 0..3),
    ) {
        let (one, two): (Vec<&str>, Vec<&str>) =
            (one.iter().map(String::as_str).collect(), two.iter().map(String::as_str).collect());
        prop_assert!(matches(field, &one, &one));
        prop_assert_eq!(matches(field, &one, &two), matches(field, &two, &one));
    }

    #[test]
    fn any_bytes_are_read(value in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(value) = http::HeaderValue::from_bytes(&value) {
            let lines = headers(&[("vary", value.as_bytes()), ("accept-language", value.as_bytes())]);
            let _ = Vary::parse(&lines);
            prop_assert!(VaryField::of(&header::ACCEPT_LANGUAGE, &lines).matches(&lines));
        }
    }
}
