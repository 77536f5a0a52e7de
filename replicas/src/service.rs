//! The tower face: a set of services as one service.

use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use tower_service::Service;

use crate::future::ResponseFuture;
use crate::replicas::Begun;
use crate::{BoxError, Replicas, Routed};

/// What a result says about the node that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The node did its part.
    Success,
    /// The node is to blame; enough of these, in a row or as a share, eject it.
    Failure,
    /// The node refused a write because it is not the primary (PostgreSQL's error 25006). Nothing was
    /// done. The node takes nothing more until its monitor has looked at it, which it is asked to do
    /// at once; where no monitor has ever said what it is, it stays what it was declared as. Counted
    /// as failed, without effect on the node's health.
    NotPrimary,
    /// The node refused because it has too much to do (a 429, a 503, `too many connections`).
    /// Counted as succeeded, without effect on the node's health: to eject a busy node is to overload
    /// the rest. Strategies that look at latency take it for an answer that took as long as the node
    /// asks to be left alone, 5 s if it does not say.
    Overloaded {
        /// For how long the node asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The request ended, but says nothing about the node: the caller's own error, or saturation of
    /// the caller's own pool. Counted as succeeded, without effect on the node's health.
    Neutral,
}

/// Tells a node's failures from the rest. Implemented for closures from `&Result<T, E>` to
/// [`Outcome`].
pub trait Classify<T, E> {
    /// What this result says about the node.
    fn classify(&self, result: &Result<T, E>) -> Outcome;
}

impl<T, E, F: Fn(&Result<T, E>) -> Outcome> Classify<T, E> for F {
    fn classify(&self, result: &Result<T, E>) -> Outcome {
        self(result)
    }
}

/// The default of [`ReplicaService`]: a response is a success, an error the node's failure.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResultIsVerdict;

impl<T, E> Classify<T, E> for ResultIsVerdict {
    fn classify(&self, result: &Result<T, E>) -> Outcome {
        match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Failure,
        }
    }
}

/// Sends each request to the node that its [`Routed`] asks for: reads by the set's strategy, writes
/// to the primary. Each request goes to one node, once.
///
/// # Readiness and clones
/// Always ready: which node must be ready is known only with the request. `call` picks (or queues, if
/// [`max_wait`](crate::ReplicasConfig::max_wait) says so), and the future waits for a clone of the
/// picked node to become ready, then calls that same clone. A node that is long in becoming ready has
/// the request in flight meanwhile, and so gets fewer. Clones share the set.
///
/// # Cancellation
/// Dropping the future at any point drops the node's own future and counts the request as
/// cancelled. One that waits for a place has to be polled whenever it is woken, or dropped: kept and not
/// polled, it keeps those behind it waiting, as with any queue of tokio's.
///
/// # Errors
/// [`RouteError`](crate::RouteError) if there is no node for the request; else the node's error,
/// boxed (as it is, if it is a [`BoxError`] already).
///
/// # Limits
/// The verdict is given on the response, not on the end of a body that streams.
pub struct ReplicaService<N, C = ResultIsVerdict> {
    replicas: Replicas<N>,
    classify: C,
}

impl<N> ReplicaService<N> {
    /// The set as a service; the same as [`Replicas::service`].
    #[must_use]
    pub fn new(replicas: Replicas<N>) -> Self {
        Self { replicas, classify: ResultIsVerdict }
    }
}

impl<N, C> ReplicaService<N, C> {
    /// Judges results by `classify` rather than by `Ok` and `Err`, for example to count a 503 as
    /// a failure, or a full connection pool as neutral.
    #[must_use]
    pub fn classify<D>(self, classify: D) -> ReplicaService<N, D> {
        ReplicaService { replicas: self.replicas, classify }
    }
}

impl<N, C, Req> Service<Req> for ReplicaService<N, C>
where
    N: Service<Req> + Clone + Send + Sync + 'static,
    N::Error: Into<BoxError>,
    Req: Routed,
    C: Classify<N::Response, N::Error> + Clone,
{
    type Response = N::Response;
    type Error = BoxError;
    type Future = ResponseFuture<N, Req, C>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let classify = self.classify.clone();
        match self.replicas.begin(&request) {
            Begun::Picked(pick) => ResponseFuture::new(pick, request, classify),
            Begun::Refused(error) => ResponseFuture::refused(error, classify),
            Begun::Waiting(pick) => ResponseFuture::queued(pick, request, classify),
        }
    }
}

impl<N, C: Clone> Clone for ReplicaService<N, C> {
    // By hand: a derived one would ask for `N: Clone`.
    fn clone(&self) -> Self {
        Self { replicas: self.replicas.clone(), classify: self.classify.clone() }
    }
}

impl<N, C> fmt::Debug for ReplicaService<N, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaService").field("replicas", &self.replicas).finish_non_exhaustive()
    }
}
