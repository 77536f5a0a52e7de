//! Keys and tags of stored responses: tenant first, every part escaped.

use std::fmt::Write as _;

use http::{HeaderMap, Uri, header};

use crate::key::push_escaped;

/// Longest key. What is longer passes the cache by: a path of that length is an attack or a
/// mistake, and the entry's size would be unknown to the bound on entries.
const MAX_KEY: usize = 8 * 1024;

/// Most surrogate keys a response may have; with our own tags they stay within the core's 64.
pub(crate) const MAX_TAGS: usize = 60;

/// Longest surrogate key.
const MAX_TAG: usize = 1024;

/// The key of all stored answers to one target: tenant, host, path and query.
///
/// `None` if it is too long, or the target has no path (`*`, the authority of a `CONNECT`).
pub(crate) fn primary(
    tenant: Option<&str>,
    with_host: bool,
    uri: &Uri,
    headers: &HeaderMap,
) -> Option<String> {
    let path = uri.path_and_query()?.as_str();
    if !path.starts_with('/') {
        return None;
    }
    let host = if with_host { host(uri, headers) } else { b"" };
    let length = tenant.map_or(0, str::len) + host.len() + path.len();
    if length > MAX_KEY {
        return None;
    }
    // Room for a few escapes and the suffix of a variant.
    let mut key = String::with_capacity(length + 16);
    push_tenant(tenant, &mut key);
    key.push(':');
    push_host(host, &mut key);
    key.push(':');
    // Last, so that it needs no escape: whatever it holds, it is all of the rest.
    key.push_str(path);
    Some(key)
}

/// The key of one variant under a primary key. The separator cannot stand in a target.
pub(crate) fn variant(primary: &str, values: u128) -> String {
    let mut key = String::with_capacity(primary.len() + 33);
    key.push_str(primary);
    write!(key, " {values:032x}").expect("writing to a String cannot fail");
    key
}

/// The key that requests share who may share an answer. Those with credentials are apart: the
/// answer to them is seldom for all, and would mark the key for the others.
pub(crate) fn flight(mut key: String, headers: &HeaderMap) -> String {
    if headers.contains_key(header::AUTHORIZATION) {
        key.push_str(" authorized");
    }
    key
}

/// Whether a key is a primary key, or made of it by [`variant`] and [`flight`].
pub(crate) fn is_under(key: &str, primary: &str) -> bool {
    key.strip_prefix(primary).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// The tag of everything under a primary key.
pub(crate) fn target_tag(primary: &str) -> String {
    format!("uri:{primary}")
}

/// The tag of every variant.
pub(crate) const EVERYTHING: &str = "all";

/// The tag of everything a tenant has.
pub(crate) fn tenant_tag(tenant: &str) -> String {
    let mut tag = String::from("tenant:");
    push_tenant(Some(tenant), &mut tag);
    tag
}

/// The tag of a surrogate key of one tenant.
pub(crate) fn surrogate_tag(tenant: Option<&str>, key: &str) -> String {
    let mut tag = String::from("key:");
    push_tenant(tenant, &mut tag);
    tag.push(':');
    tag.push_str(key);
    tag
}

/// The surrogate keys that a response (or a purge) names: `Surrogate-Key`, separated by spaces,
/// and `Cache-Tag`, separated by commas.
///
/// `None` if there are too many or one is too long or no text: a response that could not be
/// purged by all its keys must not be stored.
pub(crate) fn surrogate_keys(headers: &HeaderMap) -> Option<Vec<String>> {
    let mut keys = Vec::new();
    for (name, separator) in [(SURROGATE_KEY, ' '), (CACHE_TAG, ',')] {
        for value in headers.get_all(name) {
            let text = std::str::from_utf8(value.as_bytes()).ok()?;
            for key in text.split(separator).map(str::trim).filter(|key| !key.is_empty()) {
                if key.len() > MAX_TAG || keys.len() == MAX_TAGS {
                    return None;
                }
                if !keys.iter().any(|known| known == key) {
                    keys.push(key.to_owned());
                }
            }
        }
    }
    Some(keys)
}

pub(crate) const SURROGATE_KEY: &str = "surrogate-key";
pub(crate) const CACHE_TAG: &str = "cache-tag";

/// The authority that a request is for; it counts only once, in HTTP/2 in the target.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a [u8] {
    match uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => headers.get(header::HOST).map_or(b"", |host| host.as_bytes()),
    }
}

