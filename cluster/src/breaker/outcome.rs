//! What a call's result says about the backend, and who decides that.

use std::time::Duration;

#[cfg(feature = "axum")]
use crate::problem::OwnRefusal;
#[cfg(feature = "axum")]
use crate::retry_after::retry_after;

/// How one finished call counts.
///
/// That a call was slow, given up or ended by a panic is found by its [`Permit`](crate::Permit)
/// itself, beside or instead of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The backend did its work.
    Success,
    /// The backend is at fault.
    Failure,
    /// The backend works, but not for everybody at this rate (HTTP 429). Counts as a failure in the
    /// windows and never among the failures in a row, which it neither adds to nor ends; a trial
    /// call that is answered so does not help to close the circuit.
    Throttled,
    /// The result says nothing about the backend.
    Ignored,
}

/// An [`Outcome`] with what the backend said about when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Judgement {
    /// How the call counts.
    pub outcome: Outcome,
    /// The backend's `Retry-After`. A circuit that opens over this call, or a later one of the same
    /// time of being closed, stays open at least until then, within
    /// [`retry_after_max`](crate::BreakerConfig::retry_after_max). Used for
    /// [`Failure`](Outcome::Failure) and [`Throttled`](Outcome::Throttled) only.
    pub retry_after: Option<Duration>,
}

impl Judgement {
    /// A judgement without a word about when to come back.
    #[must_use]
    pub fn new(outcome: Outcome) -> Self {
        Self { outcome, retry_after: None }
    }

    /// Sets [`retry_after`](Self#structfield.retry_after).
    #[must_use]
    pub fn retry_after(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.retry_after = time.into();
        self
    }
}

impl From<Outcome> for Judgement {
    fn from(outcome: Outcome) -> Self {
        Self::new(outcome)
    }
}

/// Judges the result of a call: the response or the error.
///
/// Closures of the same shape are classifiers; they may return an [`Outcome`] or a [`Judgement`].
pub trait Classify<Res, E> {
    /// How the call counts.
    fn classify(&self, result: Result<&Res, &E>) -> Judgement;
}

impl<F, O, Res, E> Classify<Res, E> for F
where
    F: Fn(Result<&Res, &E>) -> O,
    O: Into<Judgement>,
{
    fn classify(&self, result: Result<&Res, &E>) -> Judgement {
        self(result).into()
    }
}

/// Errors are failures and every response is a success: what [`BreakerLayer::new`] starts with.
///
/// [`BreakerLayer::new`]: crate::BreakerLayer::new
#[derive(Debug, Clone, Copy, Default)]
pub struct ErrorsFail;

impl<Res, E> Classify<Res, E> for ErrorsFail {
    fn classify(&self, result: Result<&Res, &E>) -> Judgement {
        if result.is_ok() { Outcome::Success.into() } else { Outcome::Failure.into() }
    }
}

/// Errors and responses of status 5xx are failures; 429 is [`Throttled`](Outcome::Throttled); all
/// others, the rest of 4xx included, are successes. The `Retry-After` of 503 and 429 is read, whole
/// seconds or a date. A refusal by another layer of this crate further in (a breaker, a limit) is
/// [`Ignored`](Outcome::Ignored), as long as it comes as the response it was made as. What
/// [`BreakerLayer::http`] starts with.
///
/// [`BreakerLayer::http`]: crate::BreakerLayer::http
#[cfg(feature = "axum")]
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerErrorsFail;

#[cfg(feature = "axum")]
impl<B, E> Classify<http::Response<B>, E> for ServerErrorsFail {
    fn classify(&self, result: Result<&http::Response<B>, &E>) -> Judgement {
        use http::StatusCode;

        let Ok(response) = result else { return Outcome::Failure.into() };
        if response.extensions().get::<OwnRefusal>().is_some() {
            return Outcome::Ignored.into();
        }
        let come_back = || retry_after(response.headers(), std::time::SystemTime::now);
        match response.status() {
            StatusCode::TOO_MANY_REQUESTS => {
                Judgement::new(Outcome::Throttled).retry_after(come_back())
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                Judgement::new(Outcome::Failure).retry_after(come_back())
            }
            status if status.is_server_error() => Outcome::Failure.into(),
            _ => Outcome::Success.into(),
        }
    }
}
