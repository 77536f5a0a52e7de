//! Errors as `application/problem+json` (RFC 9457): each names field, value and rule.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use escala_cache::LoadError;
use escala_replicas::RouteError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::store::StoreError;

/// An error as the client sees it.
#[derive(Debug, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    #[serde(serialize_with = "as_number")]
    status: StatusCode,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    #[serde(skip)]
    retry_after: Option<u64>,
}

fn as_number<S: serde::Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(status.as_u16())
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: String) -> Self {
        Self { kind, title, status, detail, field: None, retry_after: None }
    }

    /// 422: a field holds what it may not.
    #[must_use]
    pub fn invalid(field: &'static str, value: impl std::fmt::Display, rule: &str) -> Self {
        let detail = format!("{field} is {}: it {rule}", shown(&value.to_string()));
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self {
            field: Some(field),
            ..Self::new(status, "/problems/invalid", "Invalid value", detail)
        }
    }

    /// 404: nothing has that name.
    #[must_use]
    pub fn absent(field: &'static str, value: impl std::fmt::Display) -> Self {
        let detail = format!("there is no {field} {}", shown(&value.to_string()));
        let status = StatusCode::NOT_FOUND;
        Self { field: Some(field), ..Self::new(status, "/problems/not-found", "Not found", detail) }
    }

    /// 400: it cannot be read.
    pub(super) fn malformed(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "/problems/malformed", "Malformed body", detail)
    }

    fn unavailable(detail: &str) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let problem = Self::new(status, "/problems/unavailable", "Try again", detail.to_owned());
        Self { retry_after: Some(1), ..problem }
    }

    /// 503: what it needs is away, and is not asked before that time; at least a second.
    #[must_use]
    pub fn left_alone(detail: &str, retry_after: Option<Duration>) -> Self {
        let seconds = retry_after.map_or(1, |time| time.as_secs_f64().ceil() as u64).max(1);
        Self { retry_after: Some(seconds), ..Self::unavailable(detail) }
    }

    /// 503: the background lane takes no more.
    #[must_use]
    pub fn lane_full() -> Self {
        Self::unavailable("the lane is full")
    }

    /// 500: our fault; the cause is in the log, not in the answer.
    #[must_use]
    pub fn internal() -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "/problems/internal", "Internal error", "see the server's log".into())
    }

    /// 403: only administrators may.
    #[must_use]
    pub fn not_an_administrator() -> Self {
        let detail = "this takes the bearer of ADMIN_TOKEN, if the server has one".to_owned();
        Self::new(StatusCode::FORBIDDEN, "/problems/forbidden", "Forbidden", detail)
    }

    /// 404 for a path no route has.
    #[must_use]
    pub fn no_route(path: &str) -> Self {
        Self::absent("route", path)
    }

    /// 405 for a method the route does not have.
    #[must_use]
    pub fn no_method(method: &axum::http::Method) -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let detail = format!("{method} is not allowed here");
        Self::new(status, "/problems/method", "Method not allowed", detail)
    }
}

/// A value from outside, short enough to repeat.
fn shown(value: &str) -> String {
    const LONGEST: usize = 64;
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}..", &value[..end]),
        None => format!("{value:?}"),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self)).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<&StoreError> for Problem {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Absent { what, value } => Self::absent(what, value),
            StoreError::InsufficientFunds { user, cash_cents, needed_cents } => {
                let detail =
                    format!("user {user} has {cash_cents} cents: {needed_cents} cents are needed");
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                let kind = "/problems/insufficient-funds";
                Self::new(status, kind, "Insufficient funds", detail)
            }
            StoreError::KeyReused { key } => Self::invalid(
                "Idempotency-Key",
                key,
                "was used with another body: a key belongs to one request",
            ),
            StoreError::LeftAlone(open) => {
                Self::left_alone("the database is away", Some(open.retry_after))
            }
            error if error.is_busy() => Self::unavailable("the database is busy"),
            StoreError::NoNode => Self::unavailable("no database node answers"),
            error if error.is_node_failure() => Self::unavailable("the database is away"),
            error => {
                tracing::error!(error = error as &dyn std::error::Error, "request failed");
                Self::internal()
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}

impl From<LoadError<StoreError>> for Problem {
    fn from(error: LoadError<StoreError>) -> Self {
        match error {
            LoadError::Source(error) => Self::from(&*error),
            error => {
                tracing::error!(error = &error as &dyn std::error::Error, "load failed");
                Self::internal()
            }
        }
    }
}

impl From<RouteError> for Problem {
    fn from(_: RouteError) -> Self {
        Self::unavailable("no database node answers")
    }
}

/// A JSON body whose rejections are [`Problem`]s.
#[derive(Debug)]
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let is_json = content_type.and_then(|value| value.to_str().ok()).is_some_and(|value| {
            value.split(';').next().unwrap_or("").trim() == "application/json"
        });
        if !is_json {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            let detail = "Content-Type must be application/json".to_owned();
            return Err(Problem::new(status, "/problems/media-type", "Not JSON", detail));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(too_large)?;
        serde_json::from_slice(&bytes).map(Self).map_err(|e| Problem::malformed(e.to_string()))
    }
}

fn too_large(rejection: BytesRejection) -> Problem {
    match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            let detail = format!("the body is longer than {} bytes", super::BODY_LIMIT);
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            Problem::new(status, "/problems/too-large", "Body too large", detail)
        }
        other => Problem::malformed(other.body_text()),
    }
}
