//! Puts limits around a service, for tower as it is and for axum's routers.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use tower_layer::Layer;

#[cfg(feature = "axum")]
use super::RefundRefusals;
use super::stack::Stack;
use super::{Limit, NeverRefund, RateLimitService};
use crate::AsError;
#[cfg(feature = "axum")]
use crate::AsResponse;

/// Lets requests through as long as their key is within its quota.
///
/// Use it where one client could take what others need: in front of an API, a login, an export. Do
/// not use it to protect a service from all its clients together: that is what a concurrency limit
/// is for, which adapts to what the service can do.
///
/// # Example
/// ```
/// use escala_cluster::{KeyBy, Quota, RateLimitLayer, RateLimited, RateLimiter};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let per_user = RateLimiter::new("per-user", Quota::per_minute(2))?;
/// let mut quotes = ServiceBuilder::new()
///     .layer(RateLimitLayer::new().limit(per_user.by(KeyBy::from_fn(|user: &u64| Some(*user)))))
///     .service(service_fn(|user: u64| async move { Ok::<_, std::io::Error>(user) }));
///
/// for _ in 0..2 {
///     quotes.ready().await?.call(7).await?;
/// }
/// assert!(quotes.ready().await?.call(7).await.unwrap_err().is::<RateLimited>());
/// quotes.ready().await?.call(8).await?;
/// assert_eq!(per_user.stats().limited_total, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Several limits
/// They are asked in the order they were added. The first that refuses gives the answer, and those
/// asked before it get back what they had taken: a refused request uses nothing of any limit. While
/// a store outside this process is asked, another request of the same key may find the units of an
/// earlier limit taken that are given back in the end. Limits in one store that follow each other
/// are asked in one step, which takes what all of them allow, or nothing.
///
/// # What a request uses
/// One unit of each limit, or what [`Limit::cost`] says. It is used up when the inner service is
/// called, and stays so if the client goes away: else a client could have its work begun for
/// nothing, again and again. Given up while a limit is still waited for, it has used nothing. If
/// the result says that a later layer refused it, it has used nothing either, see
/// [`refund`](Self::refund).
///
/// # Readiness and clones
/// `poll_ready` asks the inner service: nobody knows a request's key before it is there. A limit
/// holds nothing for an idle clone. A store that has to be waited for takes the ready service along
/// and leaves a clone of it. A refused call leaves an inner service that is ready as it is: drop
/// clones that are not in use, as axum and `oneshot` do, if the inner one hands out places
/// (`ConcurrencyLimit`, a pool), or put that one outside.
///
/// # State
/// In the [`RateLimiter`](crate::RateLimiter)s: one layer applied to twenty routes by
/// `Router::layer` is one set of limits.
///
/// # Errors
/// From [`new`](Self::new): [`RateLimited`](crate::RateLimited) or the inner error, boxed. From
/// `http`: the inner error as it is; a refusal is a response.
///
/// # Cost
/// One reading of the clock for all limits, which is late by at most a tick of the kernel (1 to
/// 10 ms): over any stretch of time a key gets its burst plus the rate times that stretch and a
/// tick. A refusal is decided by the exact time. For each limit one hash and one short lock; no
/// allocation for a known key. `http` writes headers, which takes some allocations for each
/// response.
pub struct RateLimitLayer<Req, R = AsError, G = NeverRefund> {
    stack: Arc<Stack<Req>>,
    refund: G,
    reply: PhantomData<fn() -> R>,
}

impl<Req> RateLimitLayer<Req, AsError, NeverRefund> {
    /// For any tower service whose error can be boxed, with no limit yet. What was let through
    /// stays used.
    #[must_use]
    pub fn new() -> Self {
        Self { stack: Arc::default(), refund: NeverRefund, reply: PhantomData }
    }
}

impl<Req> Default for RateLimitLayer<Req, AsError, NeverRefund> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "axum")]
impl RateLimitLayer<axum::extract::Request, AsResponse, RefundRefusals> {
    /// For `Router::layer` as it is, with no limit yet. A refusal is a response of status 429 with
    /// `Retry-After` (whole seconds, rounded up, at least 1) and a problem document (RFC 9457);
    /// every response that was counted tells what is left. What a layer of this crate refuses
    /// further in is given back, see [`RefundRefusals`].
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use escala_cluster::{ClientIp, KeyBy, Quota, RateLimitLayer, RateLimiter, cors_preflight};
    ///
    /// let per_address = RateLimiter::new("per-address", Quota::per_minute(600).burst(50))?;
    /// let proxies = ClientIp::default().trust("10.0.0.0/8".parse()?);
    /// let app: Router = Router::new().route("/quotes", get(|| async { "42" })).layer(
    ///     RateLimitLayer::http()
    ///         .limit(per_address.by(KeyBy::client_ip(proxies)))
    ///         .exempt(cors_preflight)
    ///         .exempt(|request| request.uri().path() == "/livez"),
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn http() -> Self {
        Self { stack: Arc::default(), refund: RefundRefusals, reply: PhantomData }
    }

    /// Which headers tell of the limits; [`RateLimitHeaders::Standard`] without this.
    ///
    /// [`RateLimitHeaders::Standard`]: crate::RateLimitHeaders::Standard
    #[must_use]
    pub fn headers(self, headers: super::RateLimitHeaders) -> Self {
        self.change(|stack| stack.headers = headers)
    }
}

impl<Req, R, G> RateLimitLayer<Req, R, G> {
    /// Adds a limit behind those there are.
    #[must_use]
    pub fn limit(self, limit: Limit<Req>) -> Self {
        self.change(|stack| stack.limits.push(limit))
    }

    /// Lets requests through without counting them for which this, or an earlier one, is true.
    #[must_use]
    pub fn exempt<F>(self, exempt: F) -> Self
    where
        F: Fn(&Req) -> bool + Send + Sync + 'static,
    {
        self.change(|stack| stack.exempt.push(Arc::new(exempt)))
    }

    /// Judges by `refund` from now on which requests get back what they have used: those for which
    /// nothing was done.
    ///
    /// A client can ask for more of what is given back, so give back only what costs this service
    /// next to nothing.
    #[must_use]
    pub fn refund<F, Res, E>(self, refund: F) -> RateLimitLayer<Req, R, F>
    where
        F: Fn(Result<&Res, &E>) -> bool + Clone,
    {
        RateLimitLayer { stack: self.stack, refund, reply: PhantomData }
    }

    /// Gives nothing back.
    #[must_use]
    pub fn never_refund(self) -> RateLimitLayer<Req, R, NeverRefund> {
        RateLimitLayer { stack: self.stack, refund: NeverRefund, reply: PhantomData }
    }

    fn change(self, change: impl FnOnce(&mut Stack<Req>)) -> Self {
        let mut stack = Arc::unwrap_or_clone(self.stack);
        change(&mut stack);
        Self { stack: Arc::new(stack), refund: self.refund, reply: PhantomData }
    }
}

impl<S, Req, R, G: Clone> Layer<S> for RateLimitLayer<Req, R, G> {
    type Service = RateLimitService<S, Req, R, G>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimitService::new(inner, Arc::clone(&self.stack), self.refund.clone())
    }
}

impl<Req, R, G: Clone> Clone for RateLimitLayer<Req, R, G> {
    fn clone(&self) -> Self {
        Self { stack: Arc::clone(&self.stack), refund: self.refund.clone(), reply: PhantomData }
    }
}

impl<Req, R, G> fmt::Debug for RateLimitLayer<Req, R, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer").field("stack", &self.stack).finish_non_exhaustive()
    }
}
