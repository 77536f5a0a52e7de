//! Failures as responses: problem documents (RFC 9457).

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};

use crate::RouteError;

/// 503 with `Retry-After`. What a service is made of is nobody's business outside, so all of them
/// read the same.
impl IntoResponse for RouteError {
    fn into_response(self) -> Response {
        let detail = "no server can take this request at present";
        response(StatusCode::SERVICE_UNAVAILABLE, detail, self.retry_after())
    }
}

/// `detail` is written into JSON as it is.
pub(crate) fn response(
    status: StatusCode,
    detail: &str,
    retry_after: Option<Duration>,
) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let problem = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{},"detail":"{detail}"}}"#,
        status.as_u16()
    );
    let mut response = (status, problem).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        // Whole seconds are what a client can be told, and zero would be an invitation to hammer.
        let after = retry_after.unwrap_or_default();
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    response
}
