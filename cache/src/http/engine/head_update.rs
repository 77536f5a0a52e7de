//! What the answer to a `HEAD` does to a stored `GET` response (RFC 9111 section 4.3.5).

use http::header::{self, HeaderMap, HeaderName};
use http::{HeaderValue, StatusCode};

use super::freshen::{Freshened, freshen};
use super::head::StoredHead;
use super::policy::Policy;
use super::request::RequestView;
use super::time::UnixMs;

/// What becomes of the stored response.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum HeadUpdate {
    /// It is the same representation, with new headers.
    Update(Box<Freshened>),
    /// It is another representation: stale, so expire it.
    Stale,
    /// The answer says nothing about it.
    Unrelated,
}

/// Compares a forwarded `HEAD`'s answer with a stored response (and the length of its body) that
/// the request selects.
pub(crate) fn head_update(
    policy: &Policy,
    request: &RequestView<'_>,
    stored: (&StoredHead, u64),
    answer: (StatusCode, &HeaderMap),
    request_at: UnixMs,
    response_at: UnixMs,
) -> HeadUpdate {
    let (head, body_len) = stored;
    let (status, headers) = answer;
    if status != StatusCode::OK || head.status != StatusCode::OK {
        return HeadUpdate::Unrelated;
    }
    if describes(headers, head, body_len) {
        let freshened = freshen(policy, request, head, headers, request_at, response_at);
        HeadUpdate::Update(Box::new(freshened))
    } else {
        HeadUpdate::Stale
    }
}

/// Whether every validator and the length in these headers are those of the stored response.
fn describes(headers: &HeaderMap, head: &StoredHead, body_len: u64) -> bool {
    let same = |name: &HeaderName| match headers.get(name) {
        Some(value) => head.headers.get(name) == Some(value),
        None => true,
    };
    let stored_len = match head.headers.get(header::CONTENT_LENGTH) {
        Some(value) => value.clone(),
        None => HeaderValue::from(body_len),
    };
    let same_len = headers.get(header::CONTENT_LENGTH).is_none_or(|len| *len == stored_len);
    same(&header::ETAG) && same(&header::LAST_MODIFIED) && same_len
}

#[cfg(test)]
mod tests;
