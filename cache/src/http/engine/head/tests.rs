//! The stored form, and how long it is worth keeping.

use proptest::prelude::*;

use super::super::testing::{NOW, after, get, store, stored, values};
use super::*;

const CC: &str = "cache-control";

fn again(head: &StoredHead) -> StoredHead {
    let bytes = postcard::to_stdvec(head).unwrap();
    postcard::from_bytes(&bytes).unwrap()
}

#[test]
fn the_stored_form_keeps_every_value_in_order() {
    let request = get(&[("foo", "1, 2"), ("cookie", "a=b")]);
    let lines = [
        (CC, "max-age=60, stale-while-revalidate=5"),
        ("vary", "foo, cookie, accept"),
        ("set-cookie", "a=1"),
        ("link", "<a>"),
        ("set-cookie", "b=2"),
        ("etag", "\"\u{fc}\""),
    ];
    let head = store(&Policy::rfc(), &request, 404, &lines).unwrap();
    let read = again(&head);
    assert_eq!(read, head);
    assert_eq!(values(&read.headers, "set-cookie"), ["a=1", "b=2"]);
    let json = serde_json::to_string(&head).unwrap();
    assert_eq!(serde_json::from_str::<StoredHead>(&json).unwrap(), head);
}

#[test]
fn foreign_bytes_are_an_error() {
    let head = stored(&[(CC, "max-age=60")]);
    for (from, to) in [("\"date\"", "\"da te\""), ("\"status\":200", "\"status\":1000")] {
        let json = serde_json::to_string(&head).unwrap();
        assert!(json.contains(from));
        assert!(serde_json::from_str::<StoredHead>(&json.replace(from, to)).is_err(), "{to}");
    }
}

/// RFC 9111 section 4.2: `max-age=60` is fresh for 60 seconds, not 61.
#[test]
fn the_remaining_lifetime_falls_through_zero() {
    let head = stored(&[(CC, "max-age=60"), ("age", "10")]);
    assert_eq!(head.ttl_seconds(NOW), 50);
    assert_eq!(head.ttl_seconds(after(50)), 0);
    assert_eq!(head.remaining_ms(after(50).plus(1)), -1);
    assert_eq!(head.ttl_seconds(after(50).plus(1)), -1);
    // A clock that was set back makes nothing younger than it was on arrival.
    assert_eq!(head.age_ms(UnixMs(0)), 10_000);
}

#[test]
fn it_is_kept_while_it_can_be_used() {
    let policy = Policy { keep: Duration::from_secs(100), ..Policy::safe() };
    let retention = |value: &str, tag: bool| {
        let lines = [(CC, value), ("etag", if tag { "\"a\"" } else { "none" })];
        let head = store(&policy, &get(&[]), 200, &lines).unwrap();
        let Retention { fresh, stale } = head.retention(&policy, after(10));
        (fresh.as_secs(), stale.as_secs())
    };
    assert_eq!(retention("max-age=60", false), (50, 0));
    assert_eq!(retention("max-age=60", true), (50, 100));
    assert_eq!(retention("max-age=60, stale-if-error=300", false), (50, 300));
    assert_eq!(retention("max-age=60, stale-while-revalidate=30", true), (50, 100));
    assert_eq!(retention("no-cache, max-age=60", true), (0, 100));
    assert_eq!(retention("max-age=60, must-revalidate, stale-if-error=9", false), (50, 0));
}

#[test]
fn debug_shows_no_value() {
    let request = get(&[("cookie", "secret")]);
    let lines = [(CC, "max-age=60"), ("vary", "cookie"), ("set-cookie", "secret")];
    let head = store(&Policy::rfc(), &request, 200, &lines).unwrap();
    let text = format!("{head:?}");
    assert!(text.contains("set-cookie") && !text.contains("secret"), "{text}");
}

proptest! {
    /// Bytes from a shared store are read or refused, never trusted.
    #[test]
    fn any_bytes_are_read(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        now in any::<u64>(),
    ) {
        let _ = postcard::from_bytes::<StoredHead>(&bytes);
        let mut sealed = postcard::to_stdvec(&stored(&[(CC, "max-age=60"), ("vary", "foo")])).unwrap();
        let at = at.index(sealed.len());
        sealed[at] = byte;
        if let Ok(head) = postcard::from_bytes::<StoredHead>(&sealed) {
            let now = UnixMs(now);
            let _ = (head.remaining_ms(now), head.retention(&Policy::rfc(), now), head.is_useful(now));
        }
    }
}
