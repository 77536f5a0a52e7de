//! `Cache-Status` as RFC 9211 writes it.

use super::super::testing::{headers, values};
use super::*;

fn text(status: CacheStatus<'_>) -> String {
    status.to_value().unwrap().to_str().unwrap().to_owned()
}

/// RFC 9211 sections 2.1 to 2.8.
#[test]
fn each_parameter_is_written_as_defined() {
    let hit = CacheStatus::hit("escala");
    assert_eq!(text(hit), "escala;hit");
    assert_eq!(text(CacheStatus { ttl: Some(376), ..hit }), "escala;hit;ttl=376");
    assert_eq!(text(CacheStatus { ttl: Some(-412), ..hit }), "escala;hit;ttl=-412");
    let miss = CacheStatus::forwarded("escala", Fwd::UriMiss);
    assert_eq!(text(miss), "escala;fwd=uri-miss");
    let full = CacheStatus {
        fwd: Some(Fwd::Stale),
        fwd_status: Some(StatusCode::NOT_MODIFIED),
        ttl: Some(60),
        stored: true,
        collapsed: true,
        key: Some("/a?b"),
        detail: Some("no-store"),
        ..hit
    };
    let expected = "escala;fwd=stale;fwd-status=304;stored;collapsed;ttl=60;\
                    key=\"/a?b\";detail=\"no-store\"";
    assert_eq!(text(full), expected);
}

#[test]
fn each_reason_has_its_token() {
    let reasons = [
        (Fwd::Bypass, "bypass"),
        (Fwd::Method, "method"),
        (Fwd::UriMiss, "uri-miss"),
        (Fwd::VaryMiss, "vary-miss"),
        (Fwd::Request, "request"),
        (Fwd::Stale, "stale"),
    ];
    for (fwd, token) in reasons {
        assert_eq!(text(CacheStatus::forwarded("a", fwd)), format!("a;fwd={token}"));
    }
}

/// RFC 9211 section 2.1: `hit` and `fwd` exclude each other, and the rest belongs to `fwd`.
#[test]
fn a_hit_says_nothing_about_the_origin() {
    let confused = CacheStatus {
        fwd_status: Some(StatusCode::OK),
        stored: true,
        collapsed: true,
        ..CacheStatus::hit("a")
    };
    assert_eq!(text(confused), "a;hit");
}

#[test]
fn a_name_is_a_token_or_a_string() {
    assert_eq!(text(CacheStatus::hit("cdn.example/1")), "cdn.example/1;hit");
    assert_eq!(text(CacheStatus::hit("my \"cache\"")), "\"my \\\"cache\\\"\";hit");
    assert_eq!(text(CacheStatus::hit("1st")), "\"1st\";hit");
    assert_eq!(text(CacheStatus::hit("n\u{fc}")), "cache;hit");
    assert_eq!(text(CacheStatus::hit("")), "\"\";hit");
}

/// RFC 9211 section 2: members are in the order from the origin to the client.
#[test]
fn it_comes_after_the_caches_nearer_the_origin() {
    let mut map = headers(&[("cache-status", "origin;hit")]);
    CacheStatus::hit("escala").append_to(&mut map);
    assert_eq!(values(&map, "cache-status"), ["origin;hit", "escala;hit"]);
}

#[test]
fn what_cannot_be_written_is_left_out_and_numbers_are_bounded() {
    let status = CacheStatus { key: Some("/\u{fc}"), ttl: Some(i64::MIN), ..CacheStatus::hit("a") };
    assert_eq!(text(status), "a;hit;ttl=-999999999999999");
}
