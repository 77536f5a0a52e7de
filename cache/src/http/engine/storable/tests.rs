//! What may be stored, rule by rule (RFC 9111 section 3), and in what form.

use std::time::Duration;

use super::super::testing::{NOW, Request, after, at, get, headers, store, stored, values};
use super::*;

const CC: &str = "cache-control";

fn rfc(status: u16, lines: &[(&str, &str)]) -> Option<Refusal> {
    store(&Policy::rfc(), &get(&[]), status, lines).err()
}

fn safe(status: u16, lines: &[(&str, &str)]) -> Option<Refusal> {
    store(&Policy::safe(), &get(&[]), status, lines).err()
}

/// RFC 9111 section 3, first condition.
#[test]
fn only_answers_to_get_are_stored() {
    for method in ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "M-SEARCH", "POST"] {
        let request = Request::new(method, "/page", &[]);
        let refused = store(&Policy::rfc(), &request, 200, &[(CC, "max-age=60")]).err();
        assert_eq!(refused, Some(Refusal::Method), "{method}");
    }
    assert_eq!(rfc(200, &[(CC, "max-age=60")]), None);
}

/// RFC 9110 section 9.3.3.
#[test]
fn a_post_that_is_its_own_get_is_stored_by_policy() {
    let check = |policy: &Policy, status, lines: &[(&str, &str)]| {
        let request = Request::new("POST", "/page", &[("host", "a"), ("content-length", "3")]);
        store(policy, &request, status, lines).is_ok()
    };
    let own = [(CC, "max-age=60"), ("content-location", "/page")];
    assert!(check(&Policy::rfc(), 200, &own));
    assert!(!check(&Policy::safe(), 200, &own));
    assert!(!check(&Policy::rfc(), 201, &own));
    assert!(!check(&Policy::rfc(), 200, &[(CC, "max-age=60"), ("content-location", "/other")]));
    assert!(!check(&Policy::rfc(), 200, &[(CC, "max-age=60"), ("content-location", "//b/page")]));
    assert!(!check(&Policy::rfc(), 200, &[("content-location", "/page"), ("etag", "\"a\"")]));
}

/// RFC 9111 section 3, second condition, and RFC 6585.
#[test]
fn statuses_about_one_request_are_never_stored() {
    for status in [100, 101, 103, 304, 412, 416, 417, 428, 429, 431, 511, 226, 408, 425] {
        assert_eq!(rfc(status, &[(CC, "max-age=60, public")]), Some(Refusal::Status), "{status}");
    }
}

/// RFC 9111 section 3.3: parts are refused, and it says so.
#[test]
fn partial_content_is_refused_by_name() {
    let lines = [(CC, "max-age=60"), ("content-range", "bytes 0-1/2")];
    assert_eq!(rfc(206, &lines), Some(Refusal::Partial));
    assert_eq!(Refusal::Partial.as_str(), "partial");
}

/// RFC 9111 section 3: any other final status is stored with an explicit lifetime.
#[test]
fn final_statuses_are_stored_with_an_explicit_lifetime() {
    for status in
        [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599]
    {
        assert_eq!(rfc(status, &[(CC, "max-age=60")]), None, "{status}");
    }
    for status in [299, 401, 403, 407, 499, 500, 502, 503, 504, 599] {
        let refused = safe(status, &[(CC, "max-age=60")]);
        assert_eq!(refused, Some(Refusal::ErrorStatus), "{status}");
    }
    assert_eq!(safe(404, &[(CC, "max-age=60")]), None);
}

/// RFC 9111 section 5.2.2.5.
#[test]
fn no_store_is_not_stored() {
    let future = at(1000);
    for value in ["no-store", "max-age=60, No-Store", "no-store=x", "public, no-store"] {
        let refused = rfc(200, &[(CC, value), ("expires", &future)]);
        assert_eq!(refused, Some(Refusal::NoStore), "{value}");
    }
    let forced = Policy { forced_ttl: Some(Duration::from_secs(60)), ..Policy::safe() };
    let refused = store(&forced, &get(&[]), 200, &[(CC, "no-store")]).err();
    assert_eq!(refused, Some(Refusal::NoStore));
}

/// RFC 9111 section 5.2.2.3.
#[test]
fn must_understand_replaces_no_store_where_the_status_is_known() {
    let value = "max-age=60, no-store, must-understand";
    assert_eq!(rfc(200, &[(CC, value)]), None);
    assert_eq!(rfc(404, &[(CC, value)]), None);
    assert_eq!(rfc(599, &[(CC, value)]), Some(Refusal::NotUnderstood));
    assert_eq!(rfc(599, &[(CC, "max-age=60, must-understand")]), Some(Refusal::NotUnderstood));
    assert_eq!(rfc(206, &[(CC, value)]), Some(Refusal::Partial));
    assert_eq!(
        rfc(200, &[(CC, "max-age=60, no-store, must-understand=x")]),
        Some(Refusal::NoStore)
    );
}

