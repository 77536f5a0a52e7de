//! The proxy as axum wants a service: without errors.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{ResponseBody, ResponseFuture, ReverseProxy};
use crate::BoxError;

/// A [`ReverseProxy`] whose errors are responses ([`ProxyError::response`](super::ProxyError::response)),
/// so that it goes into an axum router as it is: `Router::new().fallback_service(proxy.answering())`.
#[derive(Debug, Clone)]
pub struct Answering {
    proxy: ReverseProxy,
}

impl Answering {
    pub(super) fn new(proxy: ReverseProxy) -> Self {
        Self { proxy }
    }
}

impl<B> Service<Request<B>> for Answering
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = AnsweringFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> AnsweringFuture {
        AnsweringFuture { inner: self.proxy.call(request) }
    }
}

pin_project! {
    /// The response of an [`Answering`] proxy.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct AnsweringFuture {
        #[pin]
        inner: ResponseFuture,
    }
}

impl Future for AnsweringFuture {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.project().inner.poll(cx));
        Poll::Ready(Ok(result.unwrap_or_else(|error| error.response())))
    }
}
