//! The future of a request through [`ReplicaService`](crate::ReplicaService).

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{BoxError, Classify, Pick, RouteError};

/// For a place on a node. Boxed: it is the way of the few that found all nodes full.
pub(crate) type Waiting<N> = Pin<Box<dyn Future<Output = Result<Pick<N>, RouteError>> + Send>>;

pin_project! {
    /// Waits for the picked node to be ready, calls it, and reports how it went.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<N, Req, C>
    where
        N: Service<Req>,
    {
        // Before the pick, so that the node's own future is gone when the request is counted out.
        #[pin]
        state: State<N, Req>,
        // `Some` until the outcome is known.
        pick: Option<Pick<N>>,
        classify: C,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<N, Req>
    where
        N: Service<Req>,
    {
        Refused { error: Option<RouteError> },
        // `request` is `Some` until there is a node for it.
        Queued { waiting: Waiting<N>, request: Option<Req> },
        // `request` is `Some` until the node is called.
        Waiting { node: N, request: Option<Req> },
        Called { #[pin] response: N::Future },
    }
}

impl<N: Service<Req> + Clone, Req, C> ResponseFuture<N, Req, C> {
    pub(crate) fn new(pick: Pick<N>, request: Req, classify: C) -> Self {
        let state = State::Waiting { node: N::clone(&pick), request: Some(request) };
        Self { state, pick: Some(pick), classify }
    }

    pub(crate) fn queued(waiting: Waiting<N>, request: Req, classify: C) -> Self {
        let state = State::Queued { waiting, request: Some(request) };
        Self { state, pick: None, classify }
    }

    pub(crate) fn refused(error: RouteError, classify: C) -> Self {
        Self { state: State::Refused { error: Some(error) }, pick: None, classify }
    }
}

impl<N, Req, C> Future for ResponseFuture<N, Req, C>
where
    N: Service<Req> + Clone,
    N::Error: Into<BoxError>,
    C: Classify<N::Response, N::Error>,
{
    type Output = Result<N::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let result = loop {
            match this.state.as_mut().project() {
                StateProject::Refused { error } => {
                    let error = error.take().expect("polled after completion");
                    return Poll::Ready(Err(error.into()));
                }
                StateProject::Queued { waiting, request } => {
                    let pick = match ready!(waiting.as_mut().poll(cx)) {
                        Ok(pick) => pick,
                        Err(error) => return Poll::Ready(Err(error.into())),
                    };
                    let (node, request) = (N::clone(&pick), request.take());
                    *this.pick = Some(pick);
                    this.state.set(State::Waiting { node, request });
                }
                StateProject::Waiting { node, request } => {
                    if let Err(error) = ready!(node.poll_ready(cx)) {
                        break Err(error);
                    }
                    let request = request.take().expect("polled after completion");
                    let response = node.call(request);
                    this.state.set(State::Called { response });
                }
                StateProject::Called { response } => break ready!(response.poll(cx)),
            }
        };
        if let Some(pick) = this.pick.take() {
            pick.end(this.classify.classify(&result));
        }
        Poll::Ready(result.map_err(Into::into))
    }
}

impl<N: Service<Req>, Req, C> fmt::Debug for ResponseFuture<N, Req, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("pick", &self.pick).finish_non_exhaustive()
    }
}