/// RFC 9111 section 5.2.2.7.
#[test]
fn private_is_not_stored_and_private_fields_are_left_out() {
    assert_eq!(rfc(200, &[(CC, "private, max-age=60")]), Some(Refusal::Private));
    assert_eq!(rfc(200, &[(CC, "PRIVATE, public, max-age=60")]), Some(Refusal::Private));
    let head = stored(&[(CC, "private=\"x-user\", max-age=60"), ("x-user", "1"), ("x-page", "2")]);
    assert!(!head.headers.contains_key("x-user"));
    assert!(head.headers.contains_key("x-page"));
    assert_eq!(rfc(200, &[(CC, "private=\"vary\", max-age=60")]), Some(Refusal::Private));
}

/// RFC 9111 section 5.2.2.4: listed fields are not reused, so they are not stored.
#[test]
fn fields_that_no_cache_names_are_left_out() {
    let head = stored(&[
        (CC, "no-cache=\"a, B\""),
        (CC, "max-age=60"),
        ("a", "1"),
        ("b", "2"),
        ("c", "3"),
    ]);
    assert!(!head.headers.contains_key("a") && !head.headers.contains_key("b"));
    assert!(head.headers.contains_key("c") && !head.no_cache && !head.never_stale);
}

/// RFC 9111 section 3.5.
#[test]
fn answers_to_authorized_requests_need_permission() {
    let check = |policy: &Policy, value: &str| {
        store(policy, &get(&[("authorization", "x")]), 200, &[(CC, value)]).err()
    };
    let refused = Some(Refusal::Authorization);
    for value in ["max-age=60", "max-age=60, proxy-revalidate", "max-age=60, ext=public"] {
        assert_eq!(check(&Policy::rfc(), value), refused, "{value}");
    }
    for value in ["max-age=60, public", "s-maxage=60", "max-age=60, must-revalidate"] {
        assert_eq!(check(&Policy::rfc(), value), None, "{value}");
    }
    assert_eq!(check(&Policy::safe(), "max-age=60, public"), None);
    assert_eq!(check(&Policy::safe(), "s-maxage=60"), refused);
    assert_eq!(check(&Policy::safe(), "max-age=60, must-revalidate"), refused);
    let never = Policy { store_authorized: Authorized::Never, ..Policy::rfc() };
    assert_eq!(check(&never, "max-age=60, public"), refused);
}

/// RFC 9111 section 5.2.1.5.
#[test]
fn a_request_with_no_store_is_kept_out_by_policy() {
    let request = get(&[(CC, "no-store")]);
    let lines = [(CC, "max-age=60")];
    assert_eq!(store(&Policy::rfc(), &request, 200, &lines).err(), Some(Refusal::Request));
    let ignoring = Policy { honour_no_store: false, ..Policy::rfc() };
    assert!(store(&ignoring, &request, 200, &lines).is_ok());
}

/// Content in a `GET` is in no key, so an answer to it would poison the key.
#[test]
fn answers_to_a_get_with_content_are_kept_out() {
    for line in [("content-length", "5"), ("transfer-encoding", "chunked"), ("upgrade", "h2c")] {
        let refused = store(&Policy::rfc(), &get(&[line]), 200, &[(CC, "max-age=60")]).err();
        assert_eq!(refused, Some(Refusal::Request), "{line:?}");
    }
    let request = get(&[("content-length", "0")]);
    assert!(store(&Policy::rfc(), &request, 200, &[(CC, "max-age=60")]).is_ok());
    let view = request.view().with_body(true);
    let lines = headers(&[(CC, "max-age=60")]);
    let refused = admit(&Policy::rfc(), &view, StatusCode::OK, &lines, NOW, NOW).err();
    assert_eq!(refused, Some(Refusal::Request));
}

/// RFC 9111 section 4.1.
#[test]
fn vary_star_is_not_stored() {
    assert_eq!(rfc(200, &[(CC, "max-age=60"), ("vary", "foo, *")]), Some(Refusal::VaryStar));
    assert_eq!(rfc(200, &[(CC, "max-age=60"), ("vary", "foo bar")]), Some(Refusal::VaryStar));
}

/// RFC 9111 section 7.3 leaves cookies to the origin's directives; the policy does not.
#[test]
fn cookies_are_stored_only_by_policy_and_with_an_explicit_lifetime() {
    let cookie = ("set-cookie", "a=b");
    let modified = at(-1000);
    assert_eq!(safe(200, &[(CC, "max-age=60, public"), cookie]), Some(Refusal::SetCookie));
    assert_eq!(rfc(200, &[(CC, "max-age=60"), cookie]), None);
    assert_eq!(rfc(200, &[("last-modified", &modified), cookie]), Some(Refusal::SetCookie));
    let with_default = Policy { default_ttl: Some(Duration::from_secs(60)), ..Policy::rfc() };
    let refused = store(&with_default, &get(&[]), 200, &[cookie]).err();
    assert_eq!(refused, Some(Refusal::SetCookie));
    // Without the cookie itself, nothing speaks against it.
    assert_eq!(safe(200, &[(CC, "max-age=60, no-cache=\"set-cookie\""), cookie]), None);
    assert_eq!(safe(200, &[(CC, "max-age=60, private=\"set-cookie\""), cookie]), None);
}

