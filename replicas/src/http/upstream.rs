//! One HTTP service as a node: pooled connections, timeouts, and requests in the form it expects.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{self, Authority, Scheme};
use http::{Extensions, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::runtime;
use tokio::time::{Instant, Sleep, sleep};
use tower_service::Service;

use super::connector::Connector;
use super::error::refused_address;
use super::request_body::{RequestBody, Stream};
use super::{ResponseBody, UpstreamConfig, UpstreamError, strip_hop_by_hop};
use crate::{BoxError, ConfigError};

/// Runtimes that have a pool of their own at once; a process has one or one for each processor.
const MOST_RUNTIMES: usize = 256;

type Pooled = Client<Connector, RequestBody>;

/// An HTTP/1.1 service at an address, such as `127.0.0.1:3000` or `http://reports.internal`.
///
/// A node for [`Replicas`](crate::Replicas): as a tower service it sends a request to that address,
/// whatever host the request names, and streams both bodies. It is always ready: connections are
/// opened as they are needed and kept for the next request. A connection is kept for the runtime that
/// opened it, so that servers with a runtime for each thread never wait for each other's. A name is
/// resolved for each new connection.
///
/// # Errors
/// [`UpstreamError`], also for a request whose own body ends early. A connection that the other side
/// had closed before a byte was written is replaced silently; any other retry is up to
/// [`ReverseProxy`](super::ReverseProxy).
///
/// # Cancellation
/// Dropping the future or the response's body closes the connection.
///
/// # Limits
/// No TLS and no HTTP/2. An upgrade is refused as a wrong answer here; the proxy does them.
#[derive(Clone)]
pub struct Upstream {
    inner: Arc<Inner>,
}

struct Inner {
    authority: Authority,
    host: HeaderValue,
    config: UpstreamConfig,
    /// Read by every request, replaced when a runtime comes.
    pools: ArcSwap<Vec<(runtime::Id, Pooled)>>,
    /// Held while one is added, so that none is lost.
    adding: Mutex<()>,
}

impl Upstream {
    /// The service at `address`: a host and a port, with or without `http://` before them.
    ///
    /// # Errors
    /// The address is none, or a setting breaks its rule.
    pub fn new(address: &str, config: UpstreamConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        let rule = "be a host and a port, or http:// and these";
        let bare = address.strip_prefix("http://").unwrap_or(address);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        let authority: Authority = bare.parse().map_err(|_| refused_address(address, rule))?;
        let host = HeaderValue::from_str(authority.as_str());
        let host = host.map_err(|_| refused_address(address, rule))?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(refused_address(address, "have a host and no user"));
        }
        // One that is no port would be left out, and the default taken.
        let has_port = authority.as_str().len() > authority.host().len();
        if has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(refused_address(address, "have a port from 1 to 65535, or none"));
        }
        let pools = ArcSwap::from_pointee(Vec::new());
        let inner = Inner { authority, host, config, pools, adding: Mutex::new(()) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        self.inner.authority.as_str()
    }

    /// What it calls itself in `Host`.
    pub(super) fn host(&self) -> &HeaderValue {
        &self.inner.host
    }

    /// Asks for `path` on a connection of its own and wants a success, for
    /// [`ReplicasBuilder::probe`](crate::ReplicasBuilder::probe).
    ///
    /// # Errors
    /// There is no answer, or one that is no success.
    pub async fn probe(&self, path: &str) -> Result<(), BoxError> {
        let request = Request::get(path).header(http::header::HOST, self.host());
        let (head, ()) = request.body(())?.into_parts();
        let client = self.inner.client(0);
        let request = self.inner.addressed(head, RequestBody::Empty)?;
        let response = client.request(request).await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(format!("{path} is answered with {}", response.status()).into())
    }

    /// Sends a request that is ready to go; `client_patience` is for a streamed body.
    pub(super) fn send(
        &self,
        head: Parts,
        body: RequestBody,
        client_patience: Duration,
    ) -> UpstreamFuture {
        let stream = match &body {
            RequestBody::Stream(stream) => Some(Arc::clone(stream)),
            RequestBody::Empty | RequestBody::Whole(_) => None,
        };
        let UpstreamConfig { response_timeout, body_idle_timeout, .. } = self.inner.config;
        let watch = Watch { stream, upstream: response_timeout, client: client_patience };
        let state = match self.inner.send(head, body) {
            Ok(response) => {
                // After the request, without a runtime for which there is no timer either.
                State::Sent { response, timer: sleep(response_timeout) }
            }
            Err(error) => State::Unsent { error: Some(error) },
        };
        UpstreamFuture { state, watch, body_idle: body_idle_timeout, upgrades: true }
    }
}

