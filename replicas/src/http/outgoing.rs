//! A request as it may be sent several times.

use bytes::Bytes;
use http::header::HOST;
use http::request::Parts;
use http::{HeaderValue, Method, Version};
use http_body::Body;
use hyper::upgrade::OnUpgrade;

use super::headers::{self, Introduction};
use super::proxy::Shared;
use super::request_body::{self, RequestBody};
use super::retry::{self, Attempted};
use super::{Peer, ProxyConfig, ProxyError, strip_hop_by_hop};
use crate::BoxError;

pub(super) struct Outgoing {
    pub(super) head: Parts,
    pub(super) body: RequestBody,
    idempotent: bool,
    pub(super) upgrade: Option<Upgrade>,
}

/// The protocol that the client asks to change to, and its side of the change.
pub(super) struct Upgrade {
    pub(super) protocol: HeaderValue,
    pub(super) client: OnUpgrade,
}

impl Outgoing {
    /// With a head that nodes may get. The body is empty so far.
    ///
    /// # Errors
    /// It may not be sent on.
    pub(super) fn new(
        shared: &Shared,
        mut head: Parts,
        has_body: bool,
        peer: Option<Peer>,
    ) -> Result<Self, ProxyError> {
        if head.method == Method::CONNECT {
            return Err(ProxyError::Connect);
        }
        if !headers::settle_host(&mut head.headers, &head.uri) {
            return Err(ProxyError::Hosts);
        }
        let upgrade = headers::upgrade(&head.headers, &shared.config.upgrades)
            .filter(|_| !has_body && head.version == Version::HTTP_11)
            .and_then(|protocol| Some(Upgrade { protocol, client: head.extensions.remove()? }));
        strip_hop_by_hop(&mut head.headers);
        if let Some(Upgrade { protocol, .. }) = &upgrade {
            headers::set_upgrade(&mut head.headers, protocol.clone());
        }
        let ProxyConfig { trusted_proxies, forwarded, via, .. } = &shared.config;
        let via = via.as_deref();
        let with = Introduction { trusted: trusted_proxies, forwarded: *forwarded, via };
        headers::introduce(&mut head.headers, head.version, peer, with);
        if let Some(host) = &shared.fixed_host {
            head.headers.insert(HOST, host.clone());
        }
        let idempotent = retry::is_idempotent(&head.method);
        Ok(Self { head, body: RequestBody::Empty, idempotent, upgrade })
    }

    /// Whether a body is short enough to be read before it is sent, so that it can be sent again.
    pub(super) fn may_hold(&self, body: &impl Body, config: &ProxyConfig) -> bool {
        let length = body.size_hint().exact();
        self.idempotent && length.is_some_and(|length| length <= config.replay_bytes as u64)
    }

    /// With a body that is read first.
    ///
    /// # Errors
    /// The body ends early, or its client is silent for too long.
    pub(super) async fn holding<B>(self, body: B, config: &ProxyConfig) -> Result<Self, ProxyError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let held = request_body::hold(body, config.request_idle_timeout).await;
        Ok(Self { body: held.map_err(ProxyError::Request)?, ..self })
    }

    pub(super) fn attempted(&self) -> Attempted {
        Attempted {
            idempotent: self.idempotent,
            replayable: self.body.is_replayable(),
            untouched: self.body.is_untouched(),
        }
    }

    pub(super) fn can_be_hedged(&self) -> bool {
        // Two writes at once may end in either order, and the loser undo what came after it.
        self.head.method.is_safe() && self.upgrade.is_none() && self.body.is_replayable()
    }
}
