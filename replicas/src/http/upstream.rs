//! One HTTP service as a node: pooled connections, timeouts, and requests in the form it expects.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use parking_lot::Mutex;
use tokio::runtime::{self, Handle};
use tokio::time::Instant;
use tower_service::Service;

use super::connection::Connection;
use super::connections::{Connections, Opening};
use super::error::refused_address;
use super::exchange::{Exchange, NoHead};
use super::request_body::RequestBody;
use super::request_head::{self, RequestFraming};
use super::response_head::ResponseHead;
use super::upload::Upload;
use super::{ResponseBody, UpstreamConfig, UpstreamError, strip_hop_by_hop};
use crate::{BoxError, ConfigError};

/// Runtimes that have a pool of their own at once; a process has one or one for each processor.
const MOST_RUNTIMES: usize = 256;

/// An HTTP/1.1 service at an address, such as `127.0.0.1:3000` or `http://reports.internal`.
///
/// A node for [`Replicas`](crate::Replicas): as a tower service it sends a request to that address,
/// whatever host the request names, and streams both bodies. It is always ready: connections are
/// opened as they are needed and kept for the next request. A connection is kept for the runtime that
/// opened it, so that servers with a runtime for each thread never wait for each other's. A name is
/// resolved for each new connection.
///
/// # Errors
/// [`UpstreamError`], also for a request whose own body ends early. A kept connection that the other
/// side has closed before a byte was written is replaced silently; any other retry is up to
/// [`ReverseProxy`](super::ReverseProxy).
///
/// # What is read
/// Heads of at most 100 fields and 64 KiB, bodies with a length, `chunked` or until the connection ends,
/// trailers of at most 32 fields and 16 KiB. A response with two lengths that differ or another coding is
/// refused.
///
/// # Cancellation
/// Dropping the future, or the response's body before its end, closes the connection. A request whose
/// answer is whole before it is sent is sent to its end by a task, as long as it moves.
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
    target: Uri,
    config: UpstreamConfig,
    /// By runtime. Read by every request, replaced when a runtime comes.
    connections: ArcSwap<Vec<Arc<Connections>>>,
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
        let target = Uri::builder().scheme("http").authority(authority.clone()).path_and_query("/");
        let target = target.build().map_err(|_| refused_address(address, rule))?;
        let (connections, adding) = (ArcSwap::from_pointee(Vec::new()), Mutex::new(()));
        let inner = Inner { authority, host, target, config, connections, adding };
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
        let (head, ()) = Request::get(path).body(())?.into_parts();
        let alone = self.inner.connections(runtime()?, 0);
        let response = self.inner.send_on(alone, &head, None, RequestBody::Empty);
        let response = response.await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(format!("{path} is answered with {}", response.status()).into())
    }

    /// Sends a request that is ready to go, to `host` if one is given; `client_patience` is for a
    /// streamed body.
    pub(super) fn send(
        &self,
        head: &Parts,
        host: Option<&HeaderValue>,
        body: RequestBody,
        client_patience: Duration,
    ) -> UpstreamFuture {
        let sent = runtime().map(|runtime| {
            let connections = self.inner.connections_of(runtime);
            self.inner.send_on(connections, head, host, body)
        });
        match sent {
            Ok(sent) => UpstreamFuture { client_patience, ..sent },
            Err(error) => UpstreamFuture::failed(error),
        }
    }
}

fn runtime() -> Result<runtime::Id, UpstreamError> {
    Ok(Handle::try_current().map_err(|_| UpstreamError::NoRuntime)?.id())
}

impl Inner {
    fn send_on(
        &self,
        connections: Arc<Connections>,
        head: &Parts,
        host: Option<&HeaderValue>,
        body: RequestBody,
    ) -> UpstreamFuture {
        if head.method == Method::CONNECT {
            return UpstreamFuture::failed(UpstreamError::Tunnel);
        }
        // Every server wants one (RFC 9112, section 3.2), and not every client sends it.
        let host = host.or((!head.headers.contains_key(HOST)).then_some(&self.host));
        let framing = RequestFraming::of(&body, &head.headers);
        let upload = Upload::new(request_head::write(head, host, framing), body, framing);
        let UpstreamConfig { response_timeout, body_idle_timeout, .. } = self.config;
        let now = Instant::now();
        UpstreamFuture {
            state: State::begin(connections, upload, head.method == Method::HEAD, now),
            due: now + response_timeout,
            patience: response_timeout,
            client_patience: response_timeout,
            body_idle: body_idle_timeout,
            upgrades: true,
        }
    }

    fn connections_of(&self, runtime: runtime::Id) -> Arc<Connections> {
        let own =
            |all: &[Arc<Connections>]| all.iter().find(|one| one.runtime() == runtime).cloned();
        if let Some(own) = own(&self.connections.load()) {
            return own;
        }
        let _one_at_a_time = self.adding.lock();
        let mut all = Vec::clone(&self.connections.load());
        if let Some(own) = own(&all) {
            return own;
        }
        if all.len() == MOST_RUNTIMES {
            // The oldest, which is the likeliest to have ended.
            all.remove(0);
        }
        let new = self.connections(runtime, self.config.pool_max_idle);
        all.push(Arc::clone(&new));
        self.connections.store(Arc::new(all));
        new
    }

