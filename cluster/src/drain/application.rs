//! What a server serves: any tower service that answers every request.

use std::any::Any;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

/// The bounds of [`serve`](super::serve), by a name.
pub(super) trait Application:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
}

impl<A> Application for A
where
    A: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    A: Clone + Send + 'static,
    A::Future: Send + 'static,
{
}

/// Turns every handler of a router into a route once; axum would do it again for each request.
pub(super) fn with_routes_made<A: Application>(mut application: A) -> A {
    if let Some(router) = (&mut application as &mut dyn Any).downcast_mut::<Router>() {
        *router = std::mem::take(router).with_state(());
    }
    application
}

type Answered = Result<Response<Body>, Infallible>;

pin_project! {
    /// The answer to one request.
    #[project = AnswerProject]
    pub(super) enum Answer<A: Application> {
        Called { #[pin] future: A::Future },
        // The clone was not ready, or is not to be asked yet.
        Later { future: Pin<Box<dyn Future<Output = Answered> + Send>> },
    }
}

impl<A: Application> Answer<A> {
    /// Asks a clone for it, once that is ready.
    pub(super) fn to(request: Request<Body>, application: &A) -> Self {
        let mut application = application.clone();
        // Most are ready at once and for ever. One that is not is polled again by who waits for it.
        match application.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Self::Called { future: application.call(request) },
            Poll::Pending => Self::later(request, application),
        }
    }

    /// The same, but not before it is polled. For a request that has a task of its own: the others of its
    /// connection neither wait for the call nor suffer from its panic.
    pub(super) fn later(request: Request<Body>, application: A) -> Self {
        Self::Later { future: Box::pin(call_once_ready(application, request)) }
    }
}

async fn call_once_ready<A: Application>(mut application: A, request: Request<Body>) -> Answered {
    poll_fn(|cx| application.poll_ready(cx)).await?;
    application.call(request).await
}

impl<A: Application> Future for Answer<A> {
    type Output = Answered;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answered> {
        match self.project() {
            AnswerProject::Called { future } => future.poll(cx),
            AnswerProject::Later { future } => future.as_mut().poll(cx),
        }
    }
}
