//! The layer and its service: counts a request in and wraps its future.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::MatchedPath;
use bytes::Bytes;
use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::future::ResponseFuture;
use super::series::HttpSeries;

/// Counts and times every request by route template, method and status.
///
/// Put it on the router with `Router::layer`, outside of the layers that may reject, so that
/// their answers are counted as well; anything added later is outside. Routes of a router merged
/// after that call are not seen, which keeps probes and scrapes out of the figures.
///
/// # Example
/// ```
/// # fn main() -> Result<(), escala_observability::ConfigError> {
/// use axum::{Router, routing::get};
/// use escala_observability::Observability;
///
/// let obs = Observability::builder("shop").build()?;
/// let app: Router = Router::new()
///     .route("/items/{id}", get(|| async { "an item" }))
///     .layer(obs.http_layer())
///     .merge(obs.router());
/// # Ok(()) }
/// ```
///
/// # What is recorded
/// | metric | labels |
/// |---|---|
/// | `http_server_request_duration_seconds` (histogram) | `http_request_method`, `http_route`, `http_response_status_code`, `error_type` |
/// | `http_server_active_requests` (gauge) | `http_request_method` |
/// | `http_server_requests_aborted_total` | `http_request_method`, `http_route`, `phase` = `handler` or `body`, `cause` = `client` or `panic` |
///
/// `http_route` is axum's [`MatchedPath`]; a path without a route is `_unmatched`, as is anything
/// behind `nest_service`, where axum knows no template. The count of the histogram is the number
/// of requests.
///
/// A request ends with its body. Bodies that are empty or in memory and small (64 KiB) leave with
/// the head, so they are not wrapped; nor are answers to `HEAD` and event streams, which would
/// otherwise count as requests of many hours.
///
/// # Readiness and clones
/// `poll_ready` asks the inner service. Clones, and services made from clones of one layer, record
/// into the same series.
///
/// # Cancellation
/// A dropped future or body counts as aborted, and the request is no longer active.
///
/// # Errors
/// The inner service's, untouched; counted with `error_type="_OTHER"` and no status.
///
/// # Cost
/// One hash of the template, two clock reads and about eight atomic operations; no lock and no
/// allocation after the first request of a kind.
#[derive(Debug, Clone)]
pub struct HttpLayer {
    series: Arc<HttpSeries>,
}

impl HttpLayer {
    pub(crate) fn new(series: Arc<HttpSeries>) -> Self {
        Self { series }
    }
}

impl<S> Layer<S> for HttpLayer {
    type Service = HttpService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        HttpService { inner, series: Arc::clone(&self.series) }
    }
}

/// The service of [`HttpLayer`].
#[derive(Debug, Clone)]
pub struct HttpService<S> {
    inner: S,
    series: Arc<HttpSeries>,
}

impl<S, B, R> Service<Request<B>> for HttpService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<axum::BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let template = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let mut token = self.series.start(template, request.method());
        let head = request.method() == http::Method::HEAD;
        token.enter();
        let inner = self.inner.call(request);
        token.leave();
        ResponseFuture::new(inner, token, head)
    }
}
