//! What a client gets from the store: `Age`, conditions, ranges.

use super::super::testing::{
    NOW, Request, after, answered, at, get, headers_of, store, stored, values,
};
use super::*;

const CC: &str = "cache-control";
const TAGGED: [(&str, &str); 2] = [(CC, "max-age=600"), ("etag", "\"a\"")];

fn kind(answer: &Answer) -> u16 {
    match answer {
        Answer::Full { status, .. } => status.as_u16(),
        Answer::NotModified { .. } => 304,
        Answer::Partial { .. } => 206,
        Answer::RangeNotSatisfiable { .. } => 416,
    }
}

/// RFC 9111 section 4: `Age` is generated, and replaces a stored one.
#[test]
fn age_is_the_current_age_in_whole_seconds() {
    let head = stored(&[(CC, "max-age=600"), ("age", "30")]);
    let age = |now| values(headers_of(&answered(&head, &[], now)), "age").join("|");
    assert_eq!(age(NOW), "30");
    assert_eq!(age(NOW.plus(2_999)), "32");
    assert_eq!(age(UnixMs(0)), "30");
    assert_eq!(age(UnixMs(u64::MAX)), "2147483648");
}

/// RFC 9110 section 6.6.1: `Date` stays, and so does everything else that was stored.
#[test]
fn stored_fields_are_sent_unchanged() {
    let expires = at(600);
    let head = stored(&[("expires", &expires), ("link", "<a>"), ("link", "<b>"), ("x", "1")]);
    let answer = answered(&head, &[], after(10));
    let map = headers_of(&answer);
    assert_eq!(values(map, "date"), [at(0)]);
    assert_eq!(values(map, "expires"), [expires]);
    assert_eq!(values(map, "link"), ["<a>", "<b>"]);
    assert_eq!(kind(&answer), 200);
}

/// RFC 9211: the member of this cache, with what is left of the lifetime.
#[test]
fn cache_status_is_appended_with_the_remaining_lifetime() {
    let head = stored(&[(CC, "max-age=60"), ("cache-status", "origin;hit")]);
    let of = |now| values(headers_of(&answered(&head, &[], now)), "cache-status").join(", ");
    assert_eq!(of(after(10)), "origin;hit, test;hit;ttl=50");
    assert_eq!(of(after(100)), "origin;hit, test;hit;ttl=-40");
}

/// RFC 9110 section 9.3.2: the fields a `GET` would have, its length included.
#[test]
fn head_has_the_fields_of_get() {
    let length = |status: u16, lines: &[(&str, &str)]| {
        let head = store(&Policy::rfc(), &get(&[]), status, lines).unwrap();
        let request = Request::new("HEAD", "/page", &[("range", "bytes=0-1")]);
        let answer =
            answer(&Policy::rfc(), &request.view(), &head, 100, NOW, CacheStatus::hit("a"));
        assert_eq!(kind(&answer), status);
        values(headers_of(&answer), "content-length").join("|")
    };
    assert_eq!(length(200, &[(CC, "max-age=60")]), "100");
    assert_eq!(length(200, &[(CC, "max-age=60"), ("content-length", "7")]), "7");
    assert_eq!(length(204, &[(CC, "max-age=60")]), "");
}

/// RFC 9111 section 4.3.2, RFC 9110 section 13.1.2: weak comparison, `*`, lists.
#[test]
fn if_none_match_is_answered_from_the_store() {
    let check = |stored_tag: &str, condition: &str, expected: u16| {
        let head = stored(&[(CC, "max-age=600"), ("etag", stored_tag)]);
        let answer = answered(&head, &[("if-none-match", condition)], NOW);
        assert_eq!(kind(&answer), expected, "{stored_tag} {condition}");
    };
    check("\"a\"", "\"a\"", 304);
    check("W/\"a\"", "W/\"a\"", 304);
    check("\"a\"", "W/\"a\"", 304);
    check("\"a\"", "\"x\", \"a\", \"y\"", 304);
    check("\"a\"", "*", 304);
    check("\"a\"", "\"b\"", 200);
    check("\"a\"", "a", 200);
}

