//! Puts a breaker around a service, for tower as it is and for axum's routers.

use std::fmt;
use std::marker::PhantomData;

use tower_layer::Layer;

use super::{AsError, AtHead, BreakerService, ErrorsFail, FallbackTo, Judgement, Keyed};
#[cfg(feature = "axum")]
use super::{AsResponse, AtEndOfBody, ServerErrorsFail};
use crate::{Breaker, BreakerRegistry};

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
/// run out of permits cannot delay a rejection. When the inner service is busy, the calls that keep
/// it so are looked at: if they are too slow, or a trial they belong to is past its deadline, the
/// circuit moves then, and the caller is rejected instead of waiting.
///
/// Who waited before that goes on waiting until the inner service wakes him: put a timeout around
/// both where that may be never. And once an open time is over, it is the inner service's
/// readiness that counts again: calls that hang there for good need a timeout of their own.
///
/// A call takes its permit when it is made, so an idle clone holds none. It may hold one of the
/// inner service, though: a call that is rejected leaves an inner service that is ready as it is,
/// and a caller may be given a place there that he was waiting for after the circuit has opened. Drop
/// clones that are not in use, as axum and `oneshot` do, if the inner one hands out places
/// (`ConcurrencyLimit`, a pool), or put that one outside.
///
/// With a circuit for each key ([`keyed`](Self::keyed)) the inner service is always asked: whose call
/// it will be is not known yet. So a bounded service inside that is full of one key's calls holds up
/// all keys.
///
/// # State
/// In the [`Breaker`] or in the [`BreakerRegistry`], and so in the layer: one layer applied to
/// twenty routes by `Router::layer` is one circuit, or one of each key.
///
/// # Cancellation
/// Dropping the future gives the call up: see [`Permit`](crate::Permit) for what it counts as, and
/// [`count_abandoned`](Self::count_abandoned) for when that is nothing.
///
/// # Errors
/// From [`new`](Self::new): [`Open`](crate::Open) or the inner error, boxed. From
/// `http`: the inner error as it is; a rejection is a response. An error from the inner service's
/// `poll_ready` (it cannot connect, say) is judged and counted as that of a call, except with a
/// circuit for each key.
///
/// # Panics
/// None of its own. A panic of the inner service passes through and counts as a failure.
///
/// # Cost
/// That of [`Breaker`]; the future is the inner one beside a permit, not boxed.
///
/// # Limits
/// A response is judged by its head: a body that breaks off later counts as a success, unless the
/// layer is told to judge at the end of the body.
pub struct BreakerLayer<C = ErrorsFail, R = AsError, J = AtHead, G = Breaker> {
    guard: G,
    classify: C,
    reject: R,
    count_abandoned: bool,
    judge: PhantomData<fn() -> J>,
}

impl BreakerLayer<ErrorsFail, AsError, AtHead, Breaker> {
    /// For any tower service whose error can be boxed. Every error counts as a failure, also the
    /// [`Open`](crate::Open) of another breaker further in: if there is one, [`classify`](Self::classify)
    /// it as [`Ignored`](crate::Outcome::Ignored).
    #[must_use]
    pub fn new(breaker: Breaker) -> Self {
        Self::of(breaker, ErrorsFail, AsError, true)
    }
}

impl<K, F> BreakerLayer<ErrorsFail, AsError, AtHead, Keyed<K, F>> {
    /// As [`new`](BreakerLayer::new), with a circuit for each key: host, tenant, whatever `key`
    /// (a [`KeyOf`](crate::KeyOf), from [`key_fn`](crate::key_fn) or one of those there are) finds in a
    /// request.
    ///
    /// ```
    /// use std::borrow::Cow;
    /// use escala_cluster::{BreakerConfig, BreakerLayer, BreakerRegistry, Open, RegistryConfig, key_fn};
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    ///
    /// struct Job { queue: String }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let once = BreakerConfig::default().consecutive_failures(1);
    /// let queues = BreakerRegistry::new("queues", RegistryConfig::default().breaker(once))?;
    /// let queue = key_fn(|job: &Job| Some(Cow::Borrowed(job.queue.as_str())));
    /// let layer = BreakerLayer::keyed(queues, queue);
    /// let worker = ServiceBuilder::new().layer(layer).service(service_fn(async |job: Job| {
    ///     if job.queue == "mail" { Err("no mail server") } else { Ok(()) }
    /// }));
    ///
    /// let run = async |queue: &str| worker.clone().oneshot(Job { queue: queue.to_owned() }).await;
    /// assert!(!run("mail").await.unwrap_err().is::<Open>());
    /// assert!(run("mail").await.unwrap_err().is::<Open>());
    /// assert!(run("reports").await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn keyed(registry: BreakerRegistry<K>, key: F) -> Self {
        Self::of(Keyed::new(registry, key), ErrorsFail, AsError, true)
    }
}

