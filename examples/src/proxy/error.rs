//! Why there is no response of the origin, and how a client is told.

use std::io;

use axum::Json;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse as _;
use serde_json::json;

use super::NAME;

/// The origin did not answer, or not as it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum OriginError {
    /// No connection could be made.
    #[error("the origin cannot be connected to")]
    Connect(#[source] hyper_util::client::legacy::Error),
    /// The origin was silent for too long.
    #[error("the origin was silent for too long")]
    Timeout,
    /// The connection ended in the middle.
    #[error("the origin closed the connection")]
    Closed(#[source] hyper_util::client::legacy::Error),
    /// What came is not HTTP, or was not asked for.
    #[error("the origin sent what is no response")]
    Protocol(#[source] Option<hyper_util::client::legacy::Error>),
    /// The client's own body ended early, so that the request could not be sent.
    #[error("the request's body ended early")]
    RequestBody(#[source] hyper_util::client::legacy::Error),
    /// The response's body ended early.
    #[error("the origin's body ended early")]
    ResponseBody(#[source] hyper::Error),
}

impl From<hyper_util::client::legacy::Error> for OriginError {
    fn from(error: hyper_util::client::legacy::Error) -> Self {
        if error.is_connect() {
            return Self::Connect(error);
        }
        match cause::<hyper::Error>(&error) {
            Some(cause) if cause.is_parse() => Self::Protocol(Some(error)),
            Some(cause) if cause.is_user() => Self::RequestBody(error),
            _ => Self::Closed(error),
        }
    }
}

impl OriginError {
    /// 502, or 504 if time ran out; 400 if it is the client's own fault.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Connect(error) if timed_out(error) => StatusCode::GATEWAY_TIMEOUT,
            Self::RequestBody(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// The proxy error type of RFC 9209.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Timeout => "http_response_timeout",
            Self::Connect(error) if timed_out(error) => "connection_timeout",
            Self::Connect(error) => match cause::<io::Error>(error).map(io::Error::kind) {
                Some(io::ErrorKind::ConnectionRefused) => "connection_refused",
                _ => "destination_unavailable",
            },
            Self::Closed(_) => "connection_terminated",
            Self::Protocol(_) => "http_protocol_error",
            Self::RequestBody(_) => "http_request_error",
            Self::ResponseBody(_) => "http_response_incomplete",
        }
    }

    /// What the client gets instead.
    pub(super) fn response(&self) -> Response<Body> {
        page(self.status(), Some(self.kind()), &self.to_string())
    }
}

fn timed_out(error: &hyper_util::client::legacy::Error) -> bool {
    cause::<io::Error>(error).is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// The first cause of its type.
fn cause<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    std::iter::successors(error.source(), |error| error.source())
        .find_map(|error| error.downcast_ref())
}

/// A response of the proxy's own: a problem document (RFC 9457) that nobody keeps.
pub(super) fn page(status: StatusCode, kind: Option<&'static str>, detail: &str) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or("Error");
    let problem = json!({ "title": title, "status": status.as_u16(), "detail": detail });
    let mut response = (status, Json(problem)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let status = match kind {
        Some(kind) => format!("{NAME}; error={kind}"),
        None => NAME.to_owned(),
    };
    if let Ok(value) = HeaderValue::try_from(status) {
        headers.insert(HeaderName::from_static("proxy-status"), value);
    }
    response
}
