//! Several ranges in one response (`multipart/byteranges`, RFC 9110 section 14.6).

use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{self, HeaderMap};

use super::fields::set;

/// A `multipart/byteranges` body: for each part its head and the bytes of the stored body that
/// follow it, then the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Multipart {
    pub(crate) parts: Vec<(Bytes, Range<u64>)>,
    pub(crate) end: Bytes,
    /// Length of the whole, in bytes.
    pub(crate) len: u64,
}

/// Lays out the body for `ranges` of a stored body of `body_len` bytes, and completes `headers`
/// (`Content-Type`, `Content-Length`) of the 206.
///
/// `chance` makes the boundary, so that nobody can plant it in a body.
pub(crate) fn plan(
    headers: &mut HeaderMap,
    ranges: &[Range<u64>],
    body_len: u64,
    chance: u128,
) -> Multipart {
    let boundary = format!("{chance:032x}");
    let content_type = headers.get(header::CONTENT_TYPE).cloned();
    let mut parts = Vec::with_capacity(ranges.len());
    let mut len: u64 = 0;
    for (index, range) in ranges.iter().enumerate() {
        let lead = if index == 0 { "" } else { "\r\n" };
        let mut part = format!("{lead}--{boundary}\r\n").into_bytes();
        if let Some(content_type) = &content_type {
            part.extend_from_slice(b"Content-Type: ");
            part.extend_from_slice(content_type.as_bytes());
            part.extend_from_slice(b"\r\n");
        }
        let last = range.end.saturating_sub(1);
        let place = format!("Content-Range: bytes {}-{last}/{body_len}\r\n\r\n", range.start);
        part.extend_from_slice(place.as_bytes());
        let bytes = range.end.saturating_sub(range.start);
        len = len.saturating_add(part.len() as u64).saturating_add(bytes);
        parts.push((Bytes::from(part), range.clone()));
    }
    let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
    len = len.saturating_add(end.len() as u64);
    if let Ok(value) = HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}")) {
        set(headers, header::CONTENT_TYPE, value);
    }
    // The place of each part stands in the part (RFC 9110 section 15.3.7.2).
    headers.remove(header::CONTENT_RANGE);
    set(headers, header::CONTENT_LENGTH, HeaderValue::from(len));
    Multipart { parts, end, len }
}

#[cfg(test)]
mod tests;
