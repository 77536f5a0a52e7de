//! The fields of HTTP by which the cache decides.

use ::http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, VARY};
use ::http::{Method, StatusCode, Uri};
use sfv::{List, ListEntry, Parser};

use crate::http::Policy;
use crate::http::engine::cache_control::{CacheControl, RequestDirectives, Seconds};
use crate::http::engine::vary::{Vary, secondary_key};
use crate::http::engine::{
    CacheStatus, Decision, Fwd, RequestView, StoredHead, UnixMs, admit, answer, decide, targeted,
};

/// Past this a message would be refused before any cache sees it.
const MAX_LINES: usize = 64;
const NOW: UnixMs = UnixMs(1_800_000_000_000);

/// Lines of a `Cache-Control` field, of a response and of a request: what restricts the cache
/// cannot be hidden by what stands before it, and is obeyed.
pub fn cache_control(bytes: &[u8]) {
    let read = |more: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for line in lines(bytes).take(MAX_LINES) {
            headers.append(CACHE_CONTROL, line);
        }
        for line in more {
            headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
        }
        headers
    };
    let response = |more| CacheControl::parse(&read(more));
    let request = |more| RequestDirectives::parse(&read(more));
    assert_eq!(response(&[]), response(&[]));
    assert!(response(&["no-store"]).no_store);
    assert!(response(&["private"]).private.is_whole());
    assert!(response(&["no-cache"]).no_cache.is_whole());
    assert_eq!(response(&["max-age=1", "max-age=2"]).max_age, Seconds::Invalid);
    assert!(request(&["no-store"]).no_store);
    assert!(request(&["no-cache"]).no_cache);
    assert!(request(&["max-age=0"]).max_age == Some(0));
    for policy in [Policy::safe(), Policy::rfc()] {
        // RFC 9111 section 5.2.2.3: `must-understand` overrides it for a status that is.
        let refused = stored(&policy, &HeaderMap::new(), &read(&["no-store"])).is_none();
        assert!(refused || response(&[]).must_understand);
        assert!(stored(&policy, &HeaderMap::new(), &read(&["private"])).is_none());
        if let Some(head) = stored(&policy, &HeaderMap::new(), &read(&[])) {
            let directives = response(&[]);
            assert!(!directives.no_store || directives.must_understand);
            assert!(!directives.private.is_whole());
            for later in [0, 999, 1_000, 3_600_000, u64::MAX / 2] {
                serves(&policy, &head, &read(&[]), UnixMs(NOW.0 + later));
            }
        }
    }
}

/// A response's fields, an empty line, a request's fields, an empty line, another one's: the
/// second request gets the first one's response only if both make the same key.
pub fn vary(bytes: &[u8]) {
    let mut sections = sections(bytes);
    let (response, one, other) = (sections.next(), sections.next(), sections.next());
    let [response, one, other] = [response, one, other].map(Option::unwrap_or_default);
    let mut starred = response.clone();
    starred.append(VARY, HeaderValue::from_static("*"));
    assert_eq!(Vary::parse(&starred), Vary::Any);
    let Vary::Names(names) = Vary::parse(&response) else {
        assert!(stored(&Policy::rfc(), &one, &response).is_none());
        return;
    };
    assert!(names.is_sorted_by(|a, b| a.as_str() < b.as_str()), "{names:?}");
    let same_key = secondary_key(&names, &one) == secondary_key(&names, &other);
    let Some(head) = stored(&Policy::rfc(), &one, &fresh(response)) else { return };
    assert!(head.matches(&one), "a request does not match what it brought");
    assert_eq!(head.matches(&other), same_key, "{names:?}");
    if serves(&Policy::rfc(), &head, &other, NOW) {
        assert!(same_key, "served to another request: {names:?}");
    }
}

/// A targeted field of RFC 9213, and the `Cache-Status` of RFC 9211 written with names and keys
/// that may be anything, behind one that may be anything.
pub fn structured_fields(bytes: &[u8]) {
    let cdn = HeaderName::from_static("cdn-cache-control");
    let with = |more: &[u8]| targeted::parse(&[bytes, more].concat());
    if let Some(directives) = targeted::parse(bytes) {
        assert!(with(b", no-store").is_some_and(|more| more.no_store || directives.no_store));
        assert!(with(b", max-age=1").is_some_and(|more| more.max_age == Seconds::Is(1)));
    }
    let mut headers = HeaderMap::new();
    for line in lines(bytes).take(MAX_LINES) {
        headers.append(cdn.clone(), line.clone());
        headers.append("cache-status", line);
    }
    drop(targeted::select(&[cdn], &headers));
    drop(stored(&Policy::rfc(), &HeaderMap::new(), &headers));
    let text = &*String::from_utf8_lossy(bytes);
    let mut status = CacheStatus::forwarded(text, Fwd::Bypass);
    status.ttl = Some(i64::MIN);
    (status.stored, status.key, status.detail) = (true, Some(text), Some(text));
    let before = headers.get_all("cache-status").iter().count();
    status.append_to(&mut headers);
    let own = headers.get_all("cache-status").iter().nth(before).map(HeaderValue::as_bytes);
    let own: Option<List> = own.and_then(|own| Parser::new(own).parse().ok());
    // Of one member: whatever the key holds, it adds no cache that is not there.
    assert!(matches!(own.as_deref(), Some([ListEntry::Item(_)])), "{headers:?}");
}

/// What is stored of a response with these fields.
fn stored(policy: &Policy, request: &HeaderMap, response: &HeaderMap) -> Option<StoredHead> {
    let uri = Uri::from_static("/quotes?symbol=BTC");
    let view = RequestView::new(&Method::GET, &uri, request);
    admit(policy, &view, StatusCode::OK, response, NOW, NOW).ok()
}

/// Whether the stored response is served to a request with these fields without asking.
fn serves(policy: &Policy, head: &StoredHead, request: &HeaderMap, now: UnixMs) -> bool {
    let uri = Uri::from_static("/quotes?symbol=BTC");
    let view = RequestView::new(&Method::GET, &uri, request);
    let decision = decide(policy, &view, &[head], now);
    drop(answer(policy, &view, head, 1_000, now, CacheStatus::hit("fuzz")));
    matches!(decision, Decision::Serve(_))
}

/// The response, fresh for an hour.
fn fresh(mut response: HeaderMap) -> HeaderMap {
    response.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// Groups of `name: value` lines, parted by empty lines; other lines say nothing.
fn sections(bytes: &[u8]) -> impl Iterator<Item = HeaderMap> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest?;
        let end = bytes.windows(2).position(|pair| pair == b"\n\n");
        let section = &bytes[..end.unwrap_or(bytes.len())];
        rest = end.map(|end| &bytes[end + 2..]);
        let fields = section.split(|byte| *byte == b'\n').take(MAX_LINES).filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
        });
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        Some(headers)
    })
}

/// The lines that can be the value of a field.
fn lines(bytes: &[u8]) -> impl Iterator<Item = HeaderValue> + '_ {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok())
}
