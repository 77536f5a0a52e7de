//! The proxy's face to its clients: what may come in, and what they get if there is no response.

use std::convert::Infallible;
use std::future::Ready;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use escala_replicas::http::strip_hop_by_hop;
use pin_project_lite::pin_project;
use tower::Service;

use super::body::LengthUnknown;
use super::error::{OriginError, page};
use super::target::Refusal;
use super::{hop, target};

/// Around the cache, so that the cache sees what the origin sees.
#[derive(Clone, Debug)]
pub(super) struct Front<S> {
    inner: S,
}

impl<S> Front<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, B> Service<Request<Body>> for Front<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = OriginError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = FrontFuture<S::Future>;

    /// A cache and a client are always ready; if one ever is not, its request says why.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx).map(|_| Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let is_head = head.method == Method::HEAD;
        if let Err(Refusal { status, rule }) = target::normalise(&mut head) {
            return FrontFuture::refused(page(status, None, rule));
        }
        if head.method == Method::OPTIONS && !hop::hop_allowed(&mut head.headers) {
            let mut last = Response::new(Body::empty());
            *last.status_mut() = StatusCode::NO_CONTENT;
            return FrontFuture::refused(last);
        }
        strip_hop_by_hop(&mut head.headers);
        let inner = self.inner.call(Request::from_parts(head, body));
        FrontFuture::Asked { inner, is_head }
    }
}

pin_project! {
    #[project = FrontFutureProj]
    pub(super) enum FrontFuture<F> {
        Refused { #[pin] response: Ready<Response<Body>> },
        Asked { #[pin] inner: F, is_head: bool },
    }
}

impl<F> FrontFuture<F> {
    fn refused(response: Response<Body>) -> Self {
        Self::Refused { response: std::future::ready(response) }
    }
}

impl<F, B> Future for FrontFuture<F>
where
    F: Future<Output = Result<Response<B>, OriginError>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (result, is_head) = match self.project() {
            FrontFutureProj::Refused { response } => return response.poll(cx).map(Ok),
            FrontFutureProj::Asked { inner, is_head } => (ready!(inner.poll(cx)), *is_head),
        };
        let response = match result {
            Ok(response) => response.map(Body::new),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no response");
                error.response()
            }
        };
        let response = if is_head && !response.headers().contains_key(CONTENT_LENGTH) {
            response.map(|body| Body::new(LengthUnknown(body)))
        } else {
            response
        };
        Poll::Ready(Ok(response))
    }
}
