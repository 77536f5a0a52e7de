//! One request on as many nodes as it may take: sent, sent again, hedged, and what the client gets.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use tokio::time::{Instant, sleep};

use super::headers;
use super::outgoing::{Outgoing, Upgrade};
use super::proxy::Shared;
use super::retry;
use super::tunnel::Tunnel;
use super::{
    HostPolicy, ProxyError, ResponseBody, Upstream, UpstreamError, UpstreamFuture, strip_hop_by_hop,
};
use crate::{Outcome, Pick, RouteError, Session};

/// A change of the protocol that is not the one that was asked for.
const NO_CHANGE: &str = "the protocol that was asked for";

/// What came of one attempt, with the node it was made on.
pub(super) type Attempt = (Pick<Upstream>, Result<Response<ResponseBody>, UpstreamError>);

/// The node to ask first, if there is one at once.
pub(super) type Found = Result<Option<Pick<Upstream>>, RouteError>;

/// All the way: waits for a node if none was found, and hedges if that is wanted.
pub(super) async fn forward(
    shared: Arc<Shared>,
    outgoing: Outgoing,
    found: Found,
) -> Result<Response<ResponseBody>, ProxyError> {
    let pick = shared.pick(found).await?;
    let mut tried = Vec::new();
    let first = shared.exchange(pick, &outgoing, &mut tried).await;
    conclude(shared, outgoing, tried, first).await
}

/// Makes more attempts while they may be made, and delivers what came of the last one.
pub(super) async fn conclude(
    shared: Arc<Shared>,
    outgoing: Outgoing,
    mut tried: Vec<u64>,
    first: Attempt,
) -> Result<Response<ResponseBody>, ProxyError> {
    let (mut used, mut result) = first;
    let mut attempts = 1;
    while attempts < shared.config.attempts && shared.may_repeat(&result, &outgoing) {
        tried.push(used.id());
        let Some(next) = shared.pick_next(&mut tried, &result) else { break };
        shared.give_up(used, result, next.name());
        attempts += 1;
        (used, result) = shared.exchange(next, &outgoing, &mut tried).await;
    }
    shared.deliver(used, result, outgoing.upgrade)
}

/// An attempt that has ended. What is still to come of an answer, such as a body at the pace of its
/// client, says nothing about how quick the node is.
pub(super) fn attempted(
    mut pick: Pick<Upstream>,
    result: Result<Response<ResponseBody>, UpstreamError>,
) -> Attempt {
    if result.is_ok() {
        pick.answered();
    }
    (pick, result)
}

impl Shared {
    /// A node with a free place, if there is one at once.
    pub(super) fn find(&self) -> Found {
        self.replicas.read_untried(&[])
    }

    async fn pick(&self, found: Found) -> Result<Pick<Upstream>, ProxyError> {
        let found = match found {
            Ok(found) => found,
            Err(_) => {
                let waited = self.replicas.wait_read(&Session::new()).await;
                Some(waited.map_err(ProxyError::NoNode)?)
            }
        };
        found.ok_or(ProxyError::NoNode(RouteError::NoFitNode))
    }

    /// A node that this request has not been on, if there is one with a free place: a second try does
    /// not queue before those that have had none.
    fn pick_untried(&self, tried: &[u64]) -> Option<Pick<Upstream>> {
        self.replicas.read_untried(tried).ok().flatten()
    }

    /// What `pick` finds for one more attempt, paid from the budget if it finds a node.
    fn paid(&self, pick: impl FnOnce() -> Option<Pick<Upstream>>) -> Option<Pick<Upstream>> {
        let now = Instant::now();
        if !self.budget.withdraw(now) {
            self.counters.retries_refused.fetch_add(1, Relaxed);
            return None;
        }
        let pick = pick();
        if pick.is_none() {
            self.budget.give_back(now);
        }
        pick
    }

    /// The node for a retry, if there is one and the budget has room.
    fn pick_next(
        &self,
        tried: &mut Vec<u64>,
        result: &Result<Response<ResponseBody>, UpstreamError>,
    ) -> Option<Pick<Upstream>> {
        let pick = self.paid(|| {
            let pick = self.pick_untried(tried);
            // A kept connection that was just being closed says nothing about a new one to that node.
            if pick.is_none() && matches!(result, Err(UpstreamError::Closed(_))) {
                tried.clear();
                return self.pick_untried(tried);
            }
            pick
        });
        self.counters.retries.fetch_add(u64::from(pick.is_some()), Relaxed);
        pick
    }

    pub(super) fn may_repeat(
        &self,
        result: &Result<Response<ResponseBody>, UpstreamError>,
        outgoing: &Outgoing,
    ) -> bool {
        let request = outgoing.attempted();
        match result {
            Ok(response) => retry::may_follow_status(response.status(), request, &self.config),
            Err(error) => retry::may_follow_error(error, request),
        }
    }

    fn outcome(&self, response: &Response<ResponseBody>) -> Outcome {
        retry::outcome(response.status(), response.headers(), &self.config)
    }

    /// Counts out a node whose result is not used, once its connection is closed.
    fn give_up(
        &self,
        pick: Pick<Upstream>,
        result: Result<Response<ResponseBody>, UpstreamError>,
        next: &str,
    ) {
        report(pick.name(), &result, next);
        match result {
            Ok(response) => {
                let outcome = self.outcome(&response);
                drop(response);
                pick.end(outcome);
            }
            Err(error) => blame(pick, &error),
        }
    }

    /// How long an attempt may take before a second one is made beside it.
    pub(super) fn hedges_after(&self, outgoing: &Outgoing) -> Option<Duration> {
        self.config.hedge_after.filter(|_| outgoing.can_be_hedged())
    }

