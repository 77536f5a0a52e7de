//! The future of a cached response.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::BoxError;

pin_project! {
    /// The response of a [`CacheService`](crate::CacheService).
    pub struct ResponseFuture<F, V> {
        #[pin]
        state: State<F, V>,
    }
}

/// Boxed, since its type would name the closure that calls the inner service.
type Loading<V> = Pin<Box<dyn Future<Output = Result<V, BoxError>> + Send>>;

pin_project! {
    #[project = StateProj]
    enum State<F, V> {
        Hit { value: Option<V> },
        Passed { #[pin] call: F },
        Miss { loading: Loading<V> },
    }
}

impl<F, V> ResponseFuture<F, V> {
    pub(crate) fn hit(value: V) -> Self {
        Self { state: State::Hit { value: Some(value) } }
    }

    pub(crate) fn passed(call: F) -> Self {
        Self { state: State::Passed { call } }
    }

    pub(crate) fn miss(
        loading: impl Future<Output = Result<V, BoxError>> + Send + 'static,
    ) -> Self {
        Self { state: State::Miss { loading: Box::pin(loading) } }
    }
}

impl<F, V, E> Future for ResponseFuture<F, V>
where
    F: Future<Output = Result<V, E>>,
    E: Into<BoxError>,
{
    type Output = Result<V, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Hit { value } => {
                Poll::Ready(Ok(value.take().expect("polled again after its response")))
            }
            StateProj::Passed { call } => {
                Poll::Ready(ready!(call.poll(context)).map_err(Into::into))
            }
            StateProj::Miss { loading } => loading.as_mut().poll(context),
        }
    }
}

impl<F, V> fmt::Debug for ResponseFuture<F, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
