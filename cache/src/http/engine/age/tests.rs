//! The age arithmetic of RFC 9111 section 4.2.3.

use super::super::testing::{NOW, after, headers};
use super::*;

/// RFC 9111 section 5.1.
#[test]
fn the_first_member_counts_and_an_invalid_one_is_ignored() {
    let check = |lines: &[(&str, &str)], expected| {
        assert_eq!(value(&headers(lines)), expected, "{lines:?}");
    };
    check(&[], None);
    check(&[("age", "7200")], Some(7200));
    check(&[("age", "7200, 0")], Some(7200));
    check(&[("age", "0, 7200")], Some(0));
    check(&[("age", "7200"), ("age", "0")], Some(7200));
    check(&[("age", "0"), ("age", "7200")], Some(0));
    check(&[("age", "2147483649")], Some(2_147_483_648));
    for invalid in ["abc", "-7200", "7200.0", "7200;foo=bar", "\"7200\"", ""] {
        check(&[("age", invalid)], None);
    }
}

/// RFC 9111 section 4.2.3.
#[test]
fn the_older_of_both_ages_counts() {
    let initial = |date_offset: u64, age: &str, delay_ms: u64| {
        let date = NOW.seconds() - date_offset;
        initial_ms(&headers(&[("age", age)]), date, NOW, NOW.plus(delay_ms))
    };
    // Apparent age alone, `Age` alone, and whichever is greater.
    assert_eq!(initial(30, "0", 0), 30_000);
    assert_eq!(initial(0, "30", 0), 30_000);
    assert_eq!(initial(10, "30", 0), 30_000);
    assert_eq!(initial(50, "30", 0), 50_000);
    // `Age` is counted from when the request was sent.
    assert_eq!(initial(0, "30", 2_500), 32_500);
    assert_eq!(initial(0, "x", 2_500), 2_500);
}

/// RFC 9111 section 4.2.3: a negative apparent age is zero; clocks that run backwards add nothing.
#[test]
fn a_date_in_the_future_has_no_age() {
    let ahead = NOW.seconds() + 3600;
    assert_eq!(initial_ms(&headers::<&str>(&[]), ahead, NOW, NOW), 0);
    assert_eq!(initial_ms(&headers::<&str>(&[]), ahead, after(5), NOW), 0);
}

/// `Date` has whole seconds, so a response made at .9 is not a second old at the next .0 but one.
#[test]
fn the_apparent_age_is_in_whole_seconds() {
    let none = headers::<&str>(&[]);
    assert_eq!(initial_ms(&none, NOW.seconds(), NOW.plus(999), NOW.plus(999)), 0);
}
