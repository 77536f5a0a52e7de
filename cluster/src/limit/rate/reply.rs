//! What a client gets to see of the limits: an error, or a response with headers.

#[cfg(feature = "axum")]
use super::headers;
use super::stack::{Ledger, Refused, Stack};
#[cfg(feature = "axum")]
use crate::AsResponse;
use crate::{AsError, BoxError};

/// Turns what limits say into the result of a service. Sealed: [`AsError`] and `AsResponse` do.
pub trait RateLimitReply<Res, E>: sealed::Reply<Res, E> {}

impl<R, Res, E> RateLimitReply<Res, E> for R where R: sealed::Reply<Res, E> {}

impl<Res, E: Into<BoxError>> sealed::Reply<Res, E> for AsError {
    type Error = BoxError;

    fn advertises<Req>(_: &Stack<Req>) -> bool {
        false
    }

    fn passed_on(error: E) -> BoxError {
        error.into()
    }

    fn refused<Req>(refused: Refused, _: &Ledger, _: &Stack<Req>) -> Result<Res, BoxError> {
        Err(refused.error.into())
    }

    fn advertise<Req>(_: &mut Res, _: &Ledger, _: &Stack<Req>, _: bool) {}
}

#[cfg(feature = "axum")]
impl<E> sealed::Reply<axum::response::Response, E> for AsResponse {
    type Error = E;

    fn advertises<Req>(stack: &Stack<Req>) -> bool {
        stack.headers != super::RateLimitHeaders::Off
    }

    fn passed_on(error: E) -> E {
        error
    }

    fn refused<Req>(
        refused: Refused,
        ledger: &Ledger,
        stack: &Stack<Req>,
    ) -> Result<axum::response::Response, E> {
        Ok(headers::refusal(&refused, ledger, stack))
    }

    fn advertise<Req>(
        response: &mut axum::response::Response,
        ledger: &Ledger,
        stack: &Stack<Req>,
        refunded: bool,
    ) {
        headers::advertise(response.headers_mut(), ledger, stack, refunded);
    }
}

pub(super) mod sealed {
    use super::{Ledger, Refused, Stack};

    pub trait Reply<Res, E> {
        type Error;

        /// Whether responses are to say what is left.
        fn advertises<Req>(stack: &Stack<Req>) -> bool;

        fn passed_on(error: E) -> Self::Error;

        fn refused<Req>(
            refused: Refused,
            ledger: &Ledger,
            stack: &Stack<Req>,
        ) -> Result<Res, Self::Error>;

        fn advertise<Req>(response: &mut Res, ledger: &Ledger, stack: &Stack<Req>, refunded: bool);
    }
}
