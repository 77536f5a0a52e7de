//! Whether a request is answered from the store, and if not, why and how.

use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, Method, StatusCode};

use super::cache_control::MaxStale;
use super::cache_status::Fwd;
use super::conditional::{has_conditions, preconditions, preconditions_of_all};
use super::head::StoredHead;
use super::policy::Policy;
use super::request::RequestView;
use super::time::{UnixMs, seconds_to_ms};

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
    if !request.is_lookup() {
        return forward(Fwd::Method, false);
    }
    let only_if_cached = policy.honour_only_if_cached && request.directives.only_if_cached;
    let decision = lookup(policy, request, stored, now);
    match decision {
        Decision::Validate(_) | Decision::Forward(_) if only_if_cached => Decision::Unsatisfiable,
        decision => decision,
    }
}

fn lookup(
    policy: &Policy,
    request: &RequestView<'_>,
    stored: &[&StoredHead],
    now: UnixMs,
) -> Decision {
    if request.bypasses() {
        let fwd = if request.is_for_the_origin() { Fwd::Request } else { Fwd::Bypass };
        return forward(fwd, false);
    }
    // The answer to a `HEAD` has no body to store.
    let may_store =
        *request.method == Method::GET && !(policy.honour_no_store && request.directives.no_store);
    if stored.is_empty() {
        return forward(Fwd::UriMiss, may_store);
    }
    // Of several that fit, the most recent one, but a fresh one with `Vary` before one without:
    // some origins forget the field in their default response (RFC 9111 section 4.1).
    let rank = |head: &StoredHead| {
        let chosen_by_vary = !head.vary.is_empty() && !head.no_cache && head.remaining_ms(now) > 0;
        (chosen_by_vary, head.date, head.response_at)
    };
    let fitting = stored.iter().enumerate().filter(|(_, head)| head.matches(request.headers));
    let Some((index, head)) = fitting.max_by_key(|(_, head)| rank(head)) else {
        let ask = policy.validate_other_variants && !has_conditions(request.headers);
        let preconditions = if ask { preconditions_of_all(stored) } else { Vec::new() };
        return Decision::Forward(Forward { fwd: Fwd::VaryMiss, may_store, preconditions });
    };
    match judge(policy, request, head, now) {
        Verdict::Serve { revalidate } => {
            Decision::Serve(Served { index, remaining_ms: head.remaining_ms(now), revalidate })
        }
        Verdict::Validate(fwd) => {
            Decision::Validate(validation(policy, request, (index, head), fwd, now))
        }
    }
}

fn forward(fwd: Fwd, may_store: bool) -> Decision {
    Decision::Forward(Forward { fwd, may_store, preconditions: Vec::new() })
}

/// Whether the selected response may be used as it is.
enum Verdict {
    Serve { revalidate: bool },
    Validate(Fwd),
}

/// RFC 9111 sections 4, 4.2.4 and 5.2.1, RFC 5861 section 3.
fn judge(policy: &Policy, request: &RequestView<'_>, head: &StoredHead, now: UnixMs) -> Verdict {
    let wishes = &request.directives;
    if policy.honour_no_cache && wishes.no_cache {
        return Verdict::Validate(Fwd::Request);
    }
    if head.no_cache {
        return Verdict::Validate(Fwd::Stale);
    }
    let remaining = head.remaining_ms(now);
    let mut wants_fresh = false;
    if policy.honour_max_age {
        // A reload (`max-age=0`) does not count against an immutable response (RFC 8246 section
        // 2); `no-cache` did, above.
        let is_settled = head.immutable && remaining > 0;
        let too_old = !is_settled
            && wishes.max_age.is_some_and(|limit| head.age_ms(now) > seconds_to_ms(limit));
        let too_short = wishes.min_fresh.is_some_and(|least| remaining < signed(least));
        if too_old || too_short {
            let fwd = if remaining > 0 { Fwd::Request } else { Fwd::Stale };
            return Verdict::Validate(fwd);
        }
        wants_fresh = wishes.max_age.is_some();
    }
    if remaining > 0 {
        return Verdict::Serve { revalidate: false };
    }
    if head.never_stale {
        return Verdict::Validate(Fwd::Stale);
    }
    let staleness = remaining.unsigned_abs();
    if staleness < head.stale_while_revalidate_ms && !wants_fresh {
        return Verdict::Serve { revalidate: true };
    }
    let accepted = match wishes.max_stale {
        Some(MaxStale::Any) => true,
        Some(MaxStale::Seconds(limit)) => staleness <= seconds_to_ms(limit),
        None => false,
    };
    if policy.honour_max_stale && accepted {
        return Verdict::Serve { revalidate: false };
    }
    Verdict::Validate(Fwd::Stale)
}

fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds_to_ms(seconds)).unwrap_or(i64::MAX)
}

fn validation(
    policy: &Policy,
    request: &RequestView<'_>,
    (index, head): (usize, &StoredHead),
    fwd: Fwd,
    now: UnixMs,
) -> Validation {
    let no_cache = policy.honour_no_cache && request.directives.no_cache;
    let window = |ms: u64| {
        // Counted from the moment it became, or will become, stale.
        let stale_at = head.response_at.plus(head.lifetime_ms).minus(head.initial_age_ms);
        let until = stale_at.plus(ms);
        (!head.never_stale && !no_cache && now < until).then_some(until)
    };
    let wished = request.directives.stale_if_error.filter(|_| policy.honour_max_stale);
    let if_error = head.stale_if_error_ms.max(wished.map_or(0, seconds_to_ms));
    Validation {
        index,
        fwd,
        preconditions: preconditions(head),
        error_until: window(if_error),
        unreachable_until: window(head.stale_if_unreachable_ms),
    }
}

/// The statuses that RFC 5861 section 4 counts as errors.
fn is_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests;
