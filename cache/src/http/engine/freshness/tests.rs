//! Lifetimes by table: which source wins, and what makes one zero.

use std::time::Duration;

use super::super::testing::{NOW, at, headers};
use super::*;

fn lifetime_of(policy: &Policy, status: u16, lines: &[(&str, &str)]) -> (u64, Source) {
    let map = headers(lines);
    let governing = Governing::of(policy, &map);
    let status = StatusCode::from_u16(status).unwrap();
    let lifetime = lifetime(policy, &governing, status, &map, NOW.seconds(), NOW);
    assert_eq!(lifetime.ms % 1000, 0);
    (lifetime.ms / 1000, lifetime.source)
}

fn explicit(lines: &[(&str, &str)]) -> u64 {
    let (seconds, source) = lifetime_of(&Policy::rfc(), 200, lines);
    assert_eq!(source, Source::Explicit, "{lines:?}");
    seconds
}

const CC: &str = "cache-control";
const CDN: &str = "cdn-cache-control";

/// RFC 9111 section 4.2.1: `s-maxage`, `max-age`, `Expires`, in this order.
#[test]
fn the_more_specific_lifetime_wins() {
    let (past, future) = (at(-7200), at(7200));
    assert_eq!(explicit(&[(CC, "max-age=60")]), 60);
    assert_eq!(explicit(&[(CC, "max-age=60, s-maxage=5")]), 5);
    assert_eq!(explicit(&[(CC, "s-maxage=5, max-age=60")]), 5);
    assert_eq!(explicit(&[(CC, "max-age=60"), (CC, "s-maxage=5")]), 5);
    assert_eq!(explicit(&[(CC, "max-age=0, s-maxage=60"), ("expires", &past)]), 60);
    assert_eq!(explicit(&[("expires", &future)]), 7200);
    assert_eq!(explicit(&[(CC, "public"), ("expires", &future)]), 7200);
}

/// RFC 9111 section 5.3: with `max-age` or `s-maxage`, `Expires` is ignored.
#[test]
fn expires_is_ignored_beside_max_age() {
    let (past, future) = (at(-7200), at(7200));
    assert_eq!(explicit(&[(CC, "max-age=60"), ("expires", &past)]), 60);
    assert_eq!(explicit(&[(CC, "max-age=0"), ("expires", &future)]), 0);
    assert_eq!(explicit(&[(CC, "max-age=60"), ("expires", "0")]), 60);
    assert_eq!(explicit(&[(CC, "s-maxage=60"), ("expires", "0")]), 60);
}

/// RFC 9111 section 5.3: what is no date is in the past; so is `Date` itself.
#[test]
fn an_invalid_expires_is_already_expired() {
    let (now, future) = (at(0), at(7200));
    for value in ["0", "-1", "never", "", "Thu, 18 Aug 2050 02:01:18 UTC", now.as_str()] {
        assert_eq!(explicit(&[("expires", value)]), 0, "{value}");
    }
    assert_eq!(explicit(&[("expires", &future), ("expires", &at(9000))]), 0);
    assert_eq!(explicit(&[("expires", &future), ("expires", &future)]), 7200);
}

/// RFC 9111 section 4.2.1: invalid or contradicting freshness information means stale.
#[test]
fn an_invalid_lifetime_is_zero_and_no_other_stands_in() {
    let future = at(7200);
    for value in [
        "max-age=x",
        "max-age=-1",
        "max-age=60, max-age=61",
        "s-maxage=x, max-age=60",
        "max-age=60, ext=\"open",
    ] {
        assert_eq!(explicit(&[(CC, value), ("expires", &future)]), 0, "{value}");
    }
}

/// RFC 9213 section 2.2: a targeted field replaces `Cache-Control` and `Expires`.
#[test]
fn a_targeted_field_wins_over_everything() {
    let future = at(7200);
    assert_eq!(explicit(&[(CC, "max-age=60"), (CDN, "max-age=5")]), 5);
    assert_eq!(explicit(&[(CC, "s-maxage=5"), (CDN, "max-age=60")]), 60);
    assert_eq!(explicit(&[(CC, "max-age=60"), (CDN, "max-age=\"5\"")]), 60);
    let lines = [("expires", future.as_str()), (CDN, "public")];
    assert_eq!(lifetime_of(&Policy::rfc(), 200, &lines).1, Source::None);
    // A cache that does not list the field is not its target.
    let policy = Policy { targeted: Vec::new(), ..Policy::rfc() };
    assert_eq!(lifetime_of(&policy, 200, &[(CC, "max-age=60"), (CDN, "max-age=5")]).0, 60);
}

