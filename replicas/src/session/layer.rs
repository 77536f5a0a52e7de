//! Gives each request the session of its client, and each client the token of what it wrote.
//!
//! Put it around an axum router whose handlers take a [`SessionHandle`]. The next request of a client
//! that wrote sees the write on whichever node serves it, also if another process serves it.
//!
//! ```
//! # use axum::{Router, routing::get};
//! # use escala_replicas::{Keys, Replicas, RouteError, SessionHandle, SessionLayer, Token};
//! # async fn app(db: Replicas<&'static str>) -> Result<Router, Box<dyn std::error::Error>> {
//! # async fn insert(_: &str) -> Token { Token::unplaced(std::time::SystemTime::now()) }
//! let read = {
//!     let db = db.clone();
//!     async move |session: SessionHandle| {
//!         let node = session.read(&db).await?;
//!         Ok::<_, RouteError>(node.name().to_owned())
//!     }
//! };
//! let write = async move |session: SessionHandle| {
//!     let node = db.write()?;
//!     session.wrote(insert(&node).await); // the commit's position
//!     Ok::<_, RouteError>("done")
//! };
//! # let secret = [7; 32];
//! let sessions = SessionLayer::new(Keys::new(&secret)?);
//! Ok(Router::new().route("/orders", get(read).post(write)).layer(sessions))
//! # }
//! ```
//!
//! # Caches
//! Only a response to a request that wrote sets a cookie, so reads stay cacheable. One that does is
//! for this client alone: unless it is `private` or `no-store` already, its `Cache-Control` becomes
//! `no-store`. A cache in front of the handlers knows nothing of tokens: what a client must see after
//! its own write has to be removed from it by the write, or to bypass it.
//! # State
//! Clones of the layer and its services share keys and figures.
//! # Limits
//! A client has one token. Of two writes at the same time whose responses pass each other, the later
//! response leaves its token, which may be the earlier write's. At most 4 texts of a request are
//! tried, each of 58 bytes.
//! # Errors
//! None of its own. A token that cannot be opened is counted and ignored: its client reads like one
//! that never wrote.
//! # Cost
//! A request without a token: an entry in its extensions and one allocation. With one: two HMACs
//! more, and two for one that is handed out.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::Session;
use super::carrier::Carrier;
use super::config::SessionConfig;
use super::handle::SessionHandle;
use super::keys::Keys;
use super::stats::{Counts, SessionStats};
use crate::ConfigError;

const NODE: HeaderName = HeaderName::from_static("x-escala-node");
const REASON: HeaderName = HeaderName::from_static("x-escala-reason");

/// Gives each request the session of its client. See the [module's page](crate::session::layer).
#[derive(Clone)]
pub struct SessionLayer {
    shared: Arc<Shared>,
}

struct Shared {
    carrier: Carrier,
    explain: bool,
    counts: Counts,
}

/// A service whose requests carry a session.
#[derive(Clone)]
pub struct SessionService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl SessionLayer {
    /// With the default [`SessionConfig`].
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        let layer = Self::with_config(keys, &SessionConfig::default());
        layer.expect("the defaults keep their rules")
    }

    /// With settings of one's own.
    ///
    /// # Errors
    /// The first setting that breaks its rule.
    pub fn with_config(keys: Keys, config: &SessionConfig) -> Result<Self, ConfigError> {
        let carrier = Carrier::new(keys, config)?;
        let (explain, counts) = (config.explain, Counts::default());
        Ok(Self { shared: Arc::new(Shared { carrier, explain, counts }) })
    }

    /// The figures of this moment.
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        self.shared.counts.snapshot()
    }
}

impl Shared {
    fn handle(&self, headers: &HeaderMap) -> SessionHandle {
        let mut session = Session::new();
        for text in self.carrier.texts(headers) {
            let (wall, now) = (SystemTime::now(), Instant::now());
            let token = self.carrier.open(text, wall);
            self.counts.opened(&token);
            if let Ok(token) = token {
                session.wrote_for(token, self.carrier.life(), wall, now);
            }
        }
        SessionHandle::new(session, self.carrier.life())
    }

    fn finish(&self, handle: &SessionHandle, headers: &mut HeaderMap) {
        if let Some(token) = handle.handed_out() {
            self.carrier.hand_out(&token, headers);
            self.counts.issued();
        }
        if self.explain
            && let Some(served) = handle.served()
        {
            if let Ok(node) = HeaderValue::from_bytes(served.node.as_bytes()) {
                headers.insert(NODE, node);
            }
            headers.insert(REASON, HeaderValue::from_static(served.reason.as_str()));
        }
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> SessionService<S> {
        SessionService { inner, shared: Arc::clone(&self.shared) }
    }
}

impl<S, B, C> Service<Request<B>> for SessionService<S>
where
    S: Service<Request<B>, Response = Response<C>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = SessionFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let handle = self.shared.handle(request.headers());
        request.extensions_mut().insert(handle.clone());
        let response = self.inner.call(request);
        SessionFuture { response, handle, shared: Arc::clone(&self.shared) }
    }
}

pin_project! {
    /// Waits for the response and hands it the token, if there was a write.
    #[must_use = "futures do nothing unless polled"]
    pub struct SessionFuture<F> {
        #[pin]
        response: F,
        handle: SessionHandle,
        shared: Arc<Shared>,
    }
}

impl<F, C, E> Future for SessionFuture<F>
where
    F: Future<Output = Result<Response<C>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut result = ready!(this.response.poll(cx));
        if let Ok(response) = &mut result {
            this.shared.finish(this.handle, response.headers_mut());
        }
        Poll::Ready(result)
    }
}

impl fmt::Debug for SessionLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer")
            .field("carrier", &self.shared.carrier)
            .field("explain", &self.shared.explain)
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug> fmt::Debug for SessionService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for SessionFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionFuture").field("handle", &self.handle).finish_non_exhaustive()
    }
}
