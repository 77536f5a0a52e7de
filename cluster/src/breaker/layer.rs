//! Puts a breaker around a service, for tower as it is and for axum's routers.

use std::fmt;
use std::marker::PhantomData;

use tower_layer::Layer;

use super::{AsError, BreakerService, ErrorsFail, Judgement};
#[cfg(feature = "axum")]
use super::{AsResponse, ServerErrorsFail};
use crate::Breaker;

/// Rejects calls to a service that keeps failing, until it has had time to recover.
///
/// Use it around what can be down while this process is up: a database, another service, a group
/// of routes that depends on one. Do not use it around what only this process can break.
///
/// # Example
/// ```
/// use escala_cluster::{Breaker, BreakerConfig, BreakerLayer, Open};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let breaker = Breaker::new("upstream", BreakerConfig::default().consecutive_failures(2))?;
/// let mut upstream = ServiceBuilder::new()
///     .layer(BreakerLayer::new(breaker.clone()))
///     .service(service_fn(|_: ()| async { Err::<(), _>("connection refused") }));
///
/// for _ in 0..2 {
///     assert!(!upstream.ready().await?.call(()).await.unwrap_err().is::<Open>());
/// }
/// assert!(upstream.ready().await?.call(()).await.unwrap_err().is::<Open>());
/// assert_eq!(breaker.stats().rejected_total, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Readiness and clones
/// `poll_ready` asks the inner service, except while calls are rejected anyway: a backend that has
/// run out of permits cannot delay a rejection. A call takes its permit when it is made, so an idle
/// clone holds none.
///
/// # State
/// In the [`Breaker`]: one layer applied to twenty routes by `Router::layer` is one circuit.
///
/// # Cancellation
/// Dropping the future gives the call up: see [`Permit`](crate::Permit) for what it counts as.
///
/// # Errors
/// From [`new`](Self::new): [`Open`](crate::Open) or the inner error, boxed. From
/// `http`: the inner error as it is; a rejection is a response.
///
/// # Panics
/// None of its own. A panic of the inner service passes through and counts as a failure.
///
/// # Cost
/// That of [`Breaker`]; the future is the inner one beside a permit, not boxed.
///
/// # Limits
/// A response is judged by its head: a body that breaks off later counts as a success.
pub struct BreakerLayer<C = ErrorsFail, R = AsError> {
    breaker: Breaker,
    classify: C,
    reject: PhantomData<fn() -> R>,
}

impl BreakerLayer<ErrorsFail, AsError> {
    /// For any tower service whose error can be boxed. Every error counts as a failure.
    #[must_use]
    pub fn new(breaker: Breaker) -> Self {
        Self { breaker, classify: ErrorsFail, reject: PhantomData }
    }
}

#[cfg(feature = "axum")]
impl BreakerLayer<ServerErrorsFail, AsResponse> {
    /// For `Router::layer` as it is. Errors and responses of status 5xx count as failures; a
    /// rejection is a response of status 503 with `Retry-After` (whole seconds, rounded up, at
    /// least 1) and a problem document (RFC 9457).
    #[must_use]
    pub fn http(breaker: Breaker) -> Self {
        Self { breaker, classify: ServerErrorsFail, reject: PhantomData }
    }
}

impl<C, R> BreakerLayer<C, R> {
    /// Judges results by `classify` from now on: the response's head or the inner error. The
    /// closure returns an [`Outcome`](crate::Outcome) or a [`Judgement`].
    #[must_use]
    pub fn classify<F, O, Res, E>(self, classify: F) -> BreakerLayer<F, R>
    where
        F: Fn(Result<&Res, &E>) -> O + Clone,
        O: Into<Judgement>,
    {
        BreakerLayer { breaker: self.breaker, classify, reject: PhantomData }
    }
}

impl<S, C: Clone, R> Layer<S> for BreakerLayer<C, R> {
    type Service = BreakerService<S, C, R>;

    fn layer(&self, inner: S) -> Self::Service {
        BreakerService::new(inner, self.breaker.clone(), self.classify.clone())
    }
}

impl<C: Clone, R> Clone for BreakerLayer<C, R> {
    fn clone(&self) -> Self {
        Self { breaker: self.breaker.clone(), classify: self.classify.clone(), reject: PhantomData }
    }
}

impl<C, R> fmt::Debug for BreakerLayer<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerLayer").field("breaker", &self.breaker).finish_non_exhaustive()
    }
}
