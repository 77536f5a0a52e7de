//! Puts a concurrency limit around a service, for tower as it is and for axum's routers.

use std::fmt;
use std::marker::PhantomData;

use tower_layer::Layer;

use super::{ConcurrencyLimit, ConcurrencyLimitService};
use crate::{AsError, ErrorsFail, Judgement};
#[cfg(feature = "axum")]
use crate::{AsResponse, Outcome};

/// Refuses the calls to a service beyond those it can work on, or lets a few of them wait.
///
/// Use it around what becomes slow or fails when too much is asked of it at once: a backend, an
/// expensive group of routes, the whole router. Do not use it to divide a service between its
/// clients: that is what rate limits per key are for.
///
/// # Example
/// ```
/// use escala_cluster::{ConcurrencyConfig, ConcurrencyLimit, ConcurrencyLimitLayer, Overloaded};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let limit = ConcurrencyLimit::new("reports", ConcurrencyConfig::fixed(1))?;
/// let mut reports = ServiceBuilder::new()
///     .layer(ConcurrencyLimitLayer::new(limit.clone()))
///     .service(service_fn(async |_: ()| Ok::<_, std::io::Error>("done")));
///
/// let first = reports.ready().await?.call(());
/// let second = reports.ready().await?.call(());
/// assert!(second.await.unwrap_err().is::<Overloaded>());
/// assert_eq!(first.await?, "done");
/// assert_eq!(limit.stats().rejected_total, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Readiness and clones
/// `poll_ready` asks the inner service, except while no place is free. A call takes its place when it
/// is made, so an idle clone holds none. One that has to wait does so in its future, with a clone
/// of the inner service that it makes ready when its turn has come: a call that waits here keeps
/// nothing of the inner service from others.
///
/// # State
/// In the [`ConcurrencyLimit`]: one layer applied to twenty routes by `Router::layer` is one limit.
///
/// # Cancellation
/// Dropping the future gives the place back, or the number in the queue. See
/// [`ConcurrencyPermit`](crate::ConcurrencyPermit) for what it counts as.
///
/// # Errors
/// From [`new`](Self::new): [`Overloaded`](crate::Overloaded) or the inner error, boxed. From
/// `http`: the inner error as it is; a refusal is a response.
///
/// # Panics
/// None of its own. A panic of the inner service passes through, and its place is given back.
///
/// # Cost
/// That of [`ConcurrencyLimit`]; the future is the inner one beside a permit. A call that waits is
/// boxed. From `http`, a response whose body is not at its end has that body boxed once.
///
/// # Limits
/// With [`new`](Self::new) a place is given back with the response, with `http` at the end of its
/// body. What a connection does after it was upgraded is not counted.
///
/// # Differences from `tower::limit::ConcurrencyLimit`
/// That one takes its place in `poll_ready`, so that a clone which is ready and not called keeps it
/// from the others, and has no bound on those that wait, no way to refuse and no figures.
pub struct ConcurrencyLimitLayer<C = ErrorsFail, A = AsError> {
    limit: ConcurrencyLimit,
    classify: C,
    answer: PhantomData<fn() -> A>,
}

impl ConcurrencyLimitLayer<ErrorsFail, AsError> {
    /// For any tower service whose error can be boxed. Every error counts as a failure, which lowers
    /// an adaptive limit.
    #[must_use]
    pub fn new(limit: ConcurrencyLimit) -> Self {
        Self { limit, classify: ErrorsFail, answer: PhantomData }
    }
}

#[cfg(feature = "axum")]
impl ConcurrencyLimitLayer<OverloadFails, AsResponse> {
    /// For `Router::layer` as it is. Results are judged by [`OverloadFails`]; a refusal is a response
    /// of status 503 with `Retry-After` (whole seconds, rounded up, at least 1) and a problem
    /// document (RFC 9457).
    #[must_use]
    pub fn http(limit: ConcurrencyLimit) -> Self {
        Self { limit, classify: OverloadFails, answer: PhantomData }
    }
}

impl<C, A> ConcurrencyLimitLayer<C, A> {
    /// Judges results by `classify` from now on: the response's head or the inner error.
    #[must_use]
    pub fn classify<F, O, Res, E>(self, classify: F) -> ConcurrencyLimitLayer<F, A>
    where
        F: Fn(Result<&Res, &E>) -> O + Clone,
        O: Into<Judgement>,
    {
        ConcurrencyLimitLayer { limit: self.limit, classify, answer: PhantomData }
    }
}

/// Errors and responses of status 429, 503 and 504 are failures: that is how overload looks from
/// here. Other responses of status 5xx say nothing: they tell of a defect, and are often the fastest
/// of all. What [`ConcurrencyLimitLayer::http`] starts with.
#[cfg(feature = "axum")]
#[derive(Debug, Clone, Copy, Default)]
pub struct OverloadFails;

#[cfg(feature = "axum")]
impl<B, E> crate::Classify<http::Response<B>, E> for OverloadFails {
    fn classify(&self, result: Result<&http::Response<B>, &E>) -> Judgement {
        let Ok(response) = result else { return Outcome::Failure.into() };
        let outcome = match response.status().as_u16() {
            429 => Outcome::Throttled,
            503 | 504 => Outcome::Failure,
            500.. => Outcome::Ignored,
            _ => Outcome::Success,
        };
        outcome.into()
    }
}

impl<S, C: Clone, A> Layer<S> for ConcurrencyLimitLayer<C, A> {
    type Service = ConcurrencyLimitService<S, C, A>;

    fn layer(&self, inner: S) -> Self::Service {
        ConcurrencyLimitService::new(inner, self.limit.clone(), self.classify.clone())
    }
}

impl<C: Clone, A> Clone for ConcurrencyLimitLayer<C, A> {
    fn clone(&self) -> Self {
        let classify = self.classify.clone();
        Self { limit: self.limit.clone(), classify, answer: PhantomData }
    }
}

impl<C, A> fmt::Debug for ConcurrencyLimitLayer<C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimitLayer").field("limit", &self.limit).finish_non_exhaustive()
    }
}