/// RFC 9110 section 13.1.3.
#[test]
fn if_modified_since_is_answered_from_the_store() {
    let modified = at(-3000);
    let head = stored(&[(CC, "max-age=600"), ("last-modified", &modified)]);
    let undated = stored(&[(CC, "max-age=600")]);
    let check = |head: &StoredHead, condition: &str, expected: u16| {
        let answer = answered(head, &[("if-modified-since", condition)], after(5));
        assert_eq!(kind(&answer), expected, "{condition}");
    };
    check(&head, &at(-3000), 304);
    check(&head, &at(-2000), 304);
    check(&head, &at(-3001), 200);
    check(&head, "Sunday, 06-Nov-94 08:49:37 GMT", 200);
    check(&head, "yesterday", 200);
    check(&head, "", 200);
    // RFC 9111 section 4.3.2: without `Last-Modified`, the response counts from its `Date`.
    check(&undated, &at(0), 304);
    check(&undated, &at(-1), 200);
    let twice = [("if-modified-since", modified.as_str()), ("if-modified-since", "x")];
    assert_eq!(kind(&answered(&head, &twice, NOW)), 200);
}

/// RFC 9110 section 13.2.2.
#[test]
fn if_none_match_wins_over_if_modified_since() {
    let modified = at(-5000);
    let head = stored(&[(CC, "max-age=600"), ("etag", "\"a\""), ("last-modified", &modified)]);
    let (older, newer) = (at(-10_000), at(0));
    let both = |tag, date: &str| {
        kind(&answered(&head, &[("if-none-match", tag), ("if-modified-since", date)], NOW))
    };
    assert_eq!(both("\"a\"", &older), 304);
    assert_eq!(both("\"b\"", &newer), 200);
    assert_eq!(both("garbage", &newer), 200);
}

/// RFC 9110 section 13.2.1: conditions are about successes.
#[test]
fn conditions_do_not_touch_other_statuses() {
    for (status, expected) in [(200, 304), (203, 304), (404, 404), (301, 301)] {
        let head = store(&Policy::rfc(), &get(&[]), status, &TAGGED).unwrap();
        assert_eq!(kind(&answered(&head, &[("if-none-match", "\"a\"")], NOW)), expected);
    }
}

/// RFC 9110 section 15.4.5.
#[test]
fn a_304_has_what_updates_a_cache_and_no_more() {
    let (modified, expires) = (at(-5000), at(600));
    let head = stored(&[
        (CC, "max-age=600"),
        ("etag", "\"a\""),
        ("expires", &expires),
        ("vary", "foo"),
        ("content-location", "/x"),
        ("last-modified", &modified),
        ("content-type", "text/plain"),
        ("content-length", "100"),
        ("content-encoding", "br"),
        ("content-language", "en"),
        ("x-other", "1"),
    ]);
    let answer = answered(&head, &[("if-none-match", "\"a\"")], NOW);
    let map = headers_of(&answer);
    for kept in [CC, "etag", "expires", "vary", "content-location", "date", "age", "x-other"] {
        assert!(map.contains_key(kept), "{kept}");
    }
    for gone in
        ["content-type", "content-length", "content-encoding", "content-language", "last-modified"]
    {
        assert!(!map.contains_key(gone), "{gone}");
    }
}

/// RFC 9110 section 14.2 and 15.3.7.
#[test]
fn ranges_are_cut_from_the_whole() {
    let head = stored(&[(CC, "max-age=600"), ("content-length", "100"), ("x-a", "1")]);
    let answer = answered(&head, &[("range", "bytes=10-19")], NOW);
    let Answer::Partial { headers, ranges } = &answer else { panic!("{answer:?}") };
    assert_eq!((ranges.len(), &ranges[0]), (1, &(10..20)));
    assert_eq!(values(headers, "content-range"), ["bytes 10-19/100"]);
    assert_eq!(values(headers, "content-length"), ["10"]);
    assert_eq!(values(headers, "x-a"), ["1"]);
    assert!(headers.contains_key("age"));

    let several = answered(&head, &[("range", "bytes=0-0,-1")], NOW);
    let Answer::Partial { headers, ranges } = &several else { panic!("{several:?}") };
    assert_eq!(ranges.as_slice(), [0..1, 99..100]);
    assert!(!headers.contains_key("content-range") && !headers.contains_key("content-length"));
}

/// RFC 9110 section 15.5.17.
#[test]
fn a_range_beyond_the_end_is_416() {
    let head = stored(&[(CC, "max-age=600"), ("content-type", "text/plain")]);
    let answer = answered(&head, &[("range", "bytes=100-")], NOW);
    assert_eq!(kind(&answer), 416);
    assert_eq!(values(headers_of(&answer), "content-range"), ["bytes */100"]);
    assert!(!headers_of(&answer).contains_key("content-type"));
}

