//! Keys of HTTP requests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, MatchedPath};
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN};
use http::{Method, Request};

use super::{ClientIp, KeyBy, RateKey};

impl<B: 'static> KeyBy<Request<B>> {
    /// By the client's address, as far as it can be believed; of IPv6 by its network.
    ///
    /// The server must be made with `into_make_service_with_connect_info::<SocketAddr>()` (as
    /// [`serve`](crate::serve) does): a request without the address of its peer has no key.
    #[must_use]
    pub fn client_ip(client: ClientIp) -> Self {
        let client = Arc::new(client);
        Self::new(move |request: &Request<B>, parts| {
            let Some(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>() else {
                return false;
            };
            // Apart from the rest: four bytes stay in a register, an address of either family goes
            // through memory, for which the processor waits.
            if let SocketAddr::V4(v4) = peer.0 {
                let address = IpAddr::V4(*v4.ip());
                if !client.trusts(address) {
                    parts.address(address);
                    return true;
                }
            }
            let address = client.resolve(peer.0.ip(), request.headers());
            parts.address(client.network(address));
            true
        })
    }

    /// By the value of a header, such as an API key: it is treated as a secret. A client can send
    /// what it likes, so put this behind a layer that has checked it, or beside a limit by address.
    ///
    /// A request with the header twice has no key: nobody knows which of the two was checked, and
    /// the other would make each request a key of its own.
    #[must_use]
    pub fn header(name: HeaderName) -> Self {
        Self::new(move |request: &Request<B>, parts| {
            let mut values = request.headers().get_all(&name).into_iter();
            let (Some(value), None) = (values.next(), values.next()) else {
                return false;
            };
            parts.secret(value.as_bytes());
            true
        })
    }

    /// By what an earlier layer has put among the request's extensions, such as the tenant of a
    /// verified token.
    #[must_use]
    pub fn extension<K>() -> Self
    where
        K: RateKey + Send + Sync + 'static,
    {
        Self::new(|request: &Request<B>, parts| {
            let Some(key) = request.extensions().get::<K>() else {
                return false;
            };
            key.parts(parts);
            true
        })
    }

    /// By the template of the route, such as `/users/{id}`. In a layer put on by `Router::layer`;
    /// a request that matched no route has no key.
    #[must_use]
    pub fn route() -> Self {
        Self::new(|request: &Request<B>, parts| {
            let Some(path) = request.extensions().get::<MatchedPath>() else {
                return false;
            };
            parts.text(path.as_str());
            true
        })
    }

    /// By the method.
    #[must_use]
    pub fn method() -> Self {
        Self::new(|request: &Request<B>, parts| {
            parts.text(request.method().as_str());
            true
        })
    }
}

/// Whether a browser asks, before a request to another origin, if it may send it. For
/// [`RateLimitLayer::exempt`](crate::RateLimitLayer::exempt): a preflight that is refused reads to
/// a script like a network failure. Only where a layer behind this one answers preflights without
/// work.
#[must_use]
pub fn cors_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}
