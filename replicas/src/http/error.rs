//! Why there is no response, and how a client is told.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use super::ResponseBody;
use crate::{BoxError, ConfigError, RouteError};

/// One upstream did not answer, or not as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// No connection could be made; nothing was sent.
    #[error("the upstream cannot be connected to")]
    Connect(#[source] BoxError),
    /// It was silent for too long.
    #[error("the upstream was silent for too long")]
    Timeout,
    /// The connection ended before the head of the response.
    #[error("the upstream closed the connection")]
    Closed(#[source] io::Error),
    /// What came is not HTTP, or was not asked for; this is what it should have had.
    #[error("the upstream sent what is no response, which has {0}")]
    Protocol(&'static str),
    /// The client's own body ended early, so that the request could not be sent. For an `io::Error` of
    /// the kind `TimedOut` among its causes a client is answered as for
    /// [`RequestTimeout`](Self::RequestTimeout).
    #[error("the request's body ended early")]
    RequestBody(#[source] BoxError),
    /// The client's own body was silent for too long.
    #[error("the request's body was silent for too long")]
    RequestTimeout,
    /// A `CONNECT`, which asks for a tunnel to anywhere.
    #[error("the upstream makes no tunnels")]
    Tunnel,
    /// The response's body ended early.
    #[error("the upstream's body ended early")]
    ResponseBody(#[source] io::Error),
    /// There is no tokio runtime to connect on.
    #[error("there is no runtime to connect on")]
    NoRuntime,
}

impl UpstreamError {
    /// Whether time ran out: the upstream's, not the client's.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout => true,
            Self::Connect(error) => is_timeout(error),
            _ => false,
        }
    }

    /// Whether the client is to blame, and not the upstream.
    #[must_use]
    pub fn is_client(&self) -> bool {
        matches!(self, Self::RequestBody(_) | Self::RequestTimeout | Self::Tunnel)
    }

    /// Whether this process is to blame, which has run out of descriptors or ports.
    #[must_use]
    pub fn is_exhaustion(&self) -> bool {
        // The same numbers on every Unix; there is no kind for these.
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        let Self::Connect(error) = self else { return false };
        cause::<io::Error>(error).is_some_and(|error| {
            matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
                || error.kind() == io::ErrorKind::AddrNotAvailable
        })
    }

    /// Whether it is certain that nothing of the request was sent.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::NoRuntime | Self::Tunnel)
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            // Somebody else was less patient with the client.
            Self::RequestBody(error) if is_timeout(error) => StatusCode::REQUEST_TIMEOUT,
            error if error.is_client() => StatusCode::BAD_REQUEST,
            error if error.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

fn is_timeout(error: &BoxError) -> bool {
    cause::<io::Error>(error).is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// The first of its type among an error and its causes.
fn cause<E: StdError + 'static>(error: &BoxError) -> Option<&E> {
    let error: &(dyn StdError + 'static) = error.as_ref();
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref())
}

/// A [`ReverseProxy`](super::ReverseProxy) has no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// There was no node to ask.
    #[error("no node may serve the request")]
    NoNode(#[source] RouteError),
    /// The last node that was asked, and what came of it.
    #[error("the request failed on {node:?}")]
    Upstream {
        /// The node's name.
        node: String,
        /// What went wrong there.
        #[source]
        error: UpstreamError,
    },
    /// The client's own body ended early or fell silent before anything was sent.
    #[error("the request could not be read")]
    Request(#[source] UpstreamError),
    /// It names more than one host, of which two readers could believe different ones.
    #[error("the request names more than one host")]
    Hosts,
    /// A `CONNECT`, which asks for a tunnel to anywhere.
    #[error("the proxy makes no tunnels")]
    Connect,
}

impl ProxyError {
    /// 502; 504 if time ran out, 503 if there was no node; 400, 408 or 501 if it is the client's fault.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoNode(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upstream { error, .. } | Self::Request(error) => error.status(),
            Self::Hosts => StatusCode::BAD_REQUEST,
            Self::Connect => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// Whether the same request can succeed a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoNode(error) => error.is_retryable(),
            Self::Upstream { error, .. } | Self::Request(error) => !error.is_client(),
            Self::Hosts | Self::Connect => false,
        }
    }

    /// When to come back, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NoNode(error) => error.retry_after(),
            Self::Upstream { .. } | Self::Request(_) | Self::Hosts | Self::Connect => None,
        }
    }

    /// The response a client gets instead: a problem document (RFC 9457) with `Retry-After` where
    /// known. It names no node: what a site is made of is nobody's business outside.
    #[must_use]
    pub fn response(&self) -> Response<ResponseBody> {
        let status = self.status();
        let detail = match status {
            StatusCode::SERVICE_UNAVAILABLE => "no server can take this request at present",
            StatusCode::GATEWAY_TIMEOUT => "the server behind this address did not answer in time",
            StatusCode::REQUEST_TIMEOUT => "the body of the request did not arrive in time",
            StatusCode::BAD_REQUEST => "the request could not be read",
            StatusCode::NOT_IMPLEMENTED => "the proxy makes no tunnels",
            _ => "the server behind this address did not answer as it should",
        };
        let mut response = problem(status, detail);
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after() {
            // Rounded up, and at least 1: a client told 0 would be back at once.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if status == StatusCode::REQUEST_TIMEOUT {
            // RFC 9110, section 15.5.9: the rest of its body is not waited for.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A problem document (RFC 9457) that nobody keeps. `detail` is written as it is: no quotes.
#[must_use]
pub fn problem(status: StatusCode, detail: &str) -> Response<ResponseBody> {
    let title = status.canonical_reason().unwrap_or("Error");
    let code = status.as_u16();
    let text = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{code},"detail":"{detail}"}}"#
    );
    let mut response = Response::new(ResponseBody::whole(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn refused_address(address: &str, rule: &'static str) -> ConfigError {
    ConfigError::new("address", address, rule)
}
