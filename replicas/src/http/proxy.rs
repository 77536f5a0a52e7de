//! A reverse proxy over a set of upstreams, as a tower service.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use super::budget::RetryBudget;
use super::stats::Counters;
use super::{
    Answering, HostPolicy, Peer, ProxyConfig, ProxyError, ProxyStats, ResponseBody, ResponseFuture,
    Upstream,
};
use crate::{BoxError, ConfigError, Replicas};

/// Sends each request to one upstream of a set and streams the answer back.
///
/// What belongs to the client's connection is taken off on the way in and out (RFC 9110, section
/// 7.6.1), what the upstream should know of the client is added, and a connection that changes its
/// protocol is carried on for as long as it lasts. The upstream counts as in use until all of its
/// response has come or the upgraded connection has ended, so that least connections is what it says.
///
/// A request that failed before anything of its answer went out is tried on other nodes, within
/// [`attempts`](ProxyConfig::attempts) and the retry budget: any request that was provably not sent,
/// else an idempotent one whose connection was closed, or whose status is in
/// [`retry_statuses`](ProxyConfig::retry_statuses).
///
/// # Readiness and clones
/// Always ready; clones share the set, the budget and the figures.
///
/// # Cancellation
/// Dropping the future, or the body before all of it has come, closes the connection to the upstream and
/// counts as cancelled, which is no failure of the node.
///
/// # Errors
/// [`ProxyError`]; [`answering`](Self::answering) makes responses of them.
///
/// # Cost
/// A box for the future, and one system call to send the request and one to read the usual answer: the
/// connection is driven by whoever waits for it, without a task or a channel of its own. An answer that
/// begins before its request is sent takes both.
#[derive(Clone)]
pub struct ReverseProxy {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) replicas: Replicas<Upstream>,
    pub(super) config: ProxyConfig,
    /// [`HostPolicy::Fixed`] and [`ProxyConfig::explain`], parsed once.
    pub(super) fixed_host: Option<HeaderValue>,
    pub(super) explain: Option<HeaderName>,
    pub(super) budget: Arc<RetryBudget>,
    /// Outlived by its tunnels.
    pub(super) counters: Arc<Counters>,
}

impl ReverseProxy {
    /// A proxy over a set, which others may use and change as well.
    ///
    /// # Errors
    /// The first setting that breaks its rule.
    pub fn new(replicas: Replicas<Upstream>, config: ProxyConfig) -> Result<Self, ConfigError> {
        let (ratio, least) = (config.retry_ratio, config.retry_min_per_second);
        let budget = RetryBudget::new(ratio, least, Instant::now());
        Self::with(replicas, config, Arc::new(budget), Arc::default())
    }

    /// A proxy over the same set with other settings, whose figures go on from this one's; and so does
    /// its retry budget, if that is as large as before. Requests of this one go on as they began.
    ///
    /// # Errors
    /// The first setting that breaks its rule.
    pub fn reconfigured(&self, config: ProxyConfig) -> Result<Self, ConfigError> {
        let Shared { replicas, budget, counters, .. } = &*self.shared;
        let (ratio, least) = (config.retry_ratio, config.retry_min_per_second);
        let budget = match budget.is_of(ratio, least) {
            true => Arc::clone(budget),
            false => Arc::new(RetryBudget::new(ratio, least, Instant::now())),
        };
        Self::with(replicas.clone(), config, budget, Arc::clone(counters))
    }

    fn with(
        replicas: Replicas<Upstream>,
        config: ProxyConfig,
        budget: Arc<RetryBudget>,
        counters: Arc<Counters>,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let fixed_host = match &config.host {
            HostPolicy::Fixed(host) => HeaderValue::from_str(host).ok(),
            HostPolicy::Preserve | HostPolicy::Upstream => None,
        };
        let explain = config.explain.as_ref();
        let explain = explain.and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        let shared = Shared { replicas, config, fixed_host, explain, budget, counters };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The set.
    #[must_use]
    pub fn replicas(&self) -> &Replicas<Upstream> {
        &self.shared.replicas
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &ProxyConfig {
        &self.shared.config
    }

    /// What the tower service does, which finds the peer in the request's extensions.
    pub fn forward<B>(&self, request: Request<B>, peer: Option<Peer>) -> ResponseFuture
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        ResponseFuture::new(Arc::clone(&self.shared), request, peer)
    }

    /// The same proxy, with responses in place of errors.
    #[must_use]
    pub fn answering(self) -> Answering {
        Answering::new(self)
    }

    /// Counters at this moment; those of the nodes are in [`Replicas::stats`].
    #[must_use]
    pub fn stats(&self) -> ProxyStats {
        self.shared.counters.snapshot()
    }
}

impl<B> Service<Request<B>> for ReverseProxy
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = ProxyError;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let peer = request.extensions().get().copied();
        self.forward(request, peer)
    }
}

impl fmt::Debug for ReverseProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReverseProxy")
            .field("replicas", &self.shared.replicas)
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}
