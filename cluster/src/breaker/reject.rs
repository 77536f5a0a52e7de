//! What the caller of a rejected call gets: an error, or a response where errors cannot be.

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

/// It names no breaker: what a server is made of is nobody's business outside.
#[cfg(feature = "axum")]
const FAILING: &str = "the service behind this address is failing and is being left alone";

#[cfg(feature = "axum")]
impl<E> Reject<axum::response::Response, E> for AsResponse {
    type Error = E;

    fn rejected(open: Open) -> Result<axum::response::Response, E> {
        Ok(crate::problem::unavailable(FAILING, open.retry_after))
    }

    fn passed_on(error: E) -> E {
        error
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::AsError {}
    #[cfg(feature = "axum")]
    impl Sealed for super::AsResponse {}
}