#[cfg(feature = "axum")]
impl BreakerLayer<ServerErrorsFail, AsResponse, AtHead, Breaker> {
    /// For axum's routers as it is. Judges as [`ServerErrorsFail`] does; a rejection is a response
    /// of status 503 with `Retry-After` (whole seconds, rounded up, at least 1) and a problem
    /// document (RFC 9457).
    ///
    /// Use `Router::route_layer`. `Router::layer` has the answers to unknown paths behind the
    /// breaker too, and a 404 that needed no backend counts as a success: requests for nonsense would
    /// close the circuit. For the same reason have what turns requests away (authentication, limits)
    /// outside of the breaker, not inside.
    ///
    /// A visitor who leaves counts as nothing, however late; and so does a timeout that is put
    /// outside of the layer, since it looks the same. Put the timeout inside, with a status of 5xx,
    /// or switch on the [`slow_call_rate`](crate::BreakerConfig::slow_call_rate), which a backend
    /// that hangs meets either way:
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum::{Router, extract::Request, http::StatusCode, middleware, routing::get};
    /// use escala_cluster::{Breaker, BreakerConfig, BreakerLayer};
    ///
    /// async fn in_time(request: Request, next: middleware::Next) -> Result<axum::response::Response, StatusCode> {
    ///     let response = tokio::time::timeout(Duration::from_secs(2), next.run(request));
    ///     response.await.map_err(|_| StatusCode::GATEWAY_TIMEOUT)
    /// }
    ///
    /// let breaker = Breaker::new("reports", BreakerConfig::default())?;
    /// let app: Router = Router::new()
    ///     .route("/report", get(async || "a report"))
    ///     .route_layer(middleware::from_fn(in_time)) // inside: what comes first is further in
    ///     .route_layer(BreakerLayer::http(breaker));
    /// # Ok::<(), escala_cluster::ConfigError>(())
    /// ```
    #[must_use]
    pub fn http(breaker: Breaker) -> Self {
        Self::of(breaker, ServerErrorsFail, AsResponse, false)
    }
}

#[cfg(feature = "axum")]
impl<K, F> BreakerLayer<ServerErrorsFail, AsResponse, AtHead, Keyed<K, F>> {
    /// As [`http`](BreakerLayer::http), with a circuit for each key.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use escala_cluster::{BreakerLayer, BreakerRegistry, RegistryConfig, RouteKey};
    ///
    /// let routes = BreakerRegistry::new("routes", RegistryConfig::default())?;
    /// let app: Router = Router::new()
    ///     .route("/users/{id}", get(async || "a user"))
    ///     .route("/orders/{id}", get(async || "an order"))
    ///     .route_layer(BreakerLayer::http_keyed(routes.clone(), RouteKey));
    /// # Ok::<(), escala_cluster::ConfigError>(())
    /// ```
    #[must_use]
    pub fn http_keyed(registry: BreakerRegistry<K>, key: F) -> Self {
        Self::of(Keyed::new(registry, key), ServerErrorsFail, AsResponse, false)
    }
}

impl<C, R, J, G> BreakerLayer<C, R, J, G> {
    fn of(guard: G, classify: C, reject: R, count_abandoned: bool) -> Self {
        Self { guard, classify, reject, count_abandoned, judge: PhantomData }
    }

