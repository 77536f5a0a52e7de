//! How old a response was when it arrived (RFC 9111 section 4.2.3).

use http::header::{self, HeaderMap};

use super::fields::{all_members, delta_seconds};
use super::time::{UnixMs, seconds_to_ms};

/// `corrected_initial_age`, in milliseconds.
///
/// `date` is the value of `Date` in seconds since 1970. The apparent age is taken in whole
/// seconds, as that is all `Date` can say: otherwise a response with `max-age=1` would lose half
/// a second of its life on average.
pub(crate) fn initial_ms(
    headers: &HeaderMap,
    date: u64,
    request_at: UnixMs,
    response_at: UnixMs,
) -> u64 {
    let apparent_age = seconds_to_ms(response_at.seconds().saturating_sub(date));
    let response_delay = response_at.since(request_at);
    let age_value = seconds_to_ms(value(headers).unwrap_or(0));
    apparent_age.max(age_value.saturating_add(response_delay))
}

/// The first member of `Age`; one that is no number of seconds is ignored (section 5.1).
pub(crate) fn value(headers: &HeaderMap) -> Option<u64> {
    delta_seconds(all_members(headers, &header::AGE).next()?)
}

#[cfg(test)]
mod tests;
