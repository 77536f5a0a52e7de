//! When a server wants to be asked again, as its response says it (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

/// A day: whoever asks for more has slipped, and sums of times must not overflow.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The time that `Retry-After` names, whole seconds or a date, at most a day; `None` if there is
/// none or it makes no sense. A date is taken from the server's own `Date` if there is one, so that
/// clocks need not agree, else from `now`.
pub(crate) fn retry_after(
    headers: &HeaderMap,
    now: impl FnOnce() -> SystemTime,
) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim_ascii();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are more than a day.
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LONGEST));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let from = date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(now);
    // A date that is past means now.
    Some(until.duration_since(from).unwrap_or_default().min(LONGEST))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pairs: &[(http::HeaderName, &str)]) -> Option<Duration> {
        let headers: HeaderMap = pairs
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), value.parse().ok()?)))
            .collect();
        // Sun, 06 Nov 1994 08:49:37 GMT.
        retry_after(&headers, || SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777))
    }

    #[test]
    fn seconds_and_dates_are_read_and_nonsense_is_none() {
        for (value, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("86400", Some(86_400)),
            ("86401", Some(86_400)),
            ("99999999999999999999999999", Some(86_400)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:50:37 1994", Some(60)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Sat, 06 Nov 2094 08:00:00 GMT", Some(86_400)),
            ("-1", None),
            ("+5", None),
            ("1.5", None),
            ("5s", None),
            ("", None),
            ("soon", None),
            ("Sun, 99 Nov 1994 08:50:37 GMT", None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(read(&[(RETRY_AFTER, value)]), expected, "{value:?}");
        }
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn a_date_counts_from_the_servers_own_clock() {
        let until = (RETRY_AFTER, "Sun, 06 Nov 1994 08:50:37 GMT");
        let behind = (DATE, "Sun, 06 Nov 1994 08:50:07 GMT");
        assert_eq!(read(&[until.clone(), behind]), Some(Duration::from_secs(30)));
        assert_eq!(read(&[until, (DATE, "yesterday")]), Some(Duration::from_secs(60)));
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_server_break_it(value in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = http::HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(RETRY_AFTER, value.clone());
                headers.insert(DATE, value);
                let read = retry_after(&headers, SystemTime::now);
                prop_assert!(read.is_none_or(|time| time <= LONGEST));
            }
        }
    }
}