/// RFC 9111 section 4.2.2.
#[test]
fn heuristics_are_a_tenth_of_the_time_unchanged() {
    let rfc = Policy::rfc();
    let modified = at(-1000);
    let unchanged = [("last-modified", modified.as_str())];
    assert_eq!(lifetime_of(&rfc, 200, &unchanged), (100, Source::Heuristic));
    let old = at(-400 * 24 * 3600);
    let bound = (24 * 3600, Source::Heuristic);
    assert_eq!(lifetime_of(&rfc, 200, &[("last-modified", &old)]), bound);
    let ahead = at(1000);
    let none = (0, Source::Heuristic);
    assert_eq!(lifetime_of(&rfc, 200, &[("last-modified", &ahead)]), none);
    assert_eq!(lifetime_of(&rfc, 200, &[("last-modified", "x")]), (0, Source::None));
    assert_eq!(lifetime_of(&Policy::safe(), 200, &unchanged), (0, Source::None));
}

/// RFC 9111 section 4.2.2: MUST NOT be used when an explicit expiration time is present.
#[test]
fn heuristics_never_replace_an_explicit_lifetime() {
    let modified = at(-100_000);
    let lm = ("last-modified", modified.as_str());
    assert_eq!(explicit(&[(CC, "max-age=0"), lm]), 0);
    assert_eq!(explicit(&[(CC, "max-age=x"), lm]), 0);
    assert_eq!(explicit(&[("expires", "0"), lm]), 0);
}

/// RFC 9110 section 15.1, RFC 9111 section 5.2.2.9.
#[test]
fn heuristics_are_for_known_statuses_or_public() {
    let modified = at(-1000);
    for status in 200..600 {
        let plain = lifetime_of(&Policy::rfc(), status, &[("last-modified", &modified)]).1;
        let known = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501].contains(&status);
        assert_eq!(plain == Source::Heuristic, known, "{status}");
        let lines = [("last-modified", modified.as_str()), (CC, "public")];
        assert_eq!(lifetime_of(&Policy::rfc(), status, &lines).1, Source::Heuristic, "{status}");
    }
}

#[test]
fn a_routes_lifetimes_stand_where_they_are_meant_to() {
    let policy = Policy {
        default_ttl: Some(Duration::from_secs(600)),
        negative_ttl: Some(Duration::from_secs(5)),
        ..Policy::rfc()
    };
    let modified = at(-1000);
    let lm = ("last-modified", modified.as_str());
    assert_eq!(lifetime_of(&policy, 200, &[lm]), (600, Source::Default));
    assert_eq!(lifetime_of(&policy, 404, &[]), (5, Source::Default));
    assert_eq!(lifetime_of(&policy, 500, &[]), (0, Source::None));
    assert_eq!(lifetime_of(&policy, 200, &[(CC, "max-age=1")]), (1, Source::Explicit));
    let forced = Policy { forced_ttl: Some(Duration::from_secs(30)), ..policy };
    assert_eq!(lifetime_of(&forced, 200, &[(CC, "max-age=1")]), (30, Source::Forced));
    assert_eq!(lifetime_of(&forced, 500, &[(CC, "max-age=1")]), (1, Source::Explicit));
    let capped = Policy { max_ttl: Some(Duration::from_secs(10)), ..forced };
    assert_eq!(lifetime_of(&capped, 200, &[]), (10, Source::Forced));
    assert_eq!(lifetime_of(&capped, 404, &[(CC, "max-age=99")]), (10, Source::Explicit));
}

/// RFC 9111 section 4.2.4, RFC 5861.
#[test]
fn staleness_is_for_the_response_to_grant() {
    let of = |policy: &Policy, value: &str| {
        Stale::of(policy, &CacheControl::parse(&headers(&[(CC, value)])), 1000)
    };
    let safe = Policy::safe();
    let granted = of(&safe, "max-age=1, stale-while-revalidate=2, stale-if-error=3");
    assert_eq!((granted.while_revalidate_ms, granted.if_error_ms), (2000, 3000));
    assert_eq!(of(&safe, "max-age=1"), Stale::default());
    assert_eq!(of(&safe, "stale-if-error=x"), Stale::default());
    let lenient = Policy { stale_if_error: Duration::from_secs(9), ..Policy::safe() };
    assert_eq!(of(&lenient, "max-age=1").if_error_ms, 9000);
    assert_eq!(of(&lenient, "max-age=1, stale-if-error=0").if_error_ms, 0);
    for never in ["must-revalidate", "proxy-revalidate", "s-maxage=1", "s-maxage=x", "no-cache"] {
        let value = format!("{never}, stale-while-revalidate=2, stale-if-error=3");
        let expected = Stale { never: true, ..Stale::default() };
        assert_eq!(of(&Policy::rfc(), &value), expected, "{never}");
    }
    assert!(!of(&safe, "no-cache=\"a\"").never);
    // What was never fresh gets only what it asks for itself.
    let directives = CacheControl::parse(&headers(&[(CC, "stale-while-revalidate=2")]));
    let never_fresh = Stale { while_revalidate_ms: 2000, ..Stale::default() };
    assert_eq!(Stale::of(&Policy::rfc(), &directives, 0), never_fresh);
}