/// RFC 9110 section 14.2: `Range` is for `GET` and 200 alone, and otherwise ignored.
#[test]
fn ranges_elsewhere_are_ignored() {
    let range = [("range", "bytes=0-1")];
    let missing = store(&Policy::rfc(), &get(&[]), 404, &TAGGED).unwrap();
    assert_eq!(kind(&answered(&missing, &range, NOW)), 404);
    let head = stored(&TAGGED);
    assert_eq!(kind(&answered(&head, &[("range", "lines=0-1")], NOW)), 200);
    assert_eq!(kind(&answered(&head, &[("range", "bytes=0-1"), ("range", "bytes=0-2")], NOW)), 200);
    assert_eq!(kind(&answered(&head, &[("if-range", "\"a\"")], NOW)), 200);
    // A condition that is met comes first (RFC 9110 section 13.2.2).
    let both = [("range", "bytes=0-1"), ("if-none-match", "\"a\"")];
    assert_eq!(kind(&answered(&head, &both, NOW)), 304);
}

/// RFC 9110 section 13.1.5.
#[test]
fn if_range_compares_strongly() {
    let (modified, recent) = (at(-3000), at(-30));
    let check = |lines: &[(&str, &str)], condition: &str, expected: u16| {
        let mut all = vec![(CC, "max-age=600")];
        all.extend_from_slice(lines);
        let answer =
            answered(&stored(&all), &[("range", "bytes=0-1"), ("if-range", condition)], NOW);
        assert_eq!(kind(&answer), expected, "{lines:?} {condition}");
    };
    check(&[("etag", "\"a\"")], "\"a\"", 206);
    check(&[("etag", "\"a\"")], "\"b\"", 200);
    check(&[("etag", "W/\"a\"")], "W/\"a\"", 200);
    check(&[("etag", "\"a\"")], "W/\"a\"", 200);
    check(&[], "\"a\"", 200);
    check(&[("last-modified", &modified)], &modified, 206);
    check(&[("last-modified", &modified)], &at(-2999), 200);
    // Too close to `Date` to be a strong validator.
    check(&[("last-modified", &recent)], &recent, 200);
    check(&[("etag", "\"a\"")], "garbage", 200);
}

/// RFC 9110 section 15.3.7: a client with `If-Range` has the description already.
#[test]
fn a_part_after_if_range_is_not_described_again() {
    let modified = at(-3000);
    let lines =
        [TAGGED[0], TAGGED[1], ("last-modified", modified.as_str()), ("content-language", "en")];
    let head = stored(&lines);
    let with = answered(&head, &[("range", "bytes=0-1"), ("if-range", "\"a\"")], NOW);
    assert!(!headers_of(&with).contains_key("last-modified"));
    assert!(!headers_of(&with).contains_key("content-language"));
    assert!(headers_of(&with).contains_key("etag"));
    let without = answered(&head, &[("range", "bytes=0-1")], NOW);
    assert!(headers_of(&without).contains_key("last-modified"));
    assert!(headers_of(&without).contains_key("content-language"));
}

/// A plain hit allocates for the headers it hands out, and nothing more than that.
#[test]
fn a_plain_hit_costs_only_its_headers() {
    let policy = Policy::rfc();
    let dated = at(0);
    let lines =
        [(CC, "max-age=600"), ("vary", "accept-language"), ("etag", "\"a\""), ("date", &*dated)];
    let request = get(&[("accept-language", "en, de"), ("user-agent", "x")]);
    let head = store(&policy, &request, 200, &lines).unwrap();
    let view = request.view();
    let deciding = allocation_counter::measure(|| {
        let view = RequestView::new(&request.method, &request.uri, &request.headers);
        let decision = super::super::decide(&policy, &view, &[&head], NOW);
        assert!(matches!(decision, super::super::Decision::Serve(_)));
    });
    assert_eq!(deciding.count_total, 0);
    let headers = allocation_counter::measure(|| {
        let mut headers = head.headers.clone();
        set(&mut headers, header::AGE, HeaderValue::from(0_u64));
        CacheStatus { ttl: Some(600), ..CacheStatus::hit("a") }.append_to(&mut headers);
    });
    let answering = allocation_counter::measure(|| {
        let _ = answer(&policy, &view, &head, 100, NOW, CacheStatus::hit("a"));
    });
    assert_eq!(answering.count_total, headers.count_total);
}