    fn connections(&self, runtime: runtime::Id, max_idle: usize) -> Arc<Connections> {
        Connections::new(runtime, self.target.clone(), &self.config, max_idle)
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
        UpstreamFuture { upgrades: false, ..self.send(&head, None, body, patience) }
    }
}

/// The head of an upstream's response, within its time.
#[must_use = "futures do nothing unless polled"]
pub struct UpstreamFuture {
    state: State,
    /// When an upstream that has said nothing has had its time, unless something moves.
    due: Instant,
    /// Who may be silent for how long until there is a head.
    patience: Duration,
    client_patience: Duration,
    body_idle: Duration,
    upgrades: bool,
}

enum State {
    Opening { opening: Opening, home: Arc<Connections>, upload: Upload, to_head: bool },
    Exchange(Exchange),
    Failed(UpstreamError),
    Ended,
}

impl State {
    /// On a kept connection, if there is one.
    fn begin(home: Arc<Connections>, upload: Upload, to_head: bool, now: Instant) -> Self {
        match home.take(now) {
            Some(connection) => {
                Self::Exchange(Exchange::new(connection, home, upload, to_head, true))
            }
            None => Self::Opening { opening: home.open(), home, upload, to_head },
        }
    }
}

impl UpstreamFuture {
    fn failed(error: UpstreamError) -> Self {
        Self {
            state: State::Failed(error),
            due: Instant::now(),
            patience: Duration::ZERO,
            client_patience: Duration::ZERO,
            body_idle: Duration::ZERO,
            upgrades: false,
        }
    }

    /// Goes on until there is a head.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, UpstreamError>> {
        loop {
            let exchange = match &mut self.state {
                State::Exchange(exchange) => exchange,
                State::Opening { opening, .. } => {
                    let opened = ready!(opening.as_mut().poll(cx));
                    let (connection, used) = opened.map_err(UpstreamError::Connect)?;
                    self.opened(connection, used);
                    continue;
                }
                State::Failed(_) | State::Ended => return Poll::Ready(Err(self.failure())),
            };
            match ready!(exchange.poll_head(cx)) {
                Ok(head) => return Poll::Ready(Ok(head)),
                Err(NoHead::Failed(error)) => return Poll::Ready(Err(error)),
                Err(NoHead::Unsent(error)) if !exchange.is_used() => {
                    return Poll::Ready(Err(UpstreamError::Connect(error.into())));
                }
                Err(NoHead::Unsent(_)) => self.begin_anew(),
            }
        }
    }

    fn opened(&mut self, connection: Box<Connection>, used: bool) {
        if let State::Opening { home, upload, to_head, .. } = self.take_state() {
            self.state = State::Exchange(Exchange::new(connection, home, upload, to_head, used));
            self.due = Instant::now() + self.patience;
        }
    }

    /// The kept connection was closed before it was used again.
    fn begin_anew(&mut self) {
        if let State::Exchange(exchange) = self.take_state() {
            let (home, upload, to_head) = exchange.into_unsent();
            self.state = State::begin(home, upload, to_head, Instant::now());
        }
    }

    fn failure(&mut self) -> UpstreamError {
        match self.take_state() {
            State::Failed(error) => error,
            _ => panic!("polled after completion"),
        }
    }

    fn take_state(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Ended)
    }

    /// Ends with the error of whoever has been silent for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<UpstreamError> {
        // A connection that is being opened has a time of its own.
        let State::Exchange(exchange) = &mut self.state else { return Poll::Pending };
        loop {
            let Some(stream) = exchange.stream() else {
                ready!(exchange.poll_due(cx, self.due));
                return Poll::Ready(UpstreamError::Timeout);
            };
            // The client may have less time than the upstream had when it was looked at last.
            let (due, error) = stream.due(self.patience, self.client_patience);
            self.due = self.due.min(due);
            ready!(exchange.poll_due(cx, self.due));
            if due <= Instant::now() {
                return Poll::Ready(error);
            }
            self.due = due;
        }
    }

    /// The response as the client may get it; one that was not asked for is none.
    fn received(&mut self, head: ResponseHead) -> Result<Response<ResponseBody>, UpstreamError> {
        let State::Exchange(exchange) = self.take_state() else { return Err(self.failure()) };
        let ResponseHead { status, mut headers, framing, keeps } = head;
        let body = if status == StatusCode::SWITCHING_PROTOCOLS {
            if !self.upgrades {
                return Err(UpstreamError::Protocol("the protocol that was asked for"));
            }
            ResponseBody::changed(exchange)
        } else {
            strip_hop_by_hop(&mut headers);
            ResponseBody::following(exchange, framing, keeps, self.body_idle)
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

impl Future for UpstreamFuture {
    type Output = Result<Response<ResponseBody>, UpstreamError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(head) = self.poll_head(cx) {
            return Poll::Ready(head.and_then(|head| self.received(head)));
        }
        self.poll_silence(cx).map(Err)
    }
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
