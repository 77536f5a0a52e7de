//! The response that tells a caller to come again: status, `Retry-After`, problem document.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};

/// Marks a response that says nothing about any backend: one of our layers has refused the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnRefusal;

/// A refusal as a document of RFC 9457. `extra` is further members as JSON, each behind a comma,
/// or nothing.
///
/// `title` and `detail` must need no escaping in JSON: they are written into the document as they
/// are. The document names no part of this server: what it is made of is nobody's business outside.
pub(crate) fn refusal(
    status: StatusCode,
    kind: &str,
    title: &str,
    detail: &str,
    extra: &str,
    retry_after: Option<Duration>,
) -> Response {
    let code = status.as_u16();
    let document = format!(
        r#"{{"type":"{kind}","title":"{title}","status":{code},"detail":"{detail}"{extra}}}"#
    );
    let mut response = Response::new(Body::from(document));
    *response.status_mut() = status;
    response.extensions_mut().insert(OwnRefusal);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(time) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(time)));
    }
    response
}

/// The refusal of a part that is failing, full or on its way out.
pub(crate) fn unavailable(detail: &str, retry_after: Duration) -> Response {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    refusal(status, "about:blank", "Service Unavailable", detail, "", Some(retry_after))
}

/// Rounded up, and at least 1: a client told 0 would be back before anything can have changed.
pub(crate) fn whole_seconds(time: Duration) -> u64 {
    rounded_up(time).max(1)
}

/// Whole seconds, rounded up.
pub(crate) fn rounded_up(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}
