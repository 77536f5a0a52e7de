//! The request under way, once or twice.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use super::Shared;
use crate::{Retry, RetryRules};

pin_project! {
    /// The response of a [`HedgeService`](crate::HedgeService).
    #[must_use = "futures do nothing unless polled"]
    pub struct HedgeFuture<S, Req, R>
    where
        S: Service<Req>,
    {
        #[pin]
        first: S::Future,
        // A failure of the first, while the second is under way.
        failure: Option<Result<S::Response, S::Error>>,
        #[pin]
        second: Second<S, S::Future>,
        // What is sent, and judged by. `None`: it is sent once.
        request: Option<Req>,
        began: Instant,
        shared: Arc<Shared>,
        rules: R,
    }
}

pin_project! {
    #[project = SecondProjection]
    enum Second<S, F> {
        // Not sent, or failed.
        Never,
        Delayed {
            #[pin]
            late: Sleep,
            service: Option<S>,
        },
        Readying { service: S },
        Sent {
            #[pin]
            future: F,
        },
    }
}

impl<S: Service<Req>, Req, R> HedgeFuture<S, Req, R> {
    pub(super) fn new(
        first: S::Future,
        spare: Option<(Req, S)>,
        shared: Arc<Shared>,
        rules: R,
    ) -> Self {
        let (request, service) = spare.unzip();
        let second = match (shared.delay(), service) {
            (Some(delay), Some(service)) => {
                Second::Delayed { late: tokio::time::sleep(delay), service: Some(service) }
            }
            _ => Second::Never,
        };
        Self { first, failure: None, second, request, began: Instant::now(), shared, rules }
    }
}

impl<S, Req, R> Future for HedgeFuture<S, Req, R>
where
    S: Service<Req>,
    R: RetryRules<Req, S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(request) = this.request else { return this.first.poll(cx) };
        let is_good =
            |rules: &R, result: &Self::Output| rules.judge(request, result.as_ref()) == Retry::No;
        if this.failure.is_none()
            && let Poll::Ready(result) = this.first.as_mut().poll(cx)
        {
            if is_good(this.rules, &result) {
                this.shared.record(this.began.elapsed());
                return Poll::Ready(result);
            }
            match this.second.as_mut().project() {
                SecondProjection::Never | SecondProjection::Delayed { .. } => {
                    return Poll::Ready(result);
                }
                SecondProjection::Readying { .. } | SecondProjection::Sent { .. } => {
                    *this.failure = Some(result);
                }
            }
        }
        loop {
            match this.second.as_mut().project() {
                SecondProjection::Never => {
                    return this.failure.take().map_or(Poll::Pending, Poll::Ready);
                }
                SecondProjection::Delayed { late, service } => {
                    if late.poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    let next = match service.take() {
                        Some(service) if this.shared.withdraw() => Second::Readying { service },
                        _ => Second::Never,
                    };
                    this.second.set(next);
                }
                SecondProjection::Readying { service } => {
                    let next = match service.poll_ready(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Err(_)) => Second::Never,
                        Poll::Ready(Ok(())) => match this.rules.copy(request) {
                            Some(copy) => Second::Sent { future: service.call(copy) },
                            None => Second::Never,
                        },
                    };
                    this.second.set(next);
                }
                SecondProjection::Sent { future } => {
                    let Poll::Ready(result) = future.poll(cx) else { return Poll::Pending };
                    if is_good(this.rules, &result) {
                        this.shared.won.fetch_add(1, Relaxed);
                        // The first one takes longer than this, which is all that matters: it is
                        // among the late ones in any case.
                        this.shared.record(this.began.elapsed());
                        return Poll::Ready(result);
                    }
                    this.second.set(Second::Never);
                }
            }
        }
    }
}

impl<S: Service<Req>, Req, R> fmt::Debug for HedgeFuture<S, Req, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeFuture").finish_non_exhaustive()
    }
}