    /// One attempt; with hedging, on a second node as well if the first is slow.
    async fn exchange(
        &self,
        pick: Pick<Upstream>,
        outgoing: &Outgoing,
        tried: &mut Vec<u64>,
    ) -> Attempt {
        match self.hedges_after(outgoing) {
            Some(after) => self.hedged(pick, outgoing, tried, after).await,
            None => self.attempt(pick, outgoing).await,
        }
    }

    async fn hedged(
        &self,
        pick: Pick<Upstream>,
        outgoing: &Outgoing,
        tried: &mut Vec<u64>,
        after: Duration,
    ) -> Attempt {
        tried.push(pick.id());
        let mut first = std::pin::pin!(self.attempt(pick, outgoing));
        tokio::select! {
            biased;
            attempt = &mut first => return attempt,
            () = sleep(after) => {}
        }
        let Some(second) = self.paid(|| self.pick_untried(tried)) else { return first.await };
        tried.push(second.id());
        self.counters.hedges.fetch_add(1, Relaxed);
        let mut second = std::pin::pin!(self.attempt(second, outgoing));
        // The one that is not used is dropped, which counts it as cancelled.
        let (attempt, by_second) = tokio::select! {
            biased;
            attempt = &mut first => (attempt, false),
            attempt = &mut second => (attempt, true),
        };
        let (pick, result) = attempt;
        let (attempt, by_second) = match result {
            Ok(response) => ((pick, Ok(response)), by_second),
            Err(error) => {
                blame(pick, &error);
                let other = if by_second { first.await } else { second.await };
                (other, !by_second)
            }
        };
        if by_second && attempt.1.is_ok() {
            self.counters.hedges_won.fetch_add(1, Relaxed);
        }
        attempt
    }

    async fn attempt(&self, pick: Pick<Upstream>, outgoing: &Outgoing) -> Attempt {
        let result = self.send(&pick, outgoing).await;
        attempted(pick, result)
    }

    /// Sends the request to a node.
    pub(super) fn send(&self, pick: &Pick<Upstream>, outgoing: &Outgoing) -> UpstreamFuture {
        let Outgoing { head, body, .. } = outgoing;
        let host = (self.config.host == HostPolicy::Upstream).then(|| pick.host());
        pick.send(head, host, body.clone(), self.config.request_idle_timeout)
    }

    /// The last attempt's result, as the client gets it.
    pub(super) fn deliver(
        &self,
        pick: Pick<Upstream>,
        result: Result<Response<ResponseBody>, UpstreamError>,
        asked: Option<Upgrade>,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        let mut response = match result {
            Ok(response) => response,
            Err(error) => return Err(failed(pick, error)),
        };
        if let Some(name) = &self.explain
            && let Ok(value) =
                HeaderValue::try_from(format!("{}; reason={}", pick.name(), pick.reason()))
        {
            response.headers_mut().insert(name.clone(), value);
        }
        if let Some(name) = &self.config.via {
            headers::via(response.headers_mut(), Version::HTTP_11, name);
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.change(pick, response, asked);
        }
        let outcome = self.outcome(&response);
        if outcome == Outcome::Success && is_event_stream(response.headers()) {
            pick.proved();
        }
        Ok(response.map(|body| body.picked(pick, outcome)))
    }

    /// Agrees to another protocol, if it is the one that was asked for.
    fn change(
        &self,
        pick: Pick<Upstream>,
        response: Response<ResponseBody>,
        asked: Option<Upgrade>,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        let (mut head, body) = response.into_parts();
        let agreed = head.headers.get(UPGRADE).cloned();
        let (Some(Upgrade { protocol, client }), Some(agreed), Some(upstream)) =
            (asked, agreed, body.into_socket())
        else {
            return Err(failed(pick, UpstreamError::Protocol(NO_CHANGE)));
        };
        if !agreed.as_bytes().eq_ignore_ascii_case(protocol.as_bytes()) {
            return Err(failed(pick, UpstreamError::Protocol(NO_CHANGE)));
        }
        strip_hop_by_hop(&mut head.headers);
        headers::set_upgrade(&mut head.headers, agreed);
        pick.proved();
        let counters = Arc::clone(&self.counters);
        let idle = self.config.tunnel_idle_timeout;
        Tunnel { client, upstream, pick, counters, idle }.start();
        Ok(Response::from_parts(head, ResponseBody::whole(Bytes::new())))
    }
}

/// Whether a body may go on without an end.
fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let stream = b"text/event-stream";
    kind.get(..stream.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(stream))
}

/// Counts a request out that has failed: as the node's failure; as cancelled, if the client is to
/// blame; as nothing, if we are.
fn blame(pick: Pick<Upstream>, error: &UpstreamError) {
    if error.is_exhaustion() {
        pick.end(Outcome::Neutral);
    } else if !error.is_client() {
        pick.failed();
    }
}

fn failed(pick: Pick<Upstream>, error: UpstreamError) -> ProxyError {
    let node = pick.name().to_owned();
    blame(pick, &error);
    ProxyError::Upstream { node, error }
}

#[cfg(feature = "tracing")]
fn report(node: &str, result: &Result<Response<ResponseBody>, UpstreamError>, next: &str) {
    match result {
        Ok(response) => {
            let status = response.status().as_u16();
            tracing::debug!(node, next, status, "tried again");
        }
        Err(error) => {
            tracing::debug!(node, next, error = error as &dyn std::error::Error, "tried again");
        }
    }
}

#[cfg(not(feature = "tracing"))]
fn report(_: &str, _: &Result<Response<ResponseBody>, UpstreamError>, _: &str) {}
