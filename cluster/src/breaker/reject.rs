//! What the caller of a rejected call gets: an error, a response where errors cannot be, or what
//! another service has to say.

use std::future::{Ready, ready};

use super::Open;
use crate::BoxError;

/// How a service with a breaker passes errors on. Sealed: there are the ways below.
pub trait Reject<E>: sealed::Sealed {
    /// The error of the service with the breaker around it.
    type Error;

    /// Passes on an error of the service itself.
    fn passed_on(error: E) -> Self::Error;
}

/// What a service with a breaker does with a request it rejects.
pub trait Divert<Req, Res, E>: Reject<E> {
    /// The result of a rejected call.
    type Future: Future<Output = Result<Res, Self::Error>>;

    /// Answers the request without the service.
    fn divert(&self, request: Req, open: Open) -> Self::Future;
}

/// A rejection is the error [`Open`], boxed like the inner service's own.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AsError;

impl<E: Into<BoxError>> Reject<E> for AsError {
    type Error = BoxError;

    fn passed_on(error: E) -> BoxError {
        error.into()
    }
}

impl<Req, Res, E: Into<BoxError>> Divert<Req, Res, E> for AsError {
    type Future = Ready<Result<Res, BoxError>>;

    fn divert(&self, _request: Req, open: Open) -> Self::Future {
        ready(Err(open.into()))
    }
}

/// A rejection is a response of status 503.
#[cfg(feature = "axum")]
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AsResponse;

/// It names no breaker: what a server is made of is nobody's business outside.
#[cfg(feature = "axum")]
const FAILING: &str = "the service behind this address is failing and is being left alone";

#[cfg(feature = "axum")]
impl<E> Reject<E> for AsResponse {
    type Error = E;

    fn passed_on(error: E) -> E {
        error
    }
}

#[cfg(feature = "axum")]
impl<Req, E> Divert<Req, axum::response::Response, E> for AsResponse {
    type Future = Ready<Result<axum::response::Response, E>>;

    fn divert(&self, _request: Req, open: Open) -> Self::Future {
        ready(Ok(crate::problem::unavailable(FAILING, open.retry_after)))
    }
}

pub(super) mod sealed {
    pub trait Sealed {}
    impl Sealed for super::AsError {}
    #[cfg(feature = "axum")]
    impl Sealed for super::AsResponse {}
}
