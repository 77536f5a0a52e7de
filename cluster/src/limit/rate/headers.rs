//! What responses say about limits: the fields of draft-ietf-httpapi-ratelimit-headers-10, those
//! that were in use before it, and the refusal.
//!
//! The draft's window fits a bucket that fills up all the time like this: `q` is the burst, `w` the
//! time in which a whole burst comes back, so that `q` in each `w` is a pace that is never refused.
//! `t` is the time until one more unit is there, not until all are: the draft wants `Retry-After`
//! to be no earlier than `t`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use axum::response::Response;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::core::{Core, Policy};
use super::stack::{Ledger, Refused, Stack};
use super::{Decision, Quota, RateLimitHeaders, Refusal};
use crate::problem::{refusal as problem, rounded_up};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEGACY_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const LEGACY_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const LEGACY_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// A field's value in the making: those of two or three limits fit without an allocation.
type Text = SmallVec<[u8; 192]>;

/// The problem type that the draft defines.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// When to come again if nobody knows.
const SOON: Duration = Duration::from_secs(1);

/// What a limit's fields have in common on all responses.
#[derive(Debug)]
pub(super) struct Fields {
    /// The whole item of `RateLimit-Policy`.
    policy: Box<[u8]>,
    /// The same as the field's value where there is no other limit: a response shares it.
    alone: Option<HeaderValue>,
    /// The name as it begins the item of `RateLimit`.
    name: Box<[u8]>,
}

impl Fields {
    pub(super) fn new(name: &str, quota: Quota) -> Self {
        let quoted = quoted(name);
        let window = rounded_up(Duration::from_nanos(quota.burst_nanos())).max(1);
        let policy = format!("{quoted};q={};w={window}", quota.burst);
        let alone = HeaderValue::from_str(&policy).ok();
        Self { policy: policy.into_bytes().into(), alone, name: quoted.into_bytes().into() }
    }
}

/// A limit as one response tells of it.
struct Line {
    policy: Guard<Arc<Policy>>,
    remaining: u32,
    /// Seconds until one more unit is there.
    next: u64,
    /// Seconds until all are.
    reset: u64,
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
            let policies = format!(r#","violated-policies":[{}]"#, quoted(&error.limit));
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

impl Line {
    /// `given_back` is what the decision does not know of yet.
    fn new(core: &Core, decision: Decision, given_back: u32) -> Self {
        let policy = core.policy();
        let burst = policy.quota.burst;
        let nanos = |units: u32| policy.rate.interval().saturating_mul(u64::from(units));
        let remaining = decision.remaining().saturating_add(given_back).min(burst);
        let reset = u64::try_from(decision.reset().as_nanos()).unwrap_or(u64::MAX);
        let reset = reset.saturating_sub(nanos(given_back));
        let next = reset.saturating_sub(nanos((burst - remaining).saturating_sub(1)));
        let seconds = |nanos: u64| nanos.div_ceil(1_000_000_000);
        Self { remaining, next: seconds(next), reset: seconds(reset), policy }
    }
}

fn write(headers: &mut HeaderMap, kind: RateLimitHeaders, lines: impl Iterator<Item = Line>) {
    let (standard, legacy) = match kind {
        RateLimitHeaders::Off => return,
        RateLimitHeaders::Standard => (true, false),
        RateLimitHeaders::Legacy => (false, true),
        RateLimitHeaders::Both => (true, true),
    };
    let lines: SmallVec<[Line; 2]> = lines.collect();
    let Some(tightest) = lines.iter().min_by_key(|line| line.remaining) else {
        return;
    };
    if standard {
        append(headers, RATELIMIT_POLICY, policies(&lines));
        append(headers, RATELIMIT, limits(&lines));
    }
    if legacy {
        tightest.write_legacy(headers);
    }
}

fn policies(lines: &[Line]) -> Option<HeaderValue> {
    if let [line] = lines {
        return line.policy.fields.alone.clone();
    }
    let mut text = Text::new();
    for line in lines {
        separate(&mut text);
        text.extend_from_slice(&line.policy.fields.policy);
    }
    HeaderValue::from_bytes(&text).ok()
}

fn limits(lines: &[Line]) -> Option<HeaderValue> {
    let mut text = Text::new();
    for line in lines {
        separate(&mut text);
        text.extend_from_slice(&line.policy.fields.name);
        number(&mut text, b";r=", u64::from(line.remaining));
        number(&mut text, b";t=", line.next);
    }
    HeaderValue::from_bytes(&text).ok()
}

/// Beside what is there: lists may be divided over several fields.
fn append(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    if let Some(value) = value {
        headers.append(name, value);
    }
}

impl Line {
    /// An inner layer's stay: they are about a narrower limit.
    fn write_legacy(&self, headers: &mut HeaderMap) {
        for (name, value) in [
            (LEGACY_LIMIT, u64::from(self.policy.quota.burst)),
            (LEGACY_REMAINING, u64::from(self.remaining)),
            (LEGACY_RESET, self.reset),
        ] {
            headers.entry(name).or_insert_with(|| HeaderValue::from(value));
        }
    }
}

fn separate(list: &mut Text) {
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
}

/// The number in decimal, with what stands before it, in one piece.
fn number(text: &mut Text, before: &[u8; 3], mut number: u64) {
    // The largest has 20 digits.
    let mut piece = [0; 23];
    let mut at = piece.len();
    loop {
        at -= 1;
        piece[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    at -= before.len();
    piece[at..][..3].copy_from_slice(before);
    text.extend_from_slice(&piece[at..]);
}

/// A string as structured fields and JSON write it, which for visible ASCII is the same.
fn quoted(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 2);
    text.push('"');
    for sign in name.chars() {
        if matches!(sign, '"' | '\\') {
            text.push('\\');
        }
        text.push(sign);
    }
    text.push('"');
    text
}
