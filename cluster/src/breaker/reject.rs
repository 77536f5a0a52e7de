//! What the caller of a rejected call gets: an error, or a response where errors cannot be.

#[cfg(feature = "axum")]
use std::time::Duration;

use super::Open;
use crate::BoxError;

/// Turns a rejection into the result of a service. Sealed: there are the two ways below.
pub trait Reject<Res, E>: sealed::Sealed {
    /// The error of the service with the breaker around it.
    type Error;

    /// The result of a rejected call.
    fn rejected(open: Open) -> Result<Res, Self::Error>;

    /// Passes on an error of the service itself.
    fn passed_on(error: E) -> Self::Error;
}

/// A rejection is the error [`Open`], boxed like the inner service's own.
#[derive(Debug, Clone, Copy)]
pub enum AsError {}

impl<Res, E: Into<BoxError>> Reject<Res, E> for AsError {
    type Error = BoxError;

    fn rejected(open: Open) -> Result<Res, BoxError> {
        Err(open.into())
    }

    fn passed_on(error: E) -> BoxError {
        error.into()
    }
}

/// A rejection is a response of status 503.
#[cfg(feature = "axum")]
#[derive(Debug, Clone, Copy)]
pub enum AsResponse {}

#[cfg(feature = "axum")]
impl<E> Reject<axum::response::Response, E> for AsResponse {
    type Error = E;

    fn rejected(open: Open) -> Result<axum::response::Response, E> {
        Ok(unavailable(open.retry_after))
    }

    fn passed_on(error: E) -> E {
        error
    }
}

/// The document names no breaker: what a server is made of is nobody's business outside.
#[cfg(feature = "axum")]
fn unavailable(retry_after: Duration) -> axum::response::Response {
    use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};

    const PROBLEM: &str = concat!(
        r#"{"type":"about:blank","title":"Service Unavailable","status":503,"#,
        r#""detail":"the service behind this address is failing and is being left alone"}"#,
    );
    let mut response = axum::response::Response::new(axum::body::Body::from(PROBLEM));
    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(retry_after)));
    response
}

/// Rounded up, and at least 1: a client told 0 would be back before the circuit can have moved.
#[cfg(feature = "axum")]
fn whole_seconds(time: Duration) -> u64 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    seconds.max(1)
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::AsError {}
    #[cfg(feature = "axum")]
    impl Sealed for super::AsResponse {}
}
