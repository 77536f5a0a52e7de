//! Which stored response a 304 is about, and what it changes.

use super::super::testing::{NOW, after, at, get, headers, store, stored, values};
use super::*;

const CC: &str = "cache-control";

fn fresh(head: &StoredHead, update: &[(&str, &str)]) -> Freshened {
    let request = get(&[]);
    freshen(&Policy::rfc(), &request.view(), head, &headers(update), after(100), after(100))
}

fn nominate(stored: &[&StoredHead], update: &[(&str, &str)]) -> Vec<usize> {
    nominated(stored, &headers(update), after(100))
}

/// RFC 9111 section 4.3.4, strong validators: all that have it, and no other.
#[test]
fn a_strong_tag_confirms_all_that_have_it() {
    let (one, two, three) =
        (stored(&[("etag", "\"a\"")]), stored(&[("etag", "\"b\"")]), stored(&[("etag", "\"a\"")]));
    let all = [&one, &two, &three];
    assert_eq!(nominate(&all, &[("etag", "\"a\"")]), [0, 2]);
    assert_eq!(nominate(&all, &[("etag", "\"c\"")]), [0; 0]);
    assert_eq!(nominate(&[&one], &[("etag", "\"c\"")]), [0; 0]);
    let weak = stored(&[("etag", "W/\"a\"")]);
    assert_eq!(nominate(&[&weak], &[("etag", "\"a\"")]), [0; 0]);
}

/// RFC 9111 section 4.3.4, weak validators: the most recent that has it.
#[test]
fn a_weak_validator_confirms_the_most_recent_that_has_it() {
    let (dated, modified) = (at(-50), at(-10));
    let older = store(&Policy::rfc(), &get(&[]), 200, &[("etag", "W/\"a\""), ("date", &dated)]);
    let (older, newer) = (older.unwrap(), stored(&[("etag", "\"a\"")]));
    assert_eq!(nominate(&[&newer, &older], &[("etag", "W/\"a\"")]), [0]);
    assert_eq!(nominate(&[&older, &newer], &[("etag", "W/\"a\"")]), [1]);
    assert_eq!(nominate(&[&older], &[("etag", "W/\"b\"")]), [0; 0]);
    let by_date = stored(&[("last-modified", &modified)]);
    let twin = by_date.clone();
    let (same, other) = ([("last-modified", modified.as_str())], at(-11));
    assert_eq!(nominate(&[&by_date], &same), [0]);
    // 110 seconds lie between it and this answer: a strong validator.
    assert_eq!(nominate(&[&by_date, &twin], &same).len(), 2);
    assert_eq!(nominate(&[&by_date], &[("last-modified", &other)]), [0; 0]);
}

/// RFC 9111 section 4.3.4: without any validator, only where a single response was asked about.
#[test]
fn a_304_without_a_validator_confirms_the_only_one() {
    let (one, two) = (stored(&[("etag", "\"a\"")]), stored(&[(CC, "max-age=9")]));
    assert_eq!(nominate(&[&one], &[]), [0]);
    assert_eq!(nominate(&[&two], &[]), [0]);
    assert_eq!(nominate(&[&one, &two], &[]), [0; 0]);
    assert_eq!(nominate(&[], &[]), [0; 0]);
}

/// RFC 9111 section 3.2: each field of the 304 replaces all its former values; others stay.
#[test]
fn fields_are_replaced_and_the_rest_stays() {
    let head = stored(&[
        (CC, "max-age=1"),
        ("etag", "\"a\""),
        ("x-old", "1"),
        ("link", "<a>"),
        ("link", "<b>"),
        ("content-type", "text/plain"),
        ("content-security-policy", "none"),
    ]);
    let dated = at(100);
    let updated = fresh(
        &head,
        &[
            ("date", &dated),
            (CC, "max-age=3600"),
            ("etag", "\"a\""),
            ("link", "<c>"),
            ("link", "<d>"),
            ("content-type", "text/html"),
            ("x-new", "2"),
        ],
    );
    assert_eq!(updated.fate, Fate::Replace);
    let map = &updated.head.headers;
    assert_eq!(values(map, "link"), ["<c>", "<d>"]);
    assert_eq!(values(map, "x-old"), ["1"]);
    assert_eq!(values(map, "x-new"), ["2"]);
    assert_eq!(values(map, "content-type"), ["text/html"]);
    assert_eq!(values(map, "content-security-policy"), ["none"]);
    assert_eq!(values(map, "date"), [dated]);
    assert_eq!(updated.head.lifetime_ms, 3_600_000);
    assert_eq!(updated.head.response_at, after(100));
    assert!(updated.head.remaining_ms(after(100)) > 3_500_000);
}

