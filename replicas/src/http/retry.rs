//! What may be sent again, and what a result says about its node. Pure.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, StatusCode};

use super::{ProxyConfig, UpstreamError};
use crate::Outcome;

/// What is known of a request when an attempt at it has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempted {
    pub(super) idempotent: bool,
    /// The body can be sent from its start again.
    pub(super) replayable: bool,
    /// No part of the body has been taken.
    pub(super) untouched: bool,
}

/// Whether sending it twice does what sending it once does (RFC 9110, section 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}

/// Whether a request that failed so may be tried once more.
///
/// Nothing has gone out to the client yet. If nothing of it was sent, any request may; if it may have
/// been acted upon, only an idempotent one. A node that was silent for its whole time is not asked
/// again elsewhere: the client has waited long enough, and the others are probably as busy.
pub(super) fn may_follow_error(error: &UpstreamError, request: Attempted) -> bool {
    if error.is_client() {
        return false;
    }
    if error.is_unsent() {
        return request.untouched;
    }
    matches!(error, UpstreamError::Closed(_)) && request.idempotent && request.replayable
}

/// Whether a request that was answered so may be tried once more.
pub(super) fn may_follow_status(
    status: StatusCode,
    request: Attempted,
    config: &ProxyConfig,
) -> bool {
    request.idempotent && request.replayable && config.retry_statuses.contains(&status.as_u16())
}

/// What the head of a response says about its node.
pub(super) fn outcome(status: StatusCode, headers: &HeaderMap, config: &ProxyConfig) -> Outcome {
    if config.failure_statuses.contains(&status.as_u16()) {
        Outcome::Failure
    } else if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        // Saturation is no failure, and no proof of health either.
        let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Outcome::Overloaded { retry_after: seconds.map(Duration::from_secs) }
    } else {
        Outcome::Success
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Attempted = Attempted { idempotent: true, replayable: true, untouched: true };
    const POST: Attempted = Attempted { idempotent: false, replayable: false, untouched: true };

    #[test]
    fn a_silent_node_and_a_faulty_client_are_the_end() {
        for error in [
            UpstreamError::Timeout,
            UpstreamError::RequestTimeout,
            UpstreamError::RequestBody("gone".into()),
            UpstreamError::Protocol("a status line"),
        ] {
            assert!(!may_follow_error(&error, GET), "{error}");
        }
    }

    #[test]
    fn what_was_not_sent_may_go_elsewhere_unless_its_body_is_gone() {
        assert!(may_follow_error(&UpstreamError::NoRuntime, POST));
        let touched = Attempted { untouched: false, ..POST };
        assert!(!may_follow_error(&UpstreamError::NoRuntime, touched));
    }

    #[test]
    fn a_status_is_followed_only_if_listed_and_for_what_can_be_repeated() {
        let config = ProxyConfig::default().retry_statuses([502]);
        assert!(may_follow_status(StatusCode::BAD_GATEWAY, GET, &config));
        assert!(!may_follow_status(StatusCode::SERVICE_UNAVAILABLE, GET, &config));
        assert!(!may_follow_status(StatusCode::BAD_GATEWAY, POST, &config));
        assert!(!may_follow_status(StatusCode::BAD_GATEWAY, GET, &ProxyConfig::default()));
    }

    #[test]
    fn saturation_is_no_failure_unless_the_operator_says_so() {
        let (plain, strict) =
            (ProxyConfig::default(), ProxyConfig::default().failure_statuses([500, 503]));
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, http::HeaderValue::from_static("2"));
        let full = Outcome::Overloaded { retry_after: Some(Duration::from_secs(2)) };
        for (status, usually, strictly) in [
            (200, Outcome::Success, Outcome::Success),
            (404, Outcome::Success, Outcome::Success),
            (429, full, full),
            (500, Outcome::Success, Outcome::Failure),
            (503, full, Outcome::Failure),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(outcome(status, &headers, &plain), usually, "{status}");
            assert_eq!(outcome(status, &headers, &strict), strictly, "{status}");
        }
        headers.insert(RETRY_AFTER, http::HeaderValue::from_static("Sun, 06 Nov 1994"));
        let undated = Outcome::Overloaded { retry_after: None };
        assert_eq!(outcome(StatusCode::SERVICE_UNAVAILABLE, &headers, &plain), undated);
    }
}
