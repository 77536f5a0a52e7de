//! Requests and responses in the fewest words, for the engine's tests.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri};

use super::{
    Answer, CacheStatus, Decision, Policy, Refusal, RequestView, StoredHead, UnixMs, admit, answer,
    date, decide,
};

/// 2026-11-25 12:00:00 UTC.
pub(super) const NOW: UnixMs = UnixMs(1_795_608_000_000);

/// So many seconds after [`NOW`].
pub(super) fn after(seconds: u64) -> UnixMs {
    NOW.plus(seconds * 1000)
}

/// An HTTP date so many seconds from [`NOW`].
pub(super) fn at(seconds: i64) -> String {
    let seconds = NOW.seconds().saturating_add_signed(seconds);
    date::format(seconds).to_str().unwrap().to_owned()
}

/// Header lines, in order. Bytes above ASCII are taken as they are.
pub(super) fn headers<V: AsRef<[u8]>>(lines: &[(&str, V)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        let name: HeaderName = name.parse().unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_ref()).unwrap());
    }
    map
}

/// A request that owns its parts.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
}

impl Request {
    pub(super) fn new(method: &str, uri: &str, lines: &[(&str, &str)]) -> Self {
        let method = method.parse().unwrap();
        Self { method, uri: uri.parse().unwrap(), headers: headers(lines) }
    }

    pub(super) fn view(&self) -> RequestView<'_> {
        RequestView::new(&self.method, &self.uri, &self.headers)
    }
}

/// `GET /page` with these lines.
pub(super) fn get(lines: &[(&str, &str)]) -> Request {
    Request::new("GET", "/page", lines)
}

/// What is stored of an answer to `request` that took no time to arrive.
pub(super) fn store(
    policy: &Policy,
    request: &Request,
    status: u16,
    lines: &[(&str, &str)],
) -> Result<StoredHead, Refusal> {
    let status = StatusCode::from_u16(status).unwrap();
    admit(policy, &request.view(), status, &headers(lines), NOW, NOW)
}

/// A 200 to a plain `GET` under `Policy::rfc`, dated [`NOW`].
pub(super) fn stored(lines: &[(&str, &str)]) -> StoredHead {
    let dated = at(0);
    let mut all = vec![("date", dated.as_str())];
    all.extend_from_slice(lines);
    store(&Policy::rfc(), &get(&[]), 200, &all).unwrap()
}

/// What `Policy::rfc` decides about a `GET` with these lines, given one stored response.
pub(super) fn decision(head: &StoredHead, lines: &[(&str, &str)], now: UnixMs) -> Decision {
    decide(&Policy::rfc(), &get(lines).view(), &[head], now)
}

/// The answer to a `GET` with these lines, from a stored response with a body of 100 bytes.
pub(super) fn answered(head: &StoredHead, lines: &[(&str, &str)], now: UnixMs) -> Answer {
    let status = CacheStatus::hit("test");
    answer(&Policy::rfc(), &get(lines).view(), head, 100, now, status)
}

/// The headers of any answer.
pub(super) fn headers_of(answer: &Answer) -> &HeaderMap {
    match answer {
        Answer::Full { headers, .. }
        | Answer::NotModified { headers }
        | Answer::Partial { headers, .. }
        | Answer::RangeNotSatisfiable { headers } => headers,
    }
}

/// The values of a field, as text.
pub(super) fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}
