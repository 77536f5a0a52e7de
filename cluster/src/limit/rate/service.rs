//! The service with limits around it.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::Refund;
use super::future::RateLimitFuture;
use super::reply::sealed::Reply;
use super::stack::{Passage, Stack, Step};
use super::waiting::Waiting;
use crate::clock::Moment;

/// A service behind limits; made by [`RateLimitLayer`](crate::RateLimitLayer).
pub struct RateLimitService<S, Req, R, G> {
    inner: S,
    stack: Arc<Stack<Req>>,
    refund: G,
    reply: PhantomData<fn() -> R>,
}

impl<S, Req, R, G> RateLimitService<S, Req, R, G> {
    pub(super) fn new(inner: S, stack: Arc<Stack<Req>>, refund: G) -> Self {
        Self { inner, stack, refund, reply: PhantomData }
    }
}

impl<S, Req, R, G> Service<Req> for RateLimitService<S, Req, R, G>
where
    S: Service<Req> + Clone,
    R: Reply<S::Response, S::Error>,
    G: Refund<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = R::Error;
    type Future = RateLimitFuture<S, Req, R, G>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(R::passed_on)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        if self.stack.is_exempt(&request) {
            return RateLimitFuture::exempt(self.inner.call(request), self.refund.clone());
        }
        let keeps = !G::NEVER || R::advertises(&self.stack);
        let mut passage = Passage::new(&*self.stack, keeps);
        match passage.advance(&request, &mut Moment::recent()) {
            Step::Passed => {
                let kept = if keeps {
                    Some((Arc::clone(&self.stack), passage.go_on()))
                } else {
                    passage.forget();
                    None
                };
                let inner = self.inner.call(request);
                RateLimitFuture::passed(inner, kept, self.refund.clone())
            }
            // The inner service stays ready for the next call.
            Step::Refused(refused) => {
                let ledger = passage.turn_back();
                RateLimitFuture::done(R::refused(refused, &ledger, &self.stack))
            }
            Step::Asking(asked) => {
                let passage = passage.owned(&self.stack);
                let clone = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, clone);
                let waiting = Waiting::new(passage, asked, ready, request);
                RateLimitFuture::waiting(waiting, self.refund.clone())
            }
        }
    }
}

impl<S: Clone, Req, R, G: Clone> Clone for RateLimitService<S, Req, R, G> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.stack), self.refund.clone())
    }
}

impl<S: fmt::Debug, Req, R, G> fmt::Debug for RateLimitService<S, Req, R, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitService")
            .field("inner", &self.inner)
            .field("stack", &self.stack)
            .finish_non_exhaustive()
    }
}
