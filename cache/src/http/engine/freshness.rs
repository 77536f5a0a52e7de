//! For how long a response is fresh, and what may be done with it after that (RFC 9111 sections
//! 4.2 and 5.2.2, RFC 5861).

use http::StatusCode;
use http::header::{self, HeaderMap};

use super::cache_control::{CacheControl, Seconds};
use super::date;
use super::policy::Policy;
use super::targeted;
use super::time::{UnixMs, millis, seconds_to_ms};

/// The directives that govern a response: those of a targeted field, or of `Cache-Control`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Governing {
    pub(crate) directives: CacheControl,
    /// A targeted field also silences `Expires` (RFC 9213 section 2.2).
    pub(crate) targeted: bool,
}

impl Governing {
    /// Reads what governs a response.
    pub(crate) fn of(policy: &Policy, headers: &HeaderMap) -> Self {
        match targeted::select(&policy.targeted, headers) {
            Some(directives) => Self { directives, targeted: true },
            None => Self { directives: CacheControl::parse(headers), targeted: false },
        }
    }
}

/// Where a lifetime comes from, in the order in which one wins over the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The policy's `forced_ttl`.
    Forced,
    /// The response's own `s-maxage`, `max-age` or `Expires`.
    Explicit,
    /// The policy's `default_ttl` or `negative_ttl`.
    Default,
    /// A share of the time since `Last-Modified`.
    Heuristic,
    /// Nothing says.
    None,
}

/// A lifetime and its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub(crate) ms: u64,
    pub(crate) source: Source,
}

/// The freshness lifetime of a response (section 4.2.1).
///
/// `dated` is the value of `Date` in seconds since 1970, `now` when the response arrived.
pub(crate) fn lifetime(
    policy: &Policy,
    governing: &Governing,
    status: StatusCode,
    headers: &HeaderMap,
    dated: u64,
    now: UnixMs,
) -> Lifetime {
    let mut lifetime = uncapped(policy, governing, status, headers, dated, now);
    if let Some(max) = policy.max_ttl {
        lifetime.ms = lifetime.ms.min(millis(max));
    }
    lifetime
}

fn uncapped(
    policy: &Policy,
    governing: &Governing,
    status: StatusCode,
    headers: &HeaderMap,
    dated: u64,
    now: UnixMs,
) -> Lifetime {
    let directives = &governing.directives;
    if let Some(ttl) = policy.forced_ttl
        && is_lasting(status)
    {
        return Lifetime { ms: millis(ttl), source: Source::Forced };
    }
    if let Some(seconds) = explicit(governing, headers, dated, now) {
        return Lifetime { ms: seconds_to_ms(seconds), source: Source::Explicit };
    }
    let default = if is_lasting(status) {
        policy.default_ttl
    } else if is_negative(status) {
        policy.negative_ttl
    } else {
        None
    };
    if let Some(ttl) = default {
        return Lifetime { ms: millis(ttl), source: Source::Default };
    }
    let may_guess = is_heuristically_cacheable(status) || directives.public;
    if may_guess
        && policy.heuristic_percent > 0
        && let Some(modified) = date::field(headers, &header::LAST_MODIFIED, now)
    {
        let unchanged = seconds_to_ms(dated.saturating_sub(modified));
        let share = unchanged / 100 * u64::from(policy.heuristic_percent);
        let ms = share.min(millis(policy.heuristic_max));
        return Lifetime { ms, source: Source::Heuristic };
    }
    Lifetime { ms: 0, source: Source::None }
}

/// The lifetime a response names, in seconds; 0 if it names one that cannot be read or contradicts
/// itself. `None` if it names none.
fn explicit(governing: &Governing, headers: &HeaderMap, dated: u64, now: UnixMs) -> Option<u64> {
    let directives = &governing.directives;
    if directives.broken {
        return Some(0);
    }
    for seconds in [directives.s_maxage, directives.max_age] {
        match seconds {
            Seconds::Absent => {}
            Seconds::Is(seconds) => return Some(seconds),
            Seconds::Invalid => return Some(0),
        }
    }
    if governing.targeted || !headers.contains_key(header::EXPIRES) {
        return None;
    }
    // A value that is no date, above all `0`, is in the past (section 5.3).
    let expires = date::field(headers, &header::EXPIRES, now).unwrap_or(0);
    Some(expires.saturating_sub(dated))
}

/// How long past its lifetime a response may be used, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stale {
    pub(crate) while_revalidate_ms: u64,
    pub(crate) if_error_ms: u64,
    pub(crate) if_unreachable_ms: u64,
    /// Not at all, whoever asks.
    pub(crate) never: bool,
}

impl Stale {
    /// What the response says, else what the policy says (section 4.2.4). `s-maxage` says
    /// `proxy-revalidate` as well (section 5.2.2.10).
    ///
    /// The policy speaks only for responses that were fresh for a while: what never was is not
    /// kept for a bad day, and requests for it need not wait for one another.
    pub(crate) fn of(policy: &Policy, directives: &CacheControl, lifetime_ms: u64) -> Self {
        let never = directives.must_revalidate
            || directives.proxy_revalidate
            || directives.s_maxage != Seconds::Absent
            || directives.no_cache.is_whole();
        if never {
            return Self { never, ..Self::default() };
        }
        let default = |window| if lifetime_ms > 0 { millis(window) } else { 0 };
        let window = |directive, otherwise| match directive {
            Seconds::Is(seconds) => seconds_to_ms(seconds),
            Seconds::Absent => default(otherwise),
            Seconds::Invalid => 0,
        };
        Self {
            while_revalidate_ms: window(
                directives.stale_while_revalidate,
                policy.stale_while_revalidate,
            ),
            if_error_ms: window(directives.stale_if_error, policy.stale_if_error),
            if_unreachable_ms: default(policy.stale_if_unreachable),
            never,
        }
    }
}

/// The statuses whose responses may be stored without anything that says so (RFC 9110 section
/// 15.1; 206 is one too, but parts are not stored).
pub(crate) fn is_heuristically_cacheable(status: StatusCode) -> bool {
    is_lasting(status) || is_negative(status)
}

/// Successes, permanent redirects and 410: what a route's lifetime is about.
fn is_lasting(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 410)
}

/// What is missing or not supported now.
fn is_negative(status: StatusCode) -> bool {
    matches!(status.as_u16(), 404 | 405 | 414 | 501)
}

#[cfg(test)]
mod tests;
