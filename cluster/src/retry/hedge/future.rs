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
use crate::RetryRules;

pin_project! {
    /// The response of a [`HedgeService`](crate::HedgeService).
    #[must_use = "futures do nothing unless polled"]
    pub struct HedgeFuture<S, Req, R>
    where
        S: Service<Req>,
    {
        #[pin]
        first: First<S::Future>,
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
    #[project = FirstProjection]
    enum First<F> {
        Sent {
            #[pin]
            future: F,
        },
        Over,
    }
}

pin_project! {
    #[project = SecondProjection]
    enum Second<S, F> {
        // Not sent, failed, or no longer needed.
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
        let first = First::Sent { future: first };
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
        if let FirstProjection::Sent { future } = this.first.as_mut().project()
            && let Poll::Ready(result) = future.poll(cx)
        {
            this.first.set(First::Over);
            let is_good = match this.request {
                Some(request) => this.rules.is_good(request, result.as_ref()),
                None => true,
            };
            if is_good && this.request.is_some() {
                this.shared.record(this.began.elapsed());
            }
            let is_sent = matches!(this.second.as_mut().project(), SecondProjection::Sent { .. });
            if is_good || !is_sent {
                // The loser must hold nothing once there is an answer.
                this.second.set(Second::Never);
                return Poll::Ready(result);
            }
            *this.failure = Some(result);
        }
        let Some(request) = this.request else { return Poll::Pending };
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
                            Some(copy) => {
                                this.shared.hedges.fetch_add(1, Relaxed);
                                Second::Sent { future: service.call(copy) }
                            }
                            None => Second::Never,
                        },
                    };
                    this.second.set(next);
                }
                SecondProjection::Sent { future } => {
                    let Poll::Ready(result) = future.poll(cx) else { return Poll::Pending };
                    this.second.set(Second::Never);
                    if this.rules.is_good(request, result.as_ref()) {
                        this.first.set(First::Over);
                        this.shared.won.fetch_add(1, Relaxed);
                        // The first one takes longer than this, which is all that matters: it is
                        // among the late ones in any case.
                        this.shared.record(this.began.elapsed());
                        return Poll::Ready(result);
                    }
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
