//! The future of a response that passes the cache.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;

use crate::http::body::Body;
use crate::http::engine::{CacheStatus, Fwd};
use crate::http::route::Route;
use crate::http::stats::{Outcome, Token};

pin_project! {
    /// The response of an [`HttpCacheService`](crate::http::HttpCacheService).
    pub struct ResponseFuture<F, R, E> {
        #[pin]
        state: State<F, R, E>,
    }
}

type Boxed<R, E> = Pin<Box<dyn Future<Output = Result<Response<Body<R>>, E>> + Send>>;

pin_project! {
    #[project = StateProj]
    enum State<F, R, E> {
        Ready { response: Option<Response<Body<R>>> },
        Passed { #[pin] call: F, route: Arc<Route>, fwd: Fwd, token: Option<Token> },
        Boxed { future: Boxed<R, E> },
    }
}

impl<F, R, E> ResponseFuture<F, R, E> {
    pub(crate) fn ready(response: Response<Body<R>>) -> Self {
        Self { state: State::Ready { response: Some(response) } }
    }

    pub(crate) fn passed(call: F, route: Arc<Route>, fwd: Fwd, token: Token) -> Self {
        Self { state: State::Passed { call, route, fwd, token: Some(token) } }
    }

    /// Boxed, so that a hit does not carry the room for this.
    pub(crate) fn boxed(
        future: impl Future<Output = Result<Response<Body<R>>, E>> + Send + 'static,
    ) -> Self {
        Self { state: State::Boxed { future: Box::pin(future) } }
    }
}

impl<F, R, E> Future for ResponseFuture<F, R, E>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<Body<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Ready { response } => {
                Poll::Ready(Ok(response.take().expect("polled again after its response")))
            }
            StateProj::Passed { call, route, fwd, token } => {
                let answer = ready!(call.poll(context));
                let outcome = if answer.is_ok() { Outcome::Bypassed } else { Outcome::Failed };
                if let Some(token) = token.take() {
                    token.settle(outcome);
                }
                Poll::Ready(answer.map(|response| {
                    let (parts, body) = response.into_parts();
                    let fwd_status = Some(parts.status);
                    let status = CacheStatus { fwd_status, ..route.forwarded(*fwd) };
                    route.passed(parts, Body::inner(body), status)
                }))
            }
            StateProj::Boxed { future } => future.as_mut().poll(context),
        }
    }
}

impl<F, R, E> fmt::Debug for ResponseFuture<F, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
