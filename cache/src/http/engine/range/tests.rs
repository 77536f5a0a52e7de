//! `Range` by table (RFC 9110 section 14), and the bounds on what a client may ask for.

use proptest::prelude::*;

use super::*;

fn read(value: &str, len: u64) -> Ranges {
    parse(value.as_bytes(), len, 4)
}

fn is(value: &str, len: u64, expected: &[(u64, u64)]) {
    let ranges = expected.iter().map(|&(start, end)| start..end).collect();
    assert_eq!(read(value, len), Ranges::Parts(ranges), "{value} of {len}");
}

/// RFC 9110 section 14.1.2.
#[test]
fn single_ranges() {
    is("bytes=0-0", 10, &[(0, 1)]);
    is("bytes=2-4", 10, &[(2, 5)]);
    is("bytes=2-", 10, &[(2, 10)]);
    is("bytes=2-99", 10, &[(2, 10)]);
    is("bytes=9-18446744073709551615", 10, &[(9, 10)]);
    is("bytes=9-99999999999999999999999999", 10, &[(9, 10)]);
    is("bytes=-1", 10, &[(9, 10)]);
    is("bytes=-10", 10, &[(0, 10)]);
    is("bytes=-99", 10, &[(0, 10)]);
    is("bytes= 0-1 ", 10, &[(0, 2)]);
    is("Bytes=0-1", 10, &[(0, 2)]);
}

/// RFC 9110 section 15.5.17.
#[test]
fn ranges_of_nothing_are_unsatisfiable() {
    for (value, len) in [
        ("bytes=10-", 10),
        ("bytes=10-20", 10),
        ("bytes=-0", 10),
        ("bytes=0-", 0),
        ("bytes=20-30, 40-", 10),
    ] {
        assert_eq!(read(value, len), Ranges::Unsatisfiable, "{value} of {len}");
    }
    // The last bytes of nothing are nothing, which no `Content-Range` can express.
    assert_eq!(read("bytes=-5", 0), Ranges::Whole);
}

/// RFC 9110 section 14.2: an invalid field, and a unit that is not understood, are ignored.
#[test]
fn what_is_no_byte_range_is_ignored() {
    for value in [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=a-b",
        "bytes=1",
        "bytes=-",
        "bytes=--1",
        "bytes=5-2",
        "bytes=1-2-3",
        "bytes=1 -2",
        "bytes=+1-2",
        "bytes:1-2",
        "lines=1-2",
        "bytes=0-1, x",
        "bytes=0-1, 5-2",
    ] {
        assert_eq!(read(value, 10), Ranges::Whole, "{value}");
    }
}

#[test]
fn several_ranges_keep_the_order_asked_for() {
    is("bytes=0-1,4-5", 10, &[(0, 2), (4, 6)]);
    is("bytes=8-, ,0-1", 10, &[(8, 10), (0, 2)]);
    is("bytes=0-1, 20-30", 10, &[(0, 2)]);
    is("bytes=0-1,2-3", 10, &[(0, 2), (2, 4)]);
}

/// RFC 9110 section 14.2.
#[test]
fn overlapping_ranges_are_joined_and_many_are_ignored() {
    is("bytes=4-8,0-5", 10, &[(0, 9)]);
    is("bytes=0-9,0-9,0-9", 10, &[(0, 10)]);
    assert_eq!(read("bytes=0-9,0-9,0-9,0-9", 10), Ranges::Whole);
    assert_eq!(read("bytes=0-0,2-2,4-4,6-6,8-8", 10), Ranges::Whole);
    assert_eq!(read("bytes=20-,21-,22-,23-,24-", 10), Ranges::Whole);
}

proptest! {
    /// Whatever is asked for: no more ranges than allowed, none empty or outside, none overlapping.
    #[test]
    fn answers_are_bounded(
        value in "bytes=(([0-9]{0,3})-([0-9]{0,3})[, ]{0,2}){0,8}",
        len in 0_u64..1000,
        max in 0_usize..8,
    ) {
        if let Ranges::Parts(mut ranges) = parse(value.as_bytes(), len, max) {
            prop_assert!(!ranges.is_empty() && ranges.len() <= max);
            ranges.sort_unstable_by_key(|range| range.start);
            let mut end = 0;
            for range in ranges {
                prop_assert!(end <= range.start && range.start < range.end && range.end <= len);
                end = range.end;
            }
        }
    }

    #[test]
    fn any_bytes_are_read(value in proptest::collection::vec(any::<u8>(), 0..120), len in any::<u64>()) {
        let _ = parse(&value, len, 16);
        let mut prefixed = b"bytes=".to_vec();
        prefixed.extend_from_slice(&value);
        let _ = parse(&prefixed, len, 16);
    }
}