    /// Whether a call that is given up (its future dropped) after
    /// [`abandoned_after`](crate::BreakerConfig::abandoned_after) or later counts as a failure.
    ///
    /// A layer from [`new`](BreakerLayer::new) or [`keyed`](BreakerLayer::keyed) begins with `true`:
    /// who gives up there is this process itself, for instance by a timeout around the layer. One
    /// from `http` or `http_keyed` begins with `false`: behind it stand visitors, and one who leaves
    /// looks just like a timeout. Five of them who left a slow page in a row, or one of ill will,
    /// would open the circuit of a healthy backend for all. Set it there only where no client's
    /// leaving gets through, for instance behind a buffer that runs calls to their end.
    #[must_use]
    pub fn count_abandoned(mut self, yes: bool) -> Self {
        self.count_abandoned = yes;
        self
    }

    /// Judges results by `classify` from now on: the response's head or the inner error. The
    /// closure returns an [`Outcome`](crate::Outcome) or a [`Judgement`].
    #[must_use]
    pub fn classify<F, O, Res, E>(self, classify: F) -> BreakerLayer<F, R, J, G>
    where
        F: Fn(Result<&Res, &E>) -> O + Clone,
        O: Into<Judgement>,
    {
        BreakerLayer::of(self.guard, classify, self.reject, self.count_abandoned)
    }

    /// Sends requests it rejects to another service, which answers from a cache, from a second
    /// source, or with less.
    ///
    /// The fallback is cloned for each request it gets, and the clone made ready and called within
    /// the response future: while the circuit is closed it costs nothing, and one that is busy
    /// holds up nobody but its own callers. It has no breaker, nor any time limit, of its own; put
    /// them around it if it needs them. Its answers say nothing about the backend, and its errors
    /// are passed on like the backend's own.
    ///
    /// ```
    /// use escala_cluster::{Breaker, BreakerConfig, BreakerLayer};
    /// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let breaker = Breaker::new("quotes", BreakerConfig::default())?;
    /// breaker.force_open();
    /// let last_known = service_fn(async |symbol: &'static str| Ok::<_, BoxError>((symbol, "old")));
    /// let quotes = ServiceBuilder::new()
    ///     .layer(BreakerLayer::new(breaker).fallback(last_known))
    ///     .service(service_fn(async |symbol: &'static str| Ok::<_, BoxError>((symbol, "new"))));
    /// assert_eq!(quotes.oneshot("BTC").await?, ("BTC", "old"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn fallback<B>(self, service: B) -> BreakerLayer<C, FallbackTo<B, R>, J, G> {
        let fallback = FallbackTo::new(service);
        BreakerLayer::of(self.guard, self.classify, fallback, self.count_abandoned)
    }

    /// Judges a call that its head made a success again when the response's body has ended: a body
    /// that breaks off with an error is a failure; one dropped before its end is a call given up,
    /// see [`Permit`](crate::Permit). Whatever the head has made a failure counts at once.
    ///
    /// The call lasts until then, for the limits on slow calls and on trials too, and so does the
    /// time its reader takes. Use it for bodies that are sent in one go; not for streams of events
    /// or for downloads, which would hold the few places of a trial.
    ///
    /// The body is wrapped, not boxed: a response to `HEAD` or without a body is judged as before.
    #[cfg(feature = "axum")]
    #[must_use]
    pub fn judge_at_end_of_body(self) -> BreakerLayer<C, R, AtEndOfBody, G> {
        BreakerLayer::of(self.guard, self.classify, self.reject, self.count_abandoned)
    }
}

impl<S, C: Clone, R: Clone, J, G: Clone> Layer<S> for BreakerLayer<C, R, J, G> {
    type Service = BreakerService<S, C, R, J, G>;

    fn layer(&self, inner: S) -> Self::Service {
        let ways = (self.classify.clone(), self.reject.clone());
        BreakerService::new(inner, self.guard.clone(), ways, self.count_abandoned)
    }
}

impl<C: Clone, R: Clone, J, G: Clone> Clone for BreakerLayer<C, R, J, G> {
    fn clone(&self) -> Self {
        let (guard, classify) = (self.guard.clone(), self.classify.clone());
        Self::of(guard, classify, self.reject.clone(), self.count_abandoned)
    }
}

impl<C, R, J, G: fmt::Debug> fmt::Debug for BreakerLayer<C, R, J, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerLayer").field("guard", &self.guard).finish_non_exhaustive()
    }
}
