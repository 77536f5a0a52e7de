//! What a call's result says about the backend, and who decides that.

/// How one finished call counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The backend did its work.
    Success,
    /// The backend is at fault.
    Failure,
    /// The result says nothing about the backend.
    Ignored,
}

/// Judges the result of a call: the response (its head, not its body) or the error.
///
/// Closures of the same shape are classifiers.
pub trait Classify<Res, E> {
    /// How the call counts.
    fn classify(&self, result: Result<&Res, &E>) -> Outcome;
}

impl<F, Res, E> Classify<Res, E> for F
where
    F: Fn(Result<&Res, &E>) -> Outcome,
{
    fn classify(&self, result: Result<&Res, &E>) -> Outcome {
        self(result)
    }
}

/// Errors are failures and every response is a success: what [`BreakerLayer::new`] starts with.
///
/// [`BreakerLayer::new`]: crate::BreakerLayer::new
#[derive(Debug, Clone, Copy, Default)]
pub struct ErrorsFail;

impl<Res, E> Classify<Res, E> for ErrorsFail {
    fn classify(&self, result: Result<&Res, &E>) -> Outcome {
        if result.is_ok() { Outcome::Success } else { Outcome::Failure }
    }
}

/// Errors and responses of status 5xx are failures, all others, 4xx included, are successes: what
/// [`BreakerLayer::http`] starts with.
///
/// [`BreakerLayer::http`]: crate::BreakerLayer::http
#[cfg(feature = "axum")]
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerErrorsFail;

#[cfg(feature = "axum")]
impl<B, E> Classify<http::Response<B>, E> for ServerErrorsFail {
    fn classify(&self, result: Result<&http::Response<B>, &E>) -> Outcome {
        match result {
            Ok(response) if !response.status().is_server_error() => Outcome::Success,
            _ => Outcome::Failure,
        }
    }
}
