//! Header fields that a proxy counts down or adds (RFC 9110, section 7.6).

use std::net::SocketAddr;

use axum::http::header::{EXPECT, HOST, MAX_FORWARDS, VIA};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::NAME;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whether a request may go one hop further; counts the hop.
///
/// Only `OPTIONS` knows the field (`TRACE` is refused). A value that is no number is left alone.
pub(super) fn hop_allowed(headers: &mut HeaderMap) -> bool {
    let left = headers.get(MAX_FORWARDS).and_then(|value| value.to_str().ok()?.parse().ok());
    match left {
        Some(0_u64) => false,
        Some(left) => {
            headers.insert(MAX_FORWARDS, HeaderValue::from(left - 1));
            true
        }
        None => true,
    }
}

/// Adds what the origin should know: through whom the request came, and from whom.
///
/// `Forwarded` is left as the client sent it. `X-Forwarded-Host` and `-Proto` are ours alone: an
/// origin that believes them would let a client choose what is stored for everybody.
pub(super) fn introduce(headers: &mut HeaderMap, version: Version, peer: Option<SocketAddr>) {
    via(headers, version);
    // Fulfilled here: hyper sends the 100 when the origin asks for the body.
    headers.remove(EXPECT);
    if let Some(peer) = peer {
        // A dual-stack listener shows IPv4 clients as mapped ones.
        let peer = peer.ip().to_canonical().to_string();
        append(headers, X_FORWARDED_FOR, &peer);
    }
    match headers.get(HOST).cloned() {
        Some(host) => headers.insert(X_FORWARDED_HOST, host),
        None => headers.remove(X_FORWARDED_HOST),
    };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
}

/// Adds this proxy to the ones a message came through; `version` is that of the message received.
pub(super) fn via(headers: &mut HeaderMap, version: Version) {
    let version = if version == Version::HTTP_10 { "1.0" } else { "1.1" };
    append(headers, VIA, &format!("{version} {NAME}"));
}

/// As a further member of a list, in one line: not every reader joins lines.
fn append(headers: &mut HeaderMap, name: HeaderName, member: &str) {
    let mut list: Vec<u8> = Vec::new();
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(member.as_bytes());
    // Each part was a value or is ASCII, so the list is one.
    if let Ok(list) = HeaderValue::from_bytes(&list) {
        headers.insert(name, list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn lists_grow_in_one_line() {
        let mut given = headers(&[
            ("host", "shop.example"),
            ("via", "1.0 a"),
            ("via", "1.1 b"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "gopher"),
            ("forwarded", "for=192.0.2.1"),
            ("expect", "100-continue"),
        ]);
        let peer = "[::ffff:192.0.2.2]:1".parse().unwrap();
        introduce(&mut given, Version::HTTP_10, Some(peer));
        let told = headers(&[
            ("host", "shop.example"),
            ("via", "1.0 a, 1.1 b, 1.0 cache-proxy"),
            ("x-forwarded-for", "192.0.2.1, 192.0.2.2"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=192.0.2.1"),
        ]);
        assert_eq!(given, told);
    }

    #[test]
    fn hops_are_counted_down() {
        for (given, allowed, left) in [
            (Some("2"), true, Some("1")),
            (Some("0"), false, Some("0")),
            (Some("-1"), true, Some("-1")),
            (Some("99999999999999999999999"), true, Some("99999999999999999999999")),
            (None, true, None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(given) = given {
                headers.insert(MAX_FORWARDS, HeaderValue::from_static(given));
            }
            assert_eq!(hop_allowed(&mut headers), allowed, "{given:?}");
            let found = headers.get(MAX_FORWARDS).map(|value| value.to_str().unwrap());
            assert_eq!(found, left, "{given:?}");
        }
    }
}
