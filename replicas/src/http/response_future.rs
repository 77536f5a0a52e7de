//! From a request to its response. The usual one, answered by the first node that is asked, takes one
//! small box; what may come after it has a future of its own.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use super::forward::{Found, attempted, conclude, forward};
use super::outgoing::Outgoing;
use super::proxy::Shared;
use super::request_body::RequestBody;
use super::{Peer, ProxyError, ResponseBody, Upstream, UpstreamFuture};
use crate::{BoxError, Pick};

type Delivered = Result<Response<ResponseBody>, ProxyError>;

/// The response of a [`ReverseProxy`](super::ReverseProxy), when its head is in hand.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture {
    state: State,
}

enum State {
    First(Box<First>),
    Further(Pin<Box<dyn Future<Output = Delivered> + Send>>),
    Ended,
}

/// The first attempt, where it needs no wait for a node and no hedge.
struct First {
    shared: Arc<Shared>,
    outgoing: Outgoing,
    /// `None` before the first poll. Dropped in this order: the connection is closed before its node has
    /// room for another request.
    attempt: Option<(UpstreamFuture, Pick<Upstream>)>,
}

impl ResponseFuture {
    pub(super) fn new<B>(shared: Arc<Shared>, request: Request<B>, peer: Option<Peer>) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        shared.budget.request();
        let (head, body) = request.into_parts();
        let has_body = !body.is_end_stream();
        let mut outgoing = match Outgoing::new(&shared, head, has_body, peer) {
            Ok(outgoing) => outgoing,
            Err(error) => return Self::further(std::future::ready(Err(error))),
        };
        if has_body {
            if outgoing.may_hold(&body, &shared.config) {
                return Self::further(async move {
                    let outgoing = outgoing.holding(body, &shared.config).await?;
                    let found = shared.find();
                    forward(shared, outgoing, found).await
                });
            }
            outgoing.body = RequestBody::stream(body);
        }
        Self { state: State::First(Box::new(First { shared, outgoing, attempt: None })) }
    }

    fn further(future: impl Future<Output = Delivered> + Send + 'static) -> Self {
        Self { state: State::Further(Box::pin(future)) }
    }

    /// Asks a node.
    fn begin(&mut self) {
        let State::First(first) = &mut self.state else { return };
        match first.shared.find() {
            Ok(Some(pick)) if first.shared.hedges_after(&first.outgoing).is_none() => {
                let sent = first.shared.send(&pick, &first.outgoing);
                first.attempt = Some((sent, pick));
            }
            found => self.go_all_the_way(found),
        }
    }

    #[cold]
    fn go_all_the_way(&mut self, found: Found) {
        if let State::First(first) = self.take() {
            let First { shared, outgoing, .. } = *first;
            *self = Self::further(forward(shared, outgoing, found));
        }
    }

    fn take(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Ended)
    }
}

impl Future for ResponseFuture {
    type Output = Delivered;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Delivered> {
        loop {
            let sent = match &mut self.state {
                State::First(first) => first.attempt.as_mut().map(|(sent, _)| sent),
                State::Further(future) => return future.as_mut().poll(cx),
                State::Ended => panic!("polled after completion"),
            };
            let Some(sent) = sent else {
                self.begin();
                continue;
            };
            let result = ready!(Pin::new(sent).poll(cx));
            let State::First(first) = self.take() else { unreachable!("it is the first attempt") };
            let First { shared, outgoing, attempt } = *first;
            let Some((sent, pick)) = attempt else { unreachable!("it has been made") };
            drop(sent);
            let (pick, result) = attempted(pick, result);
            if !shared.may_repeat(&result, &outgoing) {
                return Poll::Ready(shared.deliver(pick, result, outgoing.upgrade));
            }
            *self = Self::further(conclude(shared, outgoing, Vec::new(), (pick, result)));
        }
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
