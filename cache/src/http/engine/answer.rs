//! The response a stored one becomes for one request.

use std::ops::Range;

use http::header::{self, HeaderMap};
use http::{HeaderValue, Method, StatusCode};

use super::cache_status::CacheStatus;
use super::conditional::{is_not_modified, range_applies};
use super::fields::{MAX_DELTA_SECONDS, set, single};
use super::head::StoredHead;
use super::policy::Policy;
use super::range::{self, Ranges};
use super::request::RequestView;
use super::time::UnixMs;

/// What is sent. The headers are complete: `Age`, `Cache-Status`, no hop-by-hop field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// The whole body (none for `HEAD`).
    Full { status: StatusCode, headers: HeaderMap },
    /// 304, no body.
    NotModified { headers: HeaderMap },
    /// A 206. For one range, `headers` have `Content-Range` and `Content-Length`, and the body is
    /// those bytes; for several, [`multipart::plan`](super::multipart::plan) completes both.
    Partial { headers: HeaderMap, ranges: Vec<Range<u64>> },
    /// 416, no body.
    RangeNotSatisfiable { headers: HeaderMap },
}

/// Builds the response to `request` from a stored one that [`decide`](super::decide) chose, or
/// that was just stored, freshened or allowed to stand in for a failure.
///
/// Evaluates `If-None-Match`, `If-Modified-Since`, `Range` and `If-Range` (RFC 9111 section
/// 4.3.2, RFC 9110 sections 13 and 14). `status` says how the cache handled the request; its
/// `ttl` is filled in here. Allocates the headers and nothing else unless the request has
/// conditions or a range.
pub(crate) fn answer(
    policy: &Policy,
    request: &RequestView<'_>,
    head: &StoredHead,
    body_len: u64,
    now: UnixMs,
    status: CacheStatus<'_>,
) -> Answer {
    let mut headers = head.headers.clone();
    let age = (head.age_ms(now) / 1000).min(MAX_DELTA_SECONDS);
    set(&mut headers, header::AGE, HeaderValue::from(age));
    CacheStatus { ttl: Some(head.ttl_seconds(now)), ..status }.append_to(&mut headers);

    if is_not_modified(request, head, now) {
        leave_metadata_of_304(&mut headers);
        return Answer::NotModified { headers };
    }
    match ranges(policy, request, head, body_len, now) {
        Ranges::Whole => {
            let lengthless = *request.method == Method::HEAD
                && head.status != StatusCode::NO_CONTENT
                && !headers.contains_key(header::CONTENT_LENGTH);
            if lengthless {
                set(&mut headers, header::CONTENT_LENGTH, HeaderValue::from(body_len));
            }
            Answer::Full { status: head.status, headers }
        }
        Ranges::Parts(ranges) => {
            if request.headers.contains_key(header::IF_RANGE) {
                leave_metadata_of_206(&mut headers);
            }
            if let [range] = ranges.as_slice() {
                insert_content_range(&mut headers, range, body_len);
            } else {
                headers.remove(header::CONTENT_LENGTH);
            }
            Answer::Partial { headers, ranges }
        }
        Ranges::Unsatisfiable => {
            for name in CONTENT {
                headers.remove(name);
            }
            if let Ok(value) = HeaderValue::try_from(format!("bytes */{body_len}")) {
                set(&mut headers, header::CONTENT_RANGE, value);
            }
            Answer::RangeNotSatisfiable { headers }
        }
    }
}

/// Ranges are for `GET` and for what would be a 200 (RFC 9110 section 14.2).
fn ranges(
    policy: &Policy,
    request: &RequestView<'_>,
    head: &StoredHead,
    body_len: u64,
    now: UnixMs,
) -> Ranges {
    let asked = *request.method == Method::GET
        && head.status == StatusCode::OK
        && request.headers.contains_key(header::RANGE);
    if !asked || !range_applies(request, head, now) {
        return Ranges::Whole;
    }
    let value = single(request.headers, &header::RANGE);
    value.map_or(Ranges::Whole, |value| range::parse(value.as_bytes(), body_len, policy.max_ranges))
}

fn insert_content_range(headers: &mut HeaderMap, range: &Range<u64>, body_len: u64) {
    let text = format!("bytes {}-{}/{body_len}", range.start, range.end.saturating_sub(1));
    if let Ok(value) = HeaderValue::try_from(text) {
        set(headers, header::CONTENT_RANGE, value);
    }
    let len = range.end.saturating_sub(range.start);
    set(headers, header::CONTENT_LENGTH, HeaderValue::from(len));
}

/// What describes a body that is not sent.
const CONTENT: [header::HeaderName; 5] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
];

/// A 304 carries what updates a cache, and no other description of the representation (RFC 9110
/// section 15.4.5). `Last-Modified` serves only where there is no `ETag`.
fn leave_metadata_of_304(headers: &mut HeaderMap) {
    for name in CONTENT {
        headers.remove(name);
    }
    if headers.contains_key(header::ETAG) {
        headers.remove(header::LAST_MODIFIED);
    }
}

/// A client that sent `If-Range` has the description already (RFC 9110 section 15.3.7).
fn leave_metadata_of_206(headers: &mut HeaderMap) {
    for name in [header::CONTENT_ENCODING, header::CONTENT_LANGUAGE, header::LAST_MODIFIED] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests;
