//! Different keys differ, the same key is the same, and no secret is to be seen.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use super::*;

/// One key of several parts.
struct Parts(Box<dyn Fn(&mut KeyParts)>);

impl RateKey for Parts {
    fn parts(&self, parts: &mut KeyParts) {
        (self.0)(parts);
    }
}

fn parts(write: impl Fn(&mut KeyParts) + 'static) -> Parts {
    Parts(Box::new(write))
}

/// Keys that differ, though some of them look alike.
fn different() -> Vec<Parts> {
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    vec![
        parts(|_| ()),
        parts(|parts| parts.text("")),
        parts(|parts| parts.secret(b"")),
        parts(|parts| parts.text("ab")),
        parts(|parts| parts.secret(b"ab")),
        parts(|parts| ["a", "b"].map(|text| parts.text(text)).into_iter().collect()),
        parts(|parts| ["", "ab"].map(|text| parts.text(text)).into_iter().collect()),
        parts(|parts| ["ab", ""].map(|text| parts.text(text)).into_iter().collect()),
        parts(|parts| parts.text("a:t=b")),
        parts(|parts| parts.text("a%3At=b")),
        parts(|parts| parts.text("{a}")),
        parts(|parts| parts.text("ä")),
        parts(|parts| parts.text("a\0")),
        parts(|parts| parts.number(7)),
        parts(|parts| parts.text("7")),
        parts(move |parts| parts.address(address)),
        parts(|parts| parts.text("10.0.0.1")),
        parts(|parts| parts.address("2001:db8::1".parse().expect("an address"))),
        parts(|parts| parts.text("2001-db8--1")),
        parts(|parts| parts.text(&"x".repeat(500))),
        parts(|parts| parts.text(&"x".repeat(501))),
    ]
}

fn hash(state: &RandomState, key: &Parts) -> u64 {
    let mut written = KeyParts::hashed(state);
    key.parts(&mut written);
    match written.finish() {
        Key::Hash(hash) => hash,
        #[cfg(feature = "redis")]
        Key::Text(text) => panic!("hashed, not spelled: {text}"),
    }
}

#[test]
fn different_keys_have_different_hashes_and_the_same_key_the_same() {
    let state = RandomState::new();
    let hashes: HashSet<u64> = different().iter().map(|key| hash(&state, key)).collect();
    assert_eq!(hashes.len(), different().len());
    assert!(different().iter().all(|key| hashes.contains(&hash(&state, key))));
}

#[test]
fn an_ipv4_address_in_ipv6_clothes_is_itself() {
    let state = RandomState::new();
    let address = |text: &'static str| {
        hash(&state, &parts(move |parts| parts.address(text.parse().expect("an address"))))
    };
    assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
    assert_ne!(address("::ffff:10.0.0.1"), address("10.0.0.2"));
}

#[cfg(feature = "redis")]
mod spelled {
    use super::*;

    fn text(limit: &str, key: &Parts) -> String {
        let mut written = KeyParts::spelled(limit);
        key.parts(&mut written);
        match written.finish() {
            Key::Text(text) => text,
            Key::Hash(_) => panic!("spelled, not hashed"),
        }
    }

    #[test]
    fn different_keys_read_differently_and_in_plain_short_ascii() {
        let texts: HashSet<String> = different().iter().map(|key| text("api", key)).collect();
        assert_eq!(texts.len(), different().len());
        for text in &texts {
            assert!(text.len() < 200);
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            assert!(!text.contains(['{', '}']), "they choose the slot in a cluster");
        }
    }

    #[test]
    fn keys_of_two_limits_never_read_the_same() {
        let (a, b) = (parts(|parts| parts.text("c")), parts(|parts| parts.text("b:t=c")));
        assert_ne!(text("a:t=b", &a), text("a", &b));
    }

    #[test]
    fn operators_can_read_what_is_no_secret() {
        let key = parts(|parts| {
            parts.text("/users/{id}");
            parts.address("2001:db8::1".parse().expect("an address"));
            parts.number(7);
        });
        assert_eq!(text("api", &key), "api:t=/users/%7Bid%7D:a=2001-db8--1:n=7");
    }

    #[test]
    fn a_secret_is_not_to_be_seen() {
        let key = parts(|parts| parts.secret(b"hunter2"));
        let text = text("api", &key);
        assert!(!text.contains("hunter2"));
        // SHA-256 of it, so that all processes agree.
        assert_eq!(text, "api:s=f52fbd32b2b3b86ff88ef6c490628285");
    }
}

#[test]
fn debug_shows_nothing_of_a_key() {
    let mut written = KeyParts::hashed(&RandomState::new());
    written.secret(b"hunter2");
    assert_eq!(format!("{written:?}"), "KeyParts { .. }");
}
