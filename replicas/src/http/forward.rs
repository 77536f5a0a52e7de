//! One request on as many nodes as it may take: sent, sent again, hedged, and what the client gets.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::upgrade::OnUpgrade;
use tokio::time::{Instant, sleep};

use super::headers::{self, Introduction};
use super::proxy::Shared;
use super::request_body::{self, RequestBody};
use super::retry::{self, Attempted};
use super::tunnel::Tunnel;
use super::{
    HostPolicy, Peer, ProxyConfig, ProxyError, ResponseBody, Upstream, UpstreamError,
    strip_hop_by_hop,
};
use crate::{BoxError, Outcome, Pick, RouteError, Session};

/// A request as it may be sent several times.
struct Outgoing {
    head: Parts,
    body: RequestBody,
    idempotent: bool,
    /// The protocol that the client asks to change to, and its side of the change.
    upgrade: Option<(HeaderValue, OnUpgrade)>,
}

/// A change of the protocol that is not the one that was asked for.
const NO_CHANGE: &str = "the protocol that was asked for";

/// What came of one attempt, with the node it was made on.
type Attempt = (Pick<Upstream>, Result<Response<ResponseBody>, UpstreamError>);

pub(super) async fn forward<B>(
    shared: Arc<Shared>,
    request: Request<B>,
    peer: Option<Peer>,
) -> Result<Response<ResponseBody>, ProxyError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    shared.budget.request();
    let outgoing = shared.prepare(request, peer).await?;
    let mut tried = Vec::new();
    let mut attempts = 1;
    let mut pick = shared.pick().await?;
    loop {
        let last = attempts >= shared.config.attempts;
        let (used, result) = shared.exchange(pick, &outgoing, &mut tried).await;
        let repeat = !last && shared.may_repeat(&result, &outgoing);
        if !repeat {
            return shared.deliver(used, result, outgoing);
        }
        tried.push(used.id());
        let Some(next) = shared.pick_next(&mut tried, &result) else {
            return shared.deliver(used, result, outgoing);
        };
        shared.give_up(used, &result, next.name());
        attempts += 1;
        pick = next;
    }
}

impl Shared {
    /// Takes a request apart for sending, and reads a short body of an idempotent one.
    async fn prepare<B>(
        &self,
        request: Request<B>,
        peer: Option<Peer>,
    ) -> Result<Outgoing, ProxyError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut head, body) = request.into_parts();
        if head.method == Method::CONNECT {
            return Err(ProxyError::Connect);
        }
        if !headers::settle_host(&mut head.headers, &head.uri) {
            return Err(ProxyError::Hosts);
        }
        let empty = body.is_end_stream();
        let upgrade = headers::upgrade(&head.headers, &self.config.upgrades)
            .filter(|_| empty && head.version == Version::HTTP_11)
            .and_then(|protocol| Some((protocol, head.extensions.remove()?)));
        strip_hop_by_hop(&mut head.headers);
        if let Some((protocol, _)) = &upgrade {
            headers::set_upgrade(&mut head.headers, protocol.clone());
        }
        let ProxyConfig { trusted_proxies, forwarded, via, .. } = &self.config;
        let via = via.as_deref();
        let with = Introduction { trusted: trusted_proxies, forwarded: *forwarded, via };
        headers::introduce(&mut head.headers, head.version, peer, with);
        if let Some(host) = &self.fixed_host {
            head.headers.insert(HOST, host.clone());
        }
        let idempotent = retry::is_idempotent(&head.method);
        let length = body.size_hint().exact();
        let short = length.is_some_and(|length| length <= self.config.replay_bytes as u64);
        let body = if empty {
            RequestBody::Empty
        } else if idempotent && short {
            let held = Box::pin(request_body::hold(body, self.config.request_idle_timeout)).await;
            held.map_err(ProxyError::Request)?
        } else {
            RequestBody::stream(body)
        };
        Ok(Outgoing { head, body, idempotent, upgrade })
    }

    async fn pick(&self) -> Result<Pick<Upstream>, ProxyError> {
        let pick = match self.replicas.read_untried(&[]) {
            Ok(pick) => pick,
            // Rare, and large: a request that waits for nothing does not carry it.
            Err(_) => {
                let waited = Box::pin(self.replicas.wait_read(&Session::new())).await;
                Some(waited.map_err(ProxyError::NoNode)?)
            }
        };
        pick.ok_or(ProxyError::NoNode(RouteError::NoFitNode))
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

    fn may_repeat(
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

    /// Counts out a node whose result is not used.
    fn give_up(
        &self,
        pick: Pick<Upstream>,
        result: &Result<Response<ResponseBody>, UpstreamError>,
        next: &str,
    ) {
        report(pick.name(), result, next);
        match result {
            Ok(response) => pick.end(self.outcome(response)),
            Err(error) => blame(pick, error),
        }
    }

    /// One attempt; with hedging, on a second node as well if the first is slow.
    async fn exchange(
        &self,
        pick: Pick<Upstream>,
        outgoing: &Outgoing,
        tried: &mut Vec<u64>,
    ) -> Attempt {
        match self.config.hedge_after.filter(|_| outgoing.can_be_hedged()) {
            // In a box, so that requests which are not hedged do not carry its two attempts.
            Some(after) => Box::pin(self.hedged(pick, outgoing, tried, after)).await,
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
        if by_second {
            self.counters.hedges_won.fetch_add(1, Relaxed);
        }
        attempt
    }

    async fn attempt(&self, mut pick: Pick<Upstream>, outgoing: &Outgoing) -> Attempt {
        let Outgoing { head, body, .. } = outgoing;
        let host = (self.config.host == HostPolicy::Upstream).then(|| pick.host());
        let patience = self.config.request_idle_timeout;
        let result = pick.send(head, host, body.clone(), patience).await;
        if result.is_ok() {
            pick.answered();
        }
        (pick, result)
    }

    /// The last attempt's result, as the client gets it.
    fn deliver(
        &self,
        pick: Pick<Upstream>,
        result: Result<Response<ResponseBody>, UpstreamError>,
        outgoing: Outgoing,
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
            return self.change(pick, response, outgoing.upgrade);
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
        asked: Option<(HeaderValue, OnUpgrade)>,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        let (mut head, body) = response.into_parts();
        let agreed = head.headers.get(UPGRADE).cloned();
        let (Some((protocol, client)), Some(agreed), Some(upstream)) =
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

impl Outgoing {
    fn attempted(&self) -> Attempted {
        Attempted {
            idempotent: self.idempotent,
            replayable: self.body.is_replayable(),
            untouched: self.body.is_untouched(),
        }
    }

    fn can_be_hedged(&self) -> bool {
        // Two writes at once may end in either order, and the loser undo what came after it.
        self.head.method.is_safe() && self.upgrade.is_none() && self.body.is_replayable()
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
