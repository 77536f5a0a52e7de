//! What callers get: a refused one an error or a response, an admitted one its response with the place
//! still held, if there is something to hold it by.

use super::{ConcurrencyPermit, Overloaded};
use crate::{AsError, BoxError};

/// How a limit answers. Sealed: there are [`AsError`] and, with feature `axum`, `AsResponse`.
pub trait Answer<Res, E>: sealed::Sealed {
    /// The error of the service with the limit around it.
    type Error;

    /// The result of a refused call.
    fn refused(overloaded: Overloaded) -> Result<Res, Self::Error>;

    /// The response of an admitted call, whose outcome has been recorded. Empties the slot.
    fn hold(response: Res, slot: &mut Option<ConcurrencyPermit>) -> Res;

    /// Passes on an error of the service itself.
    fn passed_on(error: E) -> Self::Error;
}

/// A refusal is the error [`Overloaded`]; a place is given back with the response.
impl<Res, E: Into<BoxError>> Answer<Res, E> for AsError {
    type Error = BoxError;

    fn refused(overloaded: Overloaded) -> Result<Res, BoxError> {
        Err(overloaded.into())
    }

    #[inline]
    fn hold(response: Res, slot: &mut Option<ConcurrencyPermit>) -> Res {
        *slot = None;
        response
    }

    fn passed_on(error: E) -> BoxError {
        error.into()
    }
}

/// A refusal is a response of status 503; a place is given back with the end of the body.
#[cfg(feature = "axum")]
impl<E> Answer<axum::response::Response, E> for crate::AsResponse {
    type Error = E;

    fn refused(overloaded: Overloaded) -> Result<axum::response::Response, E> {
        const FULL: &str = "too many requests are being served; this one was not begun";
        Ok(crate::problem::unavailable(FULL, overloaded.retry_after))
    }

    fn hold(
        response: axum::response::Response,
        slot: &mut Option<ConcurrencyPermit>,
    ) -> axum::response::Response {
        super::body::hold(response, slot.take())
    }

    fn passed_on(error: E) -> E {
        error
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::AsError {}
    #[cfg(feature = "axum")]
    impl Sealed for crate::AsResponse {}
}
