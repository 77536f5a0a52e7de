//! What many fields have in common: lists, tokens, quoted strings, and who may see which field.

use http::HeaderName;
use http::header::{self, HeaderMap, HeaderValue};

/// The members of a comma-separated list (RFC 9110 section 5.6.1), trimmed, without empty ones.
///
/// A comma inside a quoted string separates nothing. A string that never ends is no string: its
/// quote counts as an ordinary byte, so that nothing after it can hide.
#[derive(Debug, Clone)]
pub(crate) struct Members<'a> {
    rest: &'a [u8],
    /// Whether quotes still count; cleared at the first one that is never closed.
    quotes: bool,
    /// Whether empty members count: they do where nobody knows that the field is a list.
    keep_empty: bool,
    done: bool,
}

/// Splits one field value into its members.
pub(crate) fn members(value: &[u8]) -> Members<'_> {
    Members { rest: value, quotes: true, keep_empty: false, done: false }
}

/// The same, with the empty ones: at least one.
pub(crate) fn parts(value: &[u8]) -> Members<'_> {
    Members { keep_empty: true, ..members(value) }
}

/// All members of all lines of a field, in order.
pub(crate) fn all_members<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().flat_map(|value| members(value.as_bytes()))
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.done {
            let (member, tail) = self.rest.split_at(self.end_of_member());
            self.done = tail.is_empty();
            self.rest = tail.get(1..).unwrap_or_default();
            let member = trim(member);
            if self.keep_empty || !member.is_empty() {
                return Some(member);
            }
        }
        None
    }
}

impl Members<'_> {
    fn end_of_member(&mut self) -> usize {
        let mut at = 0;
        while let Some(&byte) = self.rest.get(at) {
            match byte {
                b',' => return at,
                b'"' if self.quotes => match quoted_len(&self.rest[at..]) {
                    Some(len) => at += len,
                    None => self.quotes = false,
                },
                _ => at += 1,
            }
        }
        at
    }
}

/// Whether a quoted string begins in this value and never ends.
pub(crate) fn has_open_string(value: &[u8]) -> bool {
    let mut members = members(value);
    while members.next().is_some() {}
    !members.quotes
}

/// The length of the quoted string that `value` begins with, quotes included, if it ends.
pub(crate) fn quoted_len(value: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match value.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The text of a quoted string, without quotes and escapes; `None` if it is not exactly one.
pub(crate) fn unquote(value: &[u8]) -> Option<Vec<u8>> {
    if value.first() != Some(&b'"') || quoted_len(value) != Some(value.len()) {
        return None;
    }
    let mut text = Vec::with_capacity(value.len());
    let mut inner = value[1..value.len() - 1].iter();
    while let Some(&byte) = inner.next() {
        text.push(if byte == b'\\' { *inner.next()? } else { byte });
    }
    Some(text)
}

/// Without leading and trailing spaces and tabs.
pub(crate) fn trim(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(start) = value.iter().position(|byte| !blank(byte)) else { return &[] };
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    &value[start..end]
}

/// Whether the byte may stand in a token (RFC 9110 section 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A non-negative integer of digits alone, capped at 2^31 (RFC 9111 section 1.2.2).
pub(crate) fn delta_seconds(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let mut seconds: u64 = 0;
    for byte in value {
        if !byte.is_ascii_digit() {
            return None;
        }
        // Capped at each step, so that no number of digits overflows.
        seconds = (seconds * 10 + u64::from(byte - b'0')).min(MAX_DELTA_SECONDS);
    }
    Some(seconds)
}

/// The value of a delta-seconds that is too large.
pub(crate) const MAX_DELTA_SECONDS: u64 = 1 << 31;

/// The header's only value, or `None` if there is none or several different ones.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.all(|other| other == first).then_some(first)
}

/// Sets a field. A map that is full (32,768 fields) stays as it is; `http` would panic.
pub(crate) fn set(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    let _full = headers.try_insert(name, value);
}

/// Adds a line of a field, with the same bound.
pub(crate) fn add(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    let _full = headers.try_append(name, value);
}

/// Removes what is meant for one connection or one proxy and so is neither stored nor taken over
/// from a 304 (RFC 9111 section 3.1, RFC 9110 section 7.6.1).
///
/// `Trailer` leaves too: trailers are not stored, and it would announce what never comes.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = all_members(headers, &header::CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !is_needed(name))
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Fields that a `Connection` option cannot take away (RFC 9110 section 7.6.1 forbids listing
/// those meant for all recipients): without them, the cache would read the response wrongly.
fn is_needed(name: &HeaderName) -> bool {
    *name == header::CACHE_CONTROL
        || *name == header::VARY
        || *name == header::AGE
        || *name == header::DATE
        || *name == header::CONTENT_ENCODING
        || *name == header::CONTENT_LENGTH
        || *name == header::CONTENT_TYPE
}

const HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    header::PROXY_AUTHORIZATION,
];

#[cfg(test)]
mod tests;
