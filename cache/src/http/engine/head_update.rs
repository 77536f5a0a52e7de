//! What the answer to a `HEAD` does to a stored `GET` response (RFC 9111 section 4.3.5).

use http::StatusCode;
use http::header::HeaderMap;

use super::freshen::Freshened;
use super::head::StoredHead;
use super::policy::Policy;
use super::request::RequestView;
use super::time::UnixMs;

/// What becomes of the stored response.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum HeadUpdate {
    /// It has the new headers.
    Update(Box<Freshened>),
    /// It is another representation: stale, so expire it.
    Stale,
    /// The answer says nothing about it.
    Unrelated,
}

/// Compares a forwarded `HEAD`'s answer with a stored response that the request selects.
pub(crate) fn head_update(
    policy: &Policy,
    request: &RequestView<'_>,
    stored: (&StoredHead, u64),
    answer: (StatusCode, &HeaderMap),
    request_at: UnixMs,
    response_at: UnixMs,
) -> HeadUpdate {
    let _ = (policy, request, stored, answer, request_at, response_at);
    HeadUpdate::Unrelated
}
