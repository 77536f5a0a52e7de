//! HTTP dates: the current form, the two obsolete ones, and what counts as none (RFC 9110 section
//! 5.6.7).
//!
//! `httpdate` writes them. Reading is done here, as RFC 9111 section 4.2 asks a cache for more
//! than it does: letters in either case, a leap second, and the century of a two-digit year by
//! the current time. A weekday that does not fit its date is not held against it.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderName;
use http::header::{HeaderMap, HeaderValue};

use super::fields::{single, trim};
use super::time::UnixMs;

/// Reads a date as seconds since 1970 (0 if it is earlier). Anything with a zone but GMT is none.
pub(crate) fn parse(value: &[u8], now: UnixMs) -> Option<u64> {
    let value = trim(value);
    imf_fixdate(value).or_else(|| asctime(value)).or_else(|| rfc850(value, now))
}

/// Reads the date in a header field; `None` if it is absent, no date, or two different ones.
pub(crate) fn field(headers: &HeaderMap, name: &HeaderName, now: UnixMs) -> Option<u64> {
    parse(single(headers, name)?.as_bytes(), now)
}

/// Writes a date.
pub(crate) fn format(seconds: u64) -> HeaderValue {
    let time = UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_SECOND));
    let text = httpdate::fmt_http_date(time);
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The last second of the year 9999, the last one the form can hold.
const LAST_SECOND: u64 = 253_402_300_799;

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn imf_fixdate(value: &[u8]) -> Option<u64> {
    let mut rest = Rest(value);
    rest.any_of(&WEEKDAYS)?;
    rest.exactly(b", ")?;
    let day = rest.number(2)?;
    rest.exactly(b" ")?;
    let month = rest.month()?;
    rest.exactly(b" ")?;
    let year = rest.number(4)?;
    rest.exactly(b" ")?;
    let time = rest.time()?;
    rest.exactly(b" GMT")?;
    rest.end()?;
    seconds(year, month, day, time)
}

/// `Sun Nov  6 08:49:37 1994`.
fn asctime(value: &[u8]) -> Option<u64> {
    let mut rest = Rest(value);
    rest.any_of(&WEEKDAYS)?;
    rest.exactly(b" ")?;
    let month = rest.month()?;
    rest.exactly(b" ")?;
    let day = if rest.exactly(b" ").is_some() { rest.number(1)? } else { rest.number(2)? };
    rest.exactly(b" ")?;
    let time = rest.time()?;
    rest.exactly(b" ")?;
    let year = rest.number(4)?;
    rest.end()?;
    seconds(year, month, day, time)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`.
fn rfc850(value: &[u8], now: UnixMs) -> Option<u64> {
    let mut rest = Rest(value);
    rest.any_of(&LONG_WEEKDAYS)?;
    rest.exactly(b", ")?;
    let day = rest.number(2)?;
    rest.exactly(b"-")?;
    let month = rest.month()?;
    rest.exactly(b"-")?;
    let short_year = rest.number(2)?;
    rest.exactly(b" ")?;
    let time = rest.time()?;
    rest.exactly(b" GMT")?;
    rest.end()?;
    // The latest year with these digits that is not more than 50 years away.
    let limit = 1970 + now.seconds() / SECONDS_PER_YEAR + 50;
    let year = limit - (limit + 100 - short_year) % 100;
    seconds(year, month, day, time)
}

/// Of a Gregorian year on average.
const SECONDS_PER_YEAR: u64 = 31_556_952;

const WEEKDAYS: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
const LONG_WEEKDAYS: [&[u8]; 7] =
    [b"Monday", b"Tuesday", b"Wednesday", b"Thursday", b"Friday", b"Saturday", b"Sunday"];
const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    /// Takes a text, in either case.
    fn exactly(&mut self, text: &[u8]) -> Option<()> {
        let (head, tail) = self.0.split_at_checked(text.len())?;
        if !head.eq_ignore_ascii_case(text) {
            return None;
        }
        self.0 = tail;
        Some(())
    }

    /// Takes one of these texts and says which.
    fn any_of(&mut self, texts: &[&[u8]]) -> Option<u64> {
        let which = texts.iter().position(|text| self.exactly(text).is_some())?;
        u64::try_from(which).ok()
    }

    /// Takes so many digits.
    fn number(&mut self, digits: usize) -> Option<u64> {
        let (head, tail) = self.0.split_at_checked(digits)?;
        let mut number = 0;
        for byte in head {
            if !byte.is_ascii_digit() {
                return None;
            }
            number = number * 10 + u64::from(byte - b'0');
        }
        self.0 = tail;
        Some(number)
    }

    fn month(&mut self) -> Option<u64> {
        self.any_of(&MONTHS).map(|index| index + 1)
    }

    /// Takes `08:49:37` and gives the second of the day. A leap second is the one before it, the
    /// nearest that is not later.
    fn time(&mut self) -> Option<u64> {
        let hour = self.number(2)?;
        self.exactly(b":")?;
        let minute = self.number(2)?;
        self.exactly(b":")?;
        let second = self.number(2)?;
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        Some(hour * 3600 + minute * 60 + second.min(59))
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

fn seconds(year: u64, month: u64, day: u64, second_of_day: u64) -> Option<u64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_in_month = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day == 0 || day > days_in_month {
        return None;
    }
    if year < 1970 {
        return Some(0);
    }
    // Leap days before this year, and days before this month in a common year.
    let before = year - 1;
    let leap_days = before / 4 - before / 100 + before / 400 - LEAP_DAYS_BEFORE_1970;
    let month_days = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let in_year =
        month_days.get(usize::try_from(month - 1).ok()?)? + day - 1 + u64::from(leap && month > 2);
    Some(((year - 1970) * 365 + leap_days + in_year) * 86_400 + second_of_day)
}

/// 1969 / 4 - 1969 / 100 + 1969 / 400.
const LEAP_DAYS_BEFORE_1970: u64 = 492 - 19 + 4;

#[cfg(test)]
mod tests;
