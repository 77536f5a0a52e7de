//! Gives each request the right to a lease and a deadline.
//!
//! Put it around an axum router whose handlers take [`Leased`](crate::Leased) or
//! [`LeaseHandle`]. Nothing is acquired before a handler asks for it, so a
//! request that needs no connection holds none.
//!
//! ```
//! # use std::time::Duration;
//! # use axum::{Router, routing::get};
//! # use escala_pool::{Leased, Manager, Pool, PoolLayer, RequestConfig};
//! # fn app<M: Manager<Connection = String>>(pool: Pool<M>) -> Router {
//! async fn handler<M: Manager<Connection = String>>(lease: Leased<Pool<M>>) -> String {
//!     // Acquired before the handler began, within the request's deadline, and given back with it.
//!     lease.to_uppercase()
//! }
//!
//! let config = RequestConfig::default().timeout(Duration::from_secs(10));
//! let layer = PoolLayer::new(pool).config(config).expect("the timeouts keep their rules");
//! Router::new().route("/", get(handler::<M>)).layer(layer)
//! # }
//! ```
//!
//! # State
//! Clones of the layer and its services share the pool.
//! # Errors
//! None of its own: the extractors reject, with 503 and `Retry-After` or with 504.
//! # Cost
//! Two entries in the request's extensions, which allocate.

use std::fmt;
use std::panic::Location;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderName, Request};
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::config::{ConfigError, duration};
use crate::request::{Deadline, LeaseHandle, LeasePool, requested_timeout};

/// How long requests have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RequestConfig {
    /// From the arrival of a request to its deadline, unless the request says otherwise. Default
    /// 30 s: common proxies have given up by then.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub timeout: Duration,
    /// The header in which a request may ask for another time: a number of milliseconds, or a number
    /// and a unit as in `grpc-timeout` (`H`, `M`, `S`, `m`, `u`, `n`). What is neither is ignored.
    /// Default none: only a trusted caller should be asked.
    pub header: Option<String>,
    /// The longest time that the header can ask for. Default 60 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub max_timeout: Duration,
}

impl RequestConfig {
    /// Sets the time from the arrival of a request to its deadline.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the header in which a request may ask for another time.
    #[must_use]
    pub fn header(mut self, header: impl Into<String>) -> Self {
        self.header = Some(header.into());
        self
    }

    /// Sets the longest time that the header can ask for.
    #[must_use]
    pub fn max_timeout(mut self, max_timeout: Duration) -> Self {
        self.max_timeout = max_timeout;
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.header_name()?;
        duration("timeout", self.timeout)?;
        duration("max_timeout", self.max_timeout)
    }

    fn header_name(&self) -> Result<Option<HeaderName>, ConfigError> {
        let Some(header) = &self.header else { return Ok(None) };
        let rule = "must be a name of a header";
        let name = HeaderName::from_bytes(header.as_bytes());
        name.map(Some).map_err(|_| ConfigError::new("header", header, rule))
    }
}

impl Default for RequestConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            header: None,
            max_timeout: Duration::from_secs(60),
        }
    }
}

/// Gives each request the right to a lease and a deadline. See the [module's page](crate::layer).
#[derive(Clone)]
pub struct PoolLayer<P> {
    pool: P,
    config: RequestConfig,
    header: Option<HeaderName>,
    place: &'static Location<'static>,
}

/// A service whose requests carry the right to a lease and a deadline.
#[derive(Clone)]
pub struct PoolService<S, P> {
    inner: S,
    layer: PoolLayer<P>,
}

impl<P: LeasePool> PoolLayer<P> {
    /// With the default [`RequestConfig`]. Leases that an extractor acquires are reported with the
    /// place of this call.
    #[track_caller]
    pub fn new(pool: P) -> Self {
        let config = RequestConfig::default();
        Self { pool, config, header: None, place: Location::caller() }
    }

    /// Sets how long requests have.
    ///
    /// # Errors
    /// A setting breaks its rule.
    pub fn config(mut self, config: RequestConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        self.header = config.header_name()?;
        self.config = config;
        Ok(self)
    }

    /// An earlier deadline that the request carries already stays.
    fn deadline<B>(&self, request: &Request<B>, now: Instant) -> Deadline {
        let asked = self.header.as_ref().and_then(|name| request.headers().get(name));
        let asked = asked.and_then(|value| requested_timeout(value.as_bytes()));
        let timeout = asked.map_or(self.config.timeout, |asked| asked.min(self.config.max_timeout));
        let deadline = Deadline::at(now + timeout);
        request.extensions().get::<Deadline>().map_or(deadline, |former| deadline.min(*former))
    }
}

impl<S, P: Clone> Layer<S> for PoolLayer<P> {
    type Service = PoolService<S, P>;

    fn layer(&self, inner: S) -> PoolService<S, P> {
        PoolService { inner, layer: self.clone() }
    }
}

impl<S, P, B> Service<Request<B>> for PoolService<S, P>
where
    S: Service<Request<B>>,
    P: LeasePool,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let deadline = self.layer.deadline(&request, Instant::now());
        let handle = LeaseHandle::new(self.layer.pool.clone(), deadline, self.layer.place);
        request.extensions_mut().insert(deadline);
        request.extensions_mut().insert(handle);
        self.inner.call(request)
    }
}

impl<P> fmt::Debug for PoolLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolLayer").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<S, P> fmt::Debug for PoolService<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolService").field("layer", &self.layer).finish_non_exhaustive()
    }
}