impl Inner {
    fn send(
        &self,
        head: Parts,
        body: RequestBody,
    ) -> Result<legacy::ResponseFuture, UpstreamError> {
        let request = self.addressed(head, body).map_err(UpstreamError::Target)?;
        let id = runtime::Handle::try_current().map_err(|_| UpstreamError::NoRuntime)?.id();
        let pools = self.pools.load();
        if let Some((_, client)) = pools.iter().find(|(owner, _)| *owner == id) {
            return Ok(client.request(request));
        }
        Ok(self.pool_for(id).request(request))
    }

    /// In the form that the client wants: where it goes is part of the target.
    fn addressed(
        &self,
        mut head: Parts,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, http::Error> {
        let mut target = uri::Parts::default();
        target.scheme = Some(Scheme::HTTP);
        target.authority = Some(self.authority.clone());
        let path = head.uri.path_and_query().cloned();
        target.path_and_query = Some(path.unwrap_or(uri::PathAndQuery::from_static("/")));
        head.uri = Uri::from_parts(target)?;
        head.version = Version::HTTP_11;
        // hyper sends no body of unknown length with a GET or HEAD unless it is told to.
        if let RequestBody::Stream(_) = &body
            && body.size_hint().exact().is_none()
            && !head.headers.contains_key(CONTENT_LENGTH)
        {
            head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        // What hyper left there belongs to the client's connection.
        head.extensions = Extensions::new();
        Ok(Request::from_parts(head, body))
    }

    fn pool_for(&self, id: runtime::Id) -> Pooled {
        let _one_at_a_time = self.adding.lock();
        let mut pools = Vec::clone(&self.pools.load());
        if let Some((_, client)) = pools.iter().find(|(owner, _)| *owner == id) {
            return client.clone();
        }
        if pools.len() == MOST_RUNTIMES {
            // The oldest, which is the likeliest to have ended.
            pools.remove(0);
        }
        let client = self.client(self.config.pool_max_idle);
        pools.push((id, client.clone()));
        self.pools.store(Arc::new(pools));
        client
    }

    fn client(&self, max_idle: usize) -> Pooled {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(self.config.connect_timeout));
        Client::builder(TokioExecutor::new())
            .pool_idle_timeout(self.config.pool_idle_timeout)
            .pool_max_idle_per_host(max_idle)
            .pool_timer(TokioTimer::new())
            .build(Connector::new(connector, self.config.connect_timeout))
    }
}

impl<B> Service<Request<B>> for Upstream
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = UpstreamError;
    type Future = UpstreamFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> UpstreamFuture {
        let (mut head, body) = request.into_parts();
        strip_hop_by_hop(&mut head.headers);
        let body =
            if body.is_end_stream() { RequestBody::Empty } else { RequestBody::stream(body) };
        let patience = self.inner.config.response_timeout;
        UpstreamFuture { upgrades: false, ..self.send(head, body, patience) }
    }
}

pin_project! {
    /// The head of an upstream's response, within its time.
    #[must_use = "futures do nothing unless polled"]
    pub struct UpstreamFuture {
        #[pin]
        state: State,
        watch: Watch,
        body_idle: Duration,
        upgrades: bool,
    }
}

pin_project! {
    #[project = StateProject]
    enum State {
        Unsent { error: Option<UpstreamError> },
        Sent { #[pin] response: legacy::ResponseFuture, #[pin] timer: Sleep },
    }
}

/// Who may be silent for how long until there is a head.
struct Watch {
    stream: Option<Arc<Stream>>,
    upstream: Duration,
    client: Duration,
}

impl Future for UpstreamFuture {
    type Output = Result<Response<ResponseBody>, UpstreamError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (response, mut timer) = match this.state.project() {
            StateProject::Unsent { error } => {
                return Poll::Ready(Err(error.take().expect("polled after completion")));
            }
            StateProject::Sent { response, timer } => (response, timer),
        };
        if let Poll::Ready(response) = response.poll(cx) {
            let upload = this.watch.stream.take();
            return Poll::Ready(received(response?, upload, *this.body_idle, *this.upgrades));
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            let Some(stream) = &this.watch.stream else {
                return Poll::Ready(Err(UpstreamError::Timeout));
            };
            let (due, error) = stream.due(this.watch.upstream, this.watch.client);
            if due <= Instant::now() {
                return Poll::Ready(Err(error));
            }
            timer.as_mut().reset(due);
        }
    }
}

/// The response as the client may get it; one that was not asked for is none.
fn received(
    response: Response<hyper::body::Incoming>,
    upload: Option<Arc<Stream>>,
    body_idle: Duration,
    upgrades: bool,
) -> Result<Response<ResponseBody>, UpstreamError> {
    let (mut head, body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        if !upgrades {
            return Err(UpstreamError::Protocol(None));
        }
    } else {
        strip_hop_by_hop(&mut head.headers);
        head.extensions = Extensions::new();
    }
    head.version = Version::HTTP_11;
    Ok(Response::from_parts(head, ResponseBody::incoming(body, upload, body_idle)))
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("address", &self.address())
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for UpstreamFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamFuture").finish_non_exhaustive()
    }
}
