//! Whether a request is answered from the store, and if not, why and how.

use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, StatusCode};

use super::cache_status::Fwd;
use super::head::StoredHead;
use super::policy::Policy;
use super::request::RequestView;
use super::time::UnixMs;

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decision {
    /// Answered from the store, by [`answer`](super::answer).
    Serve(Served),
    /// A stored response fits, but the origin has to be asked first.
    Validate(Validation),
    /// Nothing stored is of use.
    Forward(Forward),
    /// The client wanted a stored answer or none: 504 (RFC 9111 section 5.2.1.7).
    Unsatisfiable,
}

/// A stored response that answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Served {
    /// Which of the stored responses.
    pub(crate) index: usize,
    /// What is left of its lifetime, in milliseconds; zero or less if it is served stale.
    pub(crate) remaining_ms: i64,
    /// Whether it has to be fetched anew in the background (`stale-while-revalidate`).
    pub(crate) revalidate: bool,
}

/// A stored response that may answer a request once the origin has confirmed it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Validation {
    /// Which of the stored responses.
    pub(crate) index: usize,
    /// Why: `stale` or `request`.
    pub(crate) fwd: Fwd,
    /// What to ask with. Empty if the stored response has no validator: the request then simply
    /// fetches a new one.
    pub(crate) preconditions: Vec<(HeaderName, HeaderValue)>,
    /// Until when the stored response stands in for 500, 502, 503 and 504.
    pub(crate) error_until: Option<UnixMs>,
    /// Until when it stands in if the origin gives no answer at all.
    pub(crate) unreachable_until: Option<UnixMs>,
}

/// A request that goes to the origin as it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Forward {
    pub(crate) fwd: Fwd,
    /// Whether the answer is worth showing to [`admit`](super::admit). If not, the request must
    /// not wait for another one like it either.
    pub(crate) may_store: bool,
    /// Entity tags of the other variants, if the policy says so and the client sent no conditions
    /// of its own. A 304 then chooses one of them ([`nominated`](super::nominated)).
    pub(crate) preconditions: Vec<(HeaderName, HeaderValue)>,
}

/// How the origin failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It answered with this status.
    Status(StatusCode),
    /// No answer: no connection, a time-out, a broken message.
    Unreachable,
}

impl Validation {
    /// Turns the headers of the client's request into those of a validation: the client's own
    /// conditions and range leave, since the answer has to be one that can be stored.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        super::conditional::replace(headers, &self.preconditions);
    }

    /// Whether the stored response may be sent in place of this failure (RFC 5861 section 4,
    /// RFC 9111 section 4.2.4).
    pub(crate) fn may_serve_stale(&self, failure: Failure, now: UnixMs) -> bool {
        let until = match failure {
            Failure::Status(status) if is_error(status) => self.error_until,
            Failure::Status(_) => None,
            Failure::Unreachable => self.error_until.max(self.unreachable_until),
        };
        until.is_some_and(|until| now < until)
    }
}

/// Decides about a request, given the stored responses under its key.
///
/// `stored` are the variants under the primary key, in any order; those that the request does
/// not match are passed over.
pub(crate) fn decide(
    policy: &Policy,
    request: &RequestView<'_>,
    stored: &[&StoredHead],
    now: UnixMs,
) -> Decision {
    let _ = (policy, request, stored, now);
    Decision::Forward(Forward { fwd: Fwd::UriMiss, may_store: true, preconditions: Vec::new() })
}

/// The statuses that RFC 5861 section 4 counts as errors.
fn is_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}