/// `-` for no tenant, `=` and the name for one: no name is the absence of one.
fn push_tenant(tenant: Option<&str>, out: &mut String) {
    match tenant {
        None => out.push('-'),
        Some(tenant) => {
            out.push('=');
            push_escaped(tenant, out);
        }
    }
}

/// Lower case, since hosts do not differ by case; bytes that no host has are escaped.
fn push_host(host: &[u8], out: &mut String) {
    for &byte in host {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'[' | b']' => {
                out.push(char::from(byte));
            }
            b'A'..=b'Z' => out.push(char::from(byte.to_ascii_lowercase())),
            other => write!(out, "%{other:02X}").expect("writing to a String cannot fail"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn with_host(host: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))])
    }

    #[test]
    fn a_key_has_tenant_host_path_and_query() {
        let key = |tenant, uri: &str, host| {
            primary(tenant, true, &uri.parse().unwrap(), &with_host(host))
        };
        assert_eq!(key(None, "/a?b=1", "Shop.Example:80").unwrap(), "-:shop.example%3A80:/a?b=1");
        assert_eq!(key(Some("7:x"), "/a", "h").unwrap(), "=7%3Ax:h:/a");
        assert_eq!(key(None, "http://other/a", "h").unwrap(), "-:other:/a");
        assert_eq!(key(None, "*", "h"), None);
        let long = format!("/{}", "a".repeat(MAX_KEY));
        assert_eq!(key(None, &long, "h"), None);
        let uri = "/a".parse().unwrap();
        assert_eq!(primary(None, false, &uri, &with_host("h")).unwrap(), "-::/a");
    }

    #[test]
    fn surrogate_keys_come_from_both_fields_once_each() {
        let mut headers = HeaderMap::new();
        headers.append(SURROGATE_KEY, HeaderValue::from_static("a  b"));
        headers.append(SURROGATE_KEY, HeaderValue::from_static("c"));
        headers.append(CACHE_TAG, HeaderValue::from_static("b, d e ,"));
        assert_eq!(surrogate_keys(&headers).unwrap(), ["a", "b", "c", "d e"]);
        let many = (0..=MAX_TAGS).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        headers.append(SURROGATE_KEY, HeaderValue::try_from(many).unwrap());
        assert_eq!(surrogate_keys(&headers), None);
    }

    proptest! {
        #[test]
        fn keys_of_different_tenants_never_meet(
            a in proptest::option::of("[ab:%=\\-*?ü]{0,4}"),
            b in proptest::option::of("[ab:%=\\-*?ü]{0,4}"),
            host in "[a-b:]{0,3}",
            path in "/[ab:%*?]{0,4}",
            other_host in "[a-b:]{0,3}",
            other_path in "/[ab:%*?]{0,4}",
        ) {
            let key = |tenant: &Option<String>, host: &str, path: &str| {
                let headers = HeaderMap::from_iter([
                    (header::HOST, HeaderValue::try_from(host).unwrap()),
                ]);
                path.parse().ok().and_then(|uri| primary(tenant.as_deref(), true, &uri, &headers))
            };
            let (left, right) = (key(&a, &host, &path), key(&b, &other_host, &other_path));
            if let (Some(left), Some(right)) = (left, right) {
                let same = a == b && host == other_host && path == other_path;
                prop_assert_eq!(same, left == right);
            }
            let (left, right) = (surrogate_tag(a.as_deref(), &path), surrogate_tag(b.as_deref(), &other_path));
            prop_assert_eq!(a == b && path == other_path, left == right);
        }
    }
}
