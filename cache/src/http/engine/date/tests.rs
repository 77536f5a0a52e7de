//! The three forms of a date, and what only looks like one.

use proptest::prelude::*;

use super::super::testing::{NOW, headers};
use super::*;

fn read(value: &str) -> Option<u64> {
    parse(value.as_bytes(), NOW)
}

/// RFC 9110 section 5.6.7.
#[test]
fn all_three_forms_are_read() {
    for value in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        " Sun, 06 Nov 1994 08:49:37 GMT\t",
    ] {
        assert_eq!(read(value), Some(784_111_777), "{value}");
    }
    assert_eq!(read("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
    assert_eq!(read("Mon, 01 Jan 1900 00:00:00 GMT"), Some(0));
    assert_eq!(read("Fri, 31 Dec 9999 23:59:59 GMT"), Some(LAST_SECOND));
    assert_eq!(read("Tue, 29 Feb 2028 00:00:00 GMT"), Some(1_835_395_200));
}

/// RFC 9111 section 4.2: letters in either case; a weekday that is wrong is no reason either.
#[test]
fn case_and_weekday_do_not_matter() {
    let expected = read("Thu, 18 Aug 2050 02:01:18 GMT");
    assert!(expected.is_some());
    for value in [
        "THU, 18 Aug 2050 02:01:18 GMT",
        "Thu, 18 AUG 2050 02:01:18 GMT",
        "Thu, 18 Aug 2050 02:01:18 gMT",
        "Fri, 18 Aug 2050 02:01:18 GMT",
        "thursday, 18-aug-50 02:01:18 gmt",
        "mon aug 18 02:01:18 2050",
    ] {
        assert_eq!(read(value), expected, "{value}");
    }
}

/// RFC 9110 section 5.6.7: a two-digit year is never more than 50 years in the future.
#[test]
fn two_digit_years_follow_the_clock() {
    let year = |value: &str| read(value).map(|seconds| 1970 + seconds / SECONDS_PER_YEAR);
    assert_eq!(year("Sunday, 06-Jun-76 00:00:00 GMT"), Some(2076));
    assert_eq!(year("Sunday, 06-Jun-77 00:00:00 GMT"), Some(1977));
    assert_eq!(year("Sunday, 06-Jun-26 00:00:00 GMT"), Some(2026));
    assert_eq!(year("Sunday, 06-Jun-00 00:00:00 GMT"), Some(2000));
}

/// RFC 9111 section 4.2: the nearest time that is not later.
#[test]
fn a_leap_second_is_the_one_before() {
    assert_eq!(read("Sat, 31 Dec 2016 23:59:60 GMT"), read("Sat, 31 Dec 2016 23:59:59 GMT"));
}

/// RFC 9111 section 4.2: any zone but GMT is invalid; so is everything that only looks alike.
#[test]
fn what_is_no_date_is_none() {
    for value in [
        "",
        "0",
        "-1",
        "Thu, 18 Aug 2050 02:01:18 UTC",
        "Thu, 18 Aug 2050 02:01:18 AEST",
        "Thu, 18 Aug 2050 02:01:18 +0000",
        "Thu, 18 Aug 2050 02:01:18",
        "Thu, 18 Aug 50 02:01:18 GMT",
        "Thu 18 Aug 2050 02:01:18 GMT",
        "Thu, 18  Aug  2050 02:01:18 GMT",
        "Thu, 18-Aug-2050 02:01:18 GMT",
        "Thu, 18 Aug 2050 02.01.18 GMT",
        "Thu, 18 Aug 2050 2:01:18 GMT",
        "Thu, 8 Aug 2050 02:01:18 GMT",
        "Thu, 31 Jun 2050 02:01:18 GMT",
        "Thu, 29 Feb 2100 02:01:18 GMT",
        "Thu, 00 Aug 2050 02:01:18 GMT",
        "Thu, 18 Aug 2050 24:01:18 GMT",
        "Thu, 18 Aug 2050 02:60:18 GMT",
        "Thu, 18 Aug 2050 02:01:61 GMT",
        "Thu, 18 Aug 2050 02:01:18 GMT, Thu, 18 Aug 2050 02:01:18 GMT",
        "Thu Aug 18 02:01:18 2050 GMT",
        "18 Aug 2050 02:01:18 GMT",
        "2050-08-18T02:01:18Z",
    ] {
        assert_eq!(read(value), None, "{value}");
    }
}

#[test]
fn two_different_lines_are_no_date() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let name = http::header::EXPIRES;
    let lines = [("expires", date), ("expires", date)];
    assert_eq!(field(&headers(&lines), &name, NOW), Some(784_111_777));
    let lines = [("expires", date), ("expires", "Sun, 06 Nov 1994 08:49:38 GMT")];
    assert_eq!(field(&headers(&lines), &name, NOW), None);
}

#[test]
fn a_clock_beyond_the_year_9999_still_writes_a_date() {
    assert_eq!(format(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(seconds in 0..=LAST_SECOND) {
        prop_assert_eq!(parse(format(seconds).as_bytes(), NOW), Some(seconds));
    }

    #[test]
    fn any_bytes_are_read(value in proptest::collection::vec(any::<u8>(), 0..60), now in any::<u64>()) {
        let _ = parse(&value, UnixMs(now));
        let _ = parse(b"Sunday, 06-Nov-94 08:49:37 GMT", UnixMs(now));
    }
}
