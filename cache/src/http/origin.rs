//! What stands behind the cache.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tower_service::Service;

use crate::BoxError;

/// A service that answers HTTP requests with a body of `B`, named once instead of everywhere.
pub(crate) trait Origin<B>: Clone + Send + 'static {
    type Body: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
    type Failure: Send + 'static;
    type Answer: Future<Output = Result<Response<Self::Body>, Self::Failure>> + Send + 'static;

    fn poll_fit(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Failure>>;

    /// Only after [`poll_fit`](Self::poll_fit) on the same value.
    fn send(&mut self, request: Request<B>) -> Self::Answer;
}

impl<S, B, R> Origin<B> for S
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Body = R;
    type Failure = S::Error;
    type Answer = S::Future;

    fn poll_fit(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.poll_ready(context)
    }

    fn send(&mut self, request: Request<B>) -> S::Future {
        self.call(request)
    }
}

/// Sends a further request through a service that has had one.
pub(crate) async fn send_again<B, S: Origin<B>>(
    service: &mut S,
    request: Request<B>,
) -> Result<Response<S::Body>, S::Failure> {
    poll_fn(|context| service.poll_fit(context)).await?;
    service.send(request).await
}