/// RFC 9111 section 3.2: `Content-Length` and what 3.1 excludes; and the coding of stored bytes.
#[test]
fn what_describes_the_stored_bytes_stays() {
    let head = stored(&[
        (CC, "max-age=1"),
        ("etag", "\"a\""),
        ("content-length", "36"),
        ("content-encoding", "gzip"),
        ("x-hop", "stored"),
    ]);
    let updated = fresh(
        &head,
        &[
            ("content-length", "10"),
            ("content-encoding", "br"),
            ("content-range", "bytes 0-1/2"),
            ("connection", "x-hop"),
            ("x-hop", "304"),
            ("keep-alive", "1"),
            ("proxy-authenticate", "x"),
            ("transfer-encoding", "chunked"),
        ],
    );
    let map = &updated.head.headers;
    assert_eq!(values(map, "content-length"), ["36"]);
    assert_eq!(values(map, "content-encoding"), ["gzip"]);
    assert_eq!(values(map, "x-hop"), ["stored"]);
    for gone in
        ["content-range", "connection", "keep-alive", "proxy-authenticate", "transfer-encoding"]
    {
        assert!(!map.contains_key(gone), "{gone}");
    }
}

/// RFC 9111 section 4.2.3: the age is counted from the validation.
#[test]
fn the_age_starts_anew() {
    let head = stored(&[(CC, "max-age=10"), ("etag", "\"a\""), ("age", "9")]);
    let updated = fresh(&head, &[("etag", "\"a\"")]).head;
    assert_eq!(updated.age_ms(after(103)), 3000);
    assert_eq!(updated.date, after(100).seconds());
    let aged = fresh(&head, &[("etag", "\"a\""), ("age", "4")]).head;
    assert_eq!(aged.age_ms(after(103)), 7000);
}

/// RFC 9111 section 5.5: `Warning` codes 1xx do not survive a validation.
#[test]
fn obsolete_warnings_leave() {
    let head = stored(&[
        (CC, "max-age=1"),
        ("etag", "\"a\""),
        ("warning", "110 - \"stale\""),
        ("warning", "299 - \"mind\""),
    ]);
    assert_eq!(values(&fresh(&head, &[]).head.headers, "warning"), ["299 - \"mind\""]);
}

/// RFC 9111 section 3: what is stored after a validation has to be storable as well.
#[test]
fn a_304_that_forbids_storing_removes_the_response() {
    let head = stored(&[(CC, "max-age=1"), ("etag", "\"a\"")]);
    for (value, refusal) in [("no-store", Refusal::NoStore), ("private", Refusal::Private)] {
        let updated = fresh(&head, &[(CC, value), ("x", "1")]);
        assert_eq!(updated.fate, Fate::Remove(refusal));
        assert_eq!(values(&updated.head.headers, "x"), ["1"]);
    }
    assert_eq!(fresh(&head, &[("vary", "*")]).fate, Fate::Remove(Refusal::VaryStar));
}

/// RFC 9111 section 3.5: an authorized client's 304 is not for others.
#[test]
fn an_authorized_validation_leaves_the_stored_response_alone() {
    let head = stored(&[(CC, "max-age=1"), ("etag", "\"a\"")]);
    let request = get(&[("authorization", "x")]);
    let of = |update: &[(&str, &str)]| {
        freshen(&Policy::rfc(), &request.view(), &head, &headers(update), NOW, NOW).fate
    };
    assert_eq!(of(&[]), Fate::Leave);
    assert_eq!(of(&[(CC, "max-age=1, public")]), Fate::Replace);
}

/// RFC 9111 section 5.2.1.5: nothing of the answer to such a request is stored, a 304 included.
#[test]
fn a_validation_with_no_store_leaves_the_stored_response_alone() {
    let head = stored(&[(CC, "max-age=1"), ("etag", "\"a\"")]);
    let request = get(&[(CC, "no-store")]);
    let update = headers(&[(CC, "max-age=60"), ("x", "1")]);
    let updated = freshen(&Policy::rfc(), &request.view(), &head, &update, NOW, NOW);
    assert_eq!(updated.fate, Fate::Leave);
    assert_eq!(values(&updated.head.headers, "x"), ["1"]);
}

/// RFC 9111 section 4.1: the fields of the request that was validated select it from now on.
#[test]
fn vary_is_taken_from_the_validating_request() {
    let head = stored(&[(CC, "max-age=1"), ("etag", "\"a\"")]);
    let request = get(&[("foo", "1")]);
    let update = headers(&[("vary", "foo")]);
    let updated = freshen(&Policy::rfc(), &request.view(), &head, &update, NOW, NOW).head;
    assert!(updated.matches(&request.headers));
    assert!(!updated.matches(&headers(&[("foo", "2")])));
}

/// RFC 9111 section 5.2.2.4: successfully validated, it is sent, and validated again next time.
#[test]
fn no_cache_stays_after_a_validation() {
    let head = stored(&[(CC, "no-cache"), ("etag", "\"a\"")]);
    let updated = fresh(&head, &[("etag", "\"a\"")]);
    assert_eq!(updated.fate, Fate::Replace);
    assert!(updated.head.no_cache);
}
