//! Another service that answers what a breaker rejects.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::reject::sealed::Sealed;
use super::{Divert, Open, Reject};

/// Rejected calls go to the service `B`; errors are passed on as `R` does. Made by
/// [`BreakerLayer::fallback`](crate::BreakerLayer::fallback).
pub struct FallbackTo<B, R> {
    service: B,
    reject: PhantomData<fn() -> R>,
}

impl<B, R> FallbackTo<B, R> {
    pub(super) fn new(service: B) -> Self {
        Self { service, reject: PhantomData }
    }
}

impl<B: Clone, R> Clone for FallbackTo<B, R> {
    fn clone(&self) -> Self {
        Self::new(self.service.clone())
    }
}

impl<B: fmt::Debug, R> fmt::Debug for FallbackTo<B, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackTo").field("service", &self.service).finish_non_exhaustive()
    }
}

impl<B, R: Sealed> Sealed for FallbackTo<B, R> {}

impl<B, R: Reject<E>, E> Reject<E> for FallbackTo<B, R> {
    type Error = R::Error;

    fn passed_on(error: E) -> Self::Error {
        R::passed_on(error)
    }
}

impl<B, R, Req, Res, E> Divert<Req, Res, E> for FallbackTo<B, R>
where
    B: Service<Req, Response = Res> + Clone,
    R: Reject<E> + Reject<B::Error, Error = <R as Reject<E>>::Error>,
{
    type Future = FallbackFuture<B, Req, R>;

    fn divert(&self, request: Req, _open: Open) -> Self::Future {
        let call = Call::Waiting { service: self.service.clone(), request: Some(request) };
        FallbackFuture { call, reject: PhantomData }
    }
}

pin_project! {
    /// A request on its way to the fallback, which is made ready before it is called.
    #[must_use = "futures do nothing unless polled"]
    pub struct FallbackFuture<B: Service<Req>, Req, R> {
        #[pin]
        call: Call<B, Req, B::Future>,
        reject: PhantomData<fn() -> R>,
    }
}

pin_project! {
    #[project = CallProjection]
    enum Call<B, Req, F> {
        // The request is `Some` until the service is ready for it.
        Waiting { service: B, request: Option<Req> },
        Called { #[pin] answer: F },
    }
}

impl<B, Req, R> Future for FallbackFuture<B, Req, R>
where
    B: Service<Req>,
    R: Reject<B::Error>,
{
    type Output = Result<B::Response, R::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut call = self.project().call;
        loop {
            let answer = match call.as_mut().project() {
                CallProjection::Waiting { service, request } => {
                    ready!(service.poll_ready(cx)).map_err(R::passed_on)?;
                    let request = request.take().expect("not polled after it has ended");
                    service.call(request)
                }
                CallProjection::Called { answer } => return answer.poll(cx).map_err(R::passed_on),
            };
            call.set(Call::Called { answer });
        }
    }
}

impl<B: Service<Req>, Req, R> fmt::Debug for FallbackFuture<B, Req, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackFuture").finish_non_exhaustive()
    }
}
