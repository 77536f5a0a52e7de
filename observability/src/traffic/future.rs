//! The future of the layer: ends the count with the head, or hands it to the body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::Body as _;
use pin_project_lite::pin_project;

use super::body::ObservedBody;
use super::series::Token;

/// A body of known length up to this leaves with its head in one write, so its end is the head's.
const SMALL: u64 = 64 * 1_024;

pin_project! {
    /// Future of [`HttpService`](crate::HttpService).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        // `Some` until the inner future ends.
        token: Option<Token>,
        head_only: bool,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, token: Token, head_only: bool) -> Self {
        Self { inner, token: Some(token), head_only }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<axum::BoxError>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let token = this.token.as_mut().expect("polled after completion");
        token.enter();
        let polled = this.inner.poll(cx);
        token.leave();
        let outcome = ready!(polled);
        let token = this.token.take().expect("taken only here, with the outcome");
        Poll::Ready(match outcome {
            // For axum's own body `Body::new` is the identity.
            Ok(response) => Ok(finish(token, response.map(Body::new), *this.head_only)),
            Err(error) => {
                token.errored();
                Err(error)
            }
        })
    }
}

fn finish(mut token: Token, response: Response<Body>, head_only: bool) -> Response<Body> {
    let status = response.status();
    let body = response.body();
    let small = || body.size_hint().exact().is_some_and(|length| length <= SMALL);
    if head_only || has_no_body(status) || body.is_end_stream() || small() {
        token.answered(status);
        return response;
    }
    if is_event_stream(response.headers()) {
        token.answered(status);
        return response;
    }
    token.body_begins();
    response.map(|body| Body::new(ObservedBody::new(body, token, status)))
}

fn has_no_body(status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(|v| v.as_bytes());
    kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"))
}
