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
    count_abandoned: bool,
    answer: PhantomData<fn() -> A>,
}

impl ConcurrencyLimitLayer<ErrorsFail, AsError> {
    /// For any tower service whose error can be boxed. Every error counts as a failure, which lowers
    /// an adaptive limit.
    #[must_use]
    pub fn new(limit: ConcurrencyLimit) -> Self {
        Self { limit, classify: ErrorsFail, count_abandoned: true, answer: PhantomData }
    }
}

#[cfg(feature = "axum")]
impl ConcurrencyLimitLayer<OverloadFails, AsResponse> {
    /// For `Router::layer` as it is. Results are judged by [`OverloadFails`]; a refusal is a response
    /// of status 503 with `Retry-After` (whole seconds, rounded up, at least 1) and a problem
    /// document (RFC 9457).
    ///
    /// A timeout belongs inside this layer, and has to answer 504
    /// (`TimeoutLayer::with_status_code` of tower-http): that counts, while requests that are given
    /// up say nothing, see [`count_abandoned`](Self::count_abandoned).
    #[must_use]
    pub fn http(limit: ConcurrencyLimit) -> Self {
        Self { limit, classify: OverloadFails, count_abandoned: false, answer: PhantomData }
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
        let Self { limit, count_abandoned, .. } = self;
        ConcurrencyLimitLayer { limit, classify, count_abandoned, answer: PhantomData }
    }

    /// Whether a call that is given up (its future dropped) may lower an adaptive limit, see
    /// [`abandoned_after`](crate::AdaptiveConfig::abandoned_after).
    ///
    /// A layer from [`new`](ConcurrencyLimitLayer::new) begins with `true`: who gives up there is
    /// this process itself, for instance by a timeout around the layer. One from `http` begins with
    /// `false`: behind it stand visitors, who leave for reasons of their own and must not lower the
    /// limit of all others. Set it there only where no client's leaving gets through.
    #[must_use]
    pub fn count_abandoned(mut self, yes: bool) -> Self {
        self.count_abandoned = yes;
        self
    }
}

/// Errors and responses of status 503 and 504 are failures: that is how overload looks from here. What
/// [`ConcurrencyLimitLayer::http`] starts with.
///
/// What the layers of this crate refuse further in says nothing: they protect what is behind them
/// themselves, and one client at its rate limit must not lower the limit of all. Nor does status
/// 429, which is about one client, too; around a client's service, where it is about this process,
/// judge it as [`Outcome::Throttled`]. Other responses of status 5xx tell of a defect, and are often
/// the fastest of all.
#[cfg(feature = "axum")]
#[derive(Debug, Clone, Copy, Default)]
pub struct OverloadFails;

#[cfg(feature = "axum")]
impl<B, E> crate::Classify<http::Response<B>, E> for OverloadFails {
    fn classify(&self, result: Result<&http::Response<B>, &E>) -> Judgement {
        let Ok(response) = result else { return Outcome::Failure.into() };
        let refused = || response.extensions().get::<crate::problem::OwnRefusal>().is_some();
        let outcome = match response.status().as_u16() {
            503 | 504 if !refused() => Outcome::Failure,
            429 | 500.. => Outcome::Ignored,
            _ => Outcome::Success,
        };
        outcome.into()
    }
}

impl<S, C: Clone, A> Layer<S> for ConcurrencyLimitLayer<C, A> {
    type Service = ConcurrencyLimitService<S, C, A>;

    fn layer(&self, inner: S) -> Self::Service {
        let (limit, classify) = (self.limit.clone(), self.classify.clone());
        ConcurrencyLimitService::new(inner, limit, classify, self.count_abandoned)
    }
}

impl<C: Clone, A> Clone for ConcurrencyLimitLayer<C, A> {
    fn clone(&self) -> Self {
        let Self { limit, classify, count_abandoned, .. } = self;
        let (limit, classify) = (limit.clone(), classify.clone());
        Self { limit, classify, count_abandoned: *count_abandoned, answer: PhantomData }
    }
}

impl<C, A> fmt::Debug for ConcurrencyLimitLayer<C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimitLayer").field("limit", &self.limit).finish_non_exhaustive()
    }
}