/// RFC 9111 section 3, last condition.
#[test]
fn something_has_to_allow_storing() {
    let tag = ("etag", "\"a\"");
    let modified = at(-1000);
    let lm = ("last-modified", modified.as_str());
    assert_eq!(rfc(200, &[lm]), None);
    assert_eq!(rfc(201, &[lm]), Some(Refusal::NoLifetime));
    assert_eq!(rfc(201, &[lm, (CC, "public")]), None);
    assert_eq!(rfc(200, &[tag]), None);
    assert_eq!(rfc(302, &[tag]), Some(Refusal::NoLifetime));
    assert_eq!(safe(200, &[lm, tag]), Some(Refusal::NoLifetime));
    assert_eq!(safe(200, &[tag, (CC, "no-cache")]), None);
}

#[test]
fn what_can_neither_be_served_nor_validated_is_not_stored() {
    assert_eq!(safe(200, &[(CC, "max-age=0")]), Some(Refusal::Useless));
    assert_eq!(rfc(200, &[(CC, "no-cache")]), Some(Refusal::Useless));
    assert_eq!(rfc(200, &[(CC, "max-age=0")]), Some(Refusal::Useless));
    assert_eq!(rfc(200, &[]), Some(Refusal::Useless));
    assert_eq!(rfc(200, &[(CC, "max-age=0, must-revalidate")]), Some(Refusal::Useless));
    assert_eq!(safe(200, &[(CC, "max-age=60"), ("age", "60")]), Some(Refusal::Useless));
    assert_eq!(safe(200, &[(CC, "max-age=60"), ("age", "59")]), None);
    assert_eq!(safe(200, &[(CC, "max-age=0"), ("etag", "\"a\"")]), None);
    assert_eq!(safe(200, &[(CC, "max-age=0"), ("etag", "a")]), Some(Refusal::Useless));
    assert_eq!(safe(200, &[(CC, "max-age=0, stale-while-revalidate=9")]), None);
}

/// RFC 9213 section 2.2.
#[test]
fn a_targeted_field_decides_alone() {
    let cdn = "cdn-cache-control";
    assert_eq!(rfc(200, &[(CC, "no-store"), (cdn, "max-age=60")]), None);
    assert_eq!(rfc(200, &[(CC, "max-age=60"), (cdn, "no-store")]), Some(Refusal::NoStore));
    assert_eq!(rfc(200, &[(CC, "max-age=60"), (cdn, "private")]), Some(Refusal::Private));
    assert_eq!(rfc(200, &[(CC, "no-store"), (cdn, "max-age=60, &")]), Some(Refusal::NoStore));
    assert_eq!(rfc(200, &[(CC, "no-store"), (cdn, "max-age=\"60\"")]), Some(Refusal::NoStore));
    let head = stored(&[(CC, "max-age=60"), (cdn, "no-cache"), ("etag", "\"a\"")]);
    assert!(head.no_cache);
}

/// RFC 9111 section 3.1: all fields are stored, unknown and repeated ones too, in order.
#[test]
fn every_other_field_is_kept_in_order() {
    let head = stored(&[
        (CC, "max-age=60"),
        ("x-unknown", "1"),
        ("link", "<a>"),
        ("link", "<b>"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("content-md5", "x"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("age", "5"),
    ]);
    assert_eq!(values(&head.headers, "link"), ["<a>", "<b>"]);
    assert_eq!(values(&head.headers, "set-cookie"), ["a=1", "b=2"]);
    assert_eq!(values(&head.headers, "x-unknown"), ["1"]);
    assert!(head.headers.contains_key("content-md5"));
    for gone in ["connection", "x-hop", "age"] {
        assert!(!head.headers.contains_key(gone), "{gone}");
    }
    assert_eq!(head.initial_age_ms, 5000);
}

/// RFC 9110 section 6.6.1: without a valid `Date`, the time it arrived.
#[test]
fn a_missing_or_invalid_date_is_the_time_it_arrived() {
    let policy = Policy::rfc();
    let expected = date::format(after(3).seconds());
    for lines in [
        vec![(CC, "max-age=60")],
        vec![(CC, "max-age=60"), ("date", "yesterday")],
        vec![(CC, "max-age=60"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("date", "x")],
    ] {
        let request = get(&[]);
        let map = headers(&lines);
        let head = admit(&policy, &request.view(), StatusCode::OK, &map, NOW, after(3)).unwrap();
        assert_eq!(head.headers.get_all("date").iter().collect::<Vec<_>>(), [&expected]);
        assert_eq!(head.date, after(3).seconds());
        assert_eq!(head.initial_age_ms, 3000);
    }
}

#[test]
fn only_lasting_refusals_mark_a_key() {
    for refusal in [Refusal::NoStore, Refusal::Private, Refusal::SetCookie, Refusal::VaryStar] {
        assert!(refusal.is_lasting(), "{refusal:?}");
    }
    for refusal in [Refusal::ErrorStatus, Refusal::Status, Refusal::Authorization, Refusal::Request]
    {
        assert!(!refusal.is_lasting(), "{refusal:?}");
    }
}
