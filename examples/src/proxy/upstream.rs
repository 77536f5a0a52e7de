//! The way to the origin: one pooled client, as a service.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Extensions, Request, Response, StatusCode, Uri, Version, uri};
use escala_replicas::http::strip_hop_by_hop;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::Service;

use super::body::{OriginBody, Progress, RequestBody};
use super::error::OriginError;
use super::hop;
use super::settings::{Origin, Settings};

/// How long a connection to the origin is kept without a request: shorter than any server that is
/// known to keep its own, so that it is we who close.
const KEPT: Duration = Duration::from_secs(4);
/// Connections to the origin that are kept without a request.
const KEPT_MOST: usize = 256;

/// Sends a request to the origin; the response is in hand when its head is.
#[derive(Clone)]
pub(super) struct Upstream {
    client: Client<HttpConnector, RequestBody>,
    origin: Arc<Origin>,
    patience: Duration,
}

impl Upstream {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(settings.connect_timeout));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(KEPT)
            .pool_max_idle_per_host(KEPT_MOST)
            .pool_timer(TokioTimer::new())
            .build(connector);
        let origin = Arc::new(settings.origin.clone());
        Self { client, origin, patience: settings.origin_timeout }
    }

    /// The request as the origin gets it.
    fn outgoing(
        &self,
        request: Request<Body>,
        progress: &Progress,
    ) -> Result<Request<RequestBody>, uri::InvalidUriParts> {
        let (mut head, body) = request.into_parts();
        let peer = head.extensions.get().map(|ConnectInfo(peer): &ConnectInfo<SocketAddr>| *peer);
        hop::introduce(&mut head.headers, head.version, peer);
        let mut target = uri::Parts::default();
        target.scheme = Some(self.origin.scheme.clone());
        target.authority = Some(self.origin.authority.clone());
        target.path_and_query = head.uri.path_and_query().cloned();
        head.uri = Uri::from_parts(target)?;
        head.version = Version::HTTP_11;
        // What hyper left there belongs to the client's connection.
        head.extensions = Extensions::new();
        Ok(Request::from_parts(head, RequestBody::new(body, progress.clone())))
    }

    async fn send(self, request: Request<Body>) -> Result<Response<OriginBody>, OriginError> {
        let progress = Progress::new();
        // The target was checked before; what cannot be sent all the same is nobody's response.
        let request = self.outgoing(request, &progress).map_err(|_| OriginError::Protocol(None))?;
        let response = tokio::select! {
            biased;
            response = self.client.request(request) => response?,
            error = progress.stalled(self.patience) => return Err(error),
        };
        // An upgrade was not asked for: the field for it is taken off.
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(OriginError::Protocol(None));
        }
        let (mut head, body) = response.into_parts();
        strip_hop_by_hop(&mut head.headers);
        hop::via(&mut head.headers, head.version);
        head.version = Version::HTTP_11;
        head.extensions = Extensions::new();
        Ok(Response::from_parts(head, OriginBody::new(body, self.patience)))
    }
}

impl Service<Request<Body>> for Upstream {
    type Response = Response<OriginBody>;
    type Error = OriginError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<OriginBody>, OriginError>> + Send>>;

    /// A client opens connections as it needs them, so it is always ready.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), OriginError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}
