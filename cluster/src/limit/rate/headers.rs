//! What responses say about limits: the fields of draft-ietf-httpapi-ratelimit-headers-11, those
//! that were in use before it, and the refusal.
//!
//! The draft's window fits a bucket that fills up all the time like this: `q` is the burst, `w` the
//! time in which a whole burst comes back, so that `q` in each `w` is a pace that is never refused.
//! `t` is the time until one more unit is there, not until all are: the draft wants `Retry-After`
//! to be no earlier than `t`.

use std::fmt::Write as _;
use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::core::Core;
use super::stack::{Ledger, Refused, Stack};
use super::{Decision, Quota, RateLimitHeaders, Refusal};
use crate::problem::{refusal as problem, rounded_up};

/// The problem type that the draft defines.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// When to come again if nobody knows.
const SOON: Duration = Duration::from_secs(1);

/// A limit as one response tells of it.
struct Line<'a> {
    core: &'a Core,
    remaining: u32,
    /// Time until one more unit is there.
    next: Duration,
    /// Time until all are.
    reset: Duration,
}

/// Tells what the limits have left, beside what inner layers tell of theirs.
pub(super) fn advertise<Req>(
    headers: &mut HeaderMap,
    ledger: &Ledger,
    stack: &Stack<Req>,
    refunded: bool,
) {
    let lines = ledger.entries(stack).map(|(core, decision, cost)| {
        let given_back = if refunded { cost } else { 0 };
        Line::new(core, decision, given_back)
    });
    write(headers, stack.headers, lines);
}

/// The response to a refused request, for which nothing was taken.
pub(super) fn refusal<Req>(refused: &Refused, ledger: &Ledger, stack: &Stack<Req>) -> Response {
    let mut response = explain(refused);
    let passed =
        ledger.entries(stack).map(|(core, decision, cost)| Line::new(core, decision, cost));
    let refuses = refused.decided.iter().map(|(core, decision)| Line::new(core, *decision, 0));
    write(response.headers_mut(), stack.headers, passed.chain(refuses));
    response
}

fn explain(refused: &Refused) -> Response {
    let error = &refused.error;
    match error.refusal {
        Refusal::Limited | Refusal::TooCostly => {
            let detail = match error.refusal {
                Refusal::Limited => "too many requests within the time of the quota",
                _ => "the request costs more than the whole quota",
            };
            let mut policies = String::from(r#","violated-policies":["#);
            quoted(&mut policies, &error.limit);
            policies.push(']');
            let status = StatusCode::TOO_MANY_REQUESTS;
            let title = "Request cannot be satisfied as assigned quota has been exceeded";
            problem(status, QUOTA_EXCEEDED, title, detail, &policies, error.retry_after)
        }
        Refusal::NoKey => {
            let detail = "the request lacks what it would be counted under";
            problem(StatusCode::BAD_REQUEST, "about:blank", "Bad Request", detail, "", None)
        }
        Refusal::StoreFailed => {
            let detail = "nobody can say at present whether the request is within its quota";
            crate::problem::unavailable(detail, error.retry_after.unwrap_or(SOON))
        }
    }
}

impl<'a> Line<'a> {
    /// `given_back` is what the decision does not know of yet.
    fn new(core: &'a Core, decision: Decision, given_back: u32) -> Self {
        let Quota { burst, .. } = core.quota();
        let interval = Duration::from_nanos(core.quota().interval_nanos());
        let remaining = decision.remaining().saturating_add(given_back).min(burst);
        let reset = decision.reset().saturating_sub(interval.saturating_mul(given_back));
        let missing = (burst - remaining).saturating_sub(1);
        let next = reset.saturating_sub(interval.saturating_mul(missing));
        Self { core, remaining, next, reset }
    }
}

fn write<'a>(
    headers: &mut HeaderMap,
    kind: RateLimitHeaders,
    lines: impl Iterator<Item = Line<'a>>,
) {
    let (standard, legacy) = match kind {
        RateLimitHeaders::Off => return,
        RateLimitHeaders::Standard => (true, false),
        RateLimitHeaders::Legacy => (false, true),
        RateLimitHeaders::Both => (true, true),
    };
    let mut policies = String::new();
    let mut limits = String::new();
    let mut tightest: Option<Line<'a>> = None;
    for line in lines {
        if standard {
            line.write_policy(&mut policies);
            line.write_limit(&mut limits);
        }
        if tightest.as_ref().is_none_or(|tightest| line.remaining < tightest.remaining) {
            tightest = Some(line);
        }
    }
    let Some(tightest) = tightest else {
        return;
    };
    if standard {
        append(headers, HeaderName::from_static("ratelimit-policy"), policies);
        append(headers, HeaderName::from_static("ratelimit"), limits);
    }
    if legacy {
        tightest.write_legacy(headers);
    }
}

/// Beside what is there: lists may be divided over several fields.
fn append(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.append(name, value);
    }
}

impl Line<'_> {
    fn write_policy(&self, policies: &mut String) {
        let quota = self.core.quota();
        separate(policies);
        quoted(policies, self.core.name());
        let window = rounded_up(Duration::from_nanos(quota.burst_nanos())).max(1);
        let _ = write!(policies, ";q={};w={window}", quota.burst);
    }

    fn write_limit(&self, limits: &mut String) {
        separate(limits);
        quoted(limits, self.core.name());
        let _ = write!(limits, ";r={};t={}", self.remaining, rounded_up(self.next));
    }

    /// An inner layer's stay: they are about a narrower limit.
    fn write_legacy(&self, headers: &mut HeaderMap) {
        for (name, value) in [
            ("x-ratelimit-limit", u64::from(self.core.quota().burst)),
            ("x-ratelimit-remaining", u64::from(self.remaining)),
            ("x-ratelimit-reset", rounded_up(self.reset)),
        ] {
            headers
                .entry(HeaderName::from_static(name))
                .or_insert_with(|| HeaderValue::from(value));
        }
    }
}

fn separate(list: &mut String) {
    if !list.is_empty() {
        list.push_str(", ");
    }
}

/// A string as structured fields and JSON write it, which for visible ASCII is the same.
fn quoted(text: &mut String, name: &str) {
    text.push('"');
    for sign in name.chars() {
        if matches!(sign, '"' | '\\') {
            text.push('\\');
        }
        text.push(sign);
    }
    text.push('"');
}
