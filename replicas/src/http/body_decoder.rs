//! Takes a response's body out of what was received. Pure.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::response_head::{Fault, ResponseFraming};

/// Bytes of the line before a chunk, with extensions, which nobody uses.
const LONGEST_LINE: usize = 4 * 1024;
/// Bytes and fields after the last chunk.
const LONGEST_TRAILERS: usize = 16 * 1024;
const MOST_TRAILERS: usize = 32;

/// What is still to come of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyDecoder {
    /// So many bytes.
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

/// Where in the chunked coding (RFC 9112, section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunked {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    End,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// There is too little to say.
    More,
}

impl BodyDecoder {
    pub(super) fn new(framing: ResponseFraming) -> Self {
        match framing {
            ResponseFraming::None => Self::Length(0),
            ResponseFraming::Length(length) => Self::Length(length),
            ResponseFraming::Chunked => Self::Chunked(Chunked::Size),
            ResponseFraming::UntilClose => Self::UntilClose,
        }
    }

    /// Takes the next part off; [`Part::More`] if it has not come.
    pub(super) fn next(&mut self, received: &mut BytesMut) -> Result<Part, Fault> {
        match self {
            Self::Length(0) => Ok(Part::End),
            Self::Length(left) => Ok(data(received, left)),
            Self::UntilClose if received.is_empty() => Ok(Part::More),
            Self::UntilClose => Ok(Part::Data(received.split().freeze())),
            Self::Chunked(chunked) => chunked.next(received),
        }
    }

    /// Whether nothing is to come, as far as is known.
    pub(super) fn is_at_end(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunked::End))
    }

    /// Whether the end of the connection is the end of the body.
    pub(super) fn may_close(&self) -> bool {
        matches!(self, Self::UntilClose)
    }
}

impl Chunked {
    fn next(&mut self, received: &mut BytesMut) -> Result<Part, Fault> {
        loop {
            match self {
                Self::Size => {
                    let Some(size) = size(received)? else { return Ok(Part::More) };
                    *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                }
                Self::Data(left) => {
                    let part = data(received, left);
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(part);
                }
                Self::DataEnd => match received.get(..2) {
                    Some(b"\r\n") => {
                        let _end = received.split_to(2);
                        *self = Self::Size;
                    }
                    Some(_) => return Err("chunks as long as they say"),
                    None => return Ok(Part::More),
                },
                Self::Trailers => {
                    let Some(trailers) = trailers(received)? else { return Ok(Part::More) };
                    *self = Self::End;
                    if !trailers.is_empty() {
                        return Ok(Part::Trailers(trailers));
                    }
                }
                Self::End => return Ok(Part::End),
            }
        }
    }
}

/// Takes off the line before a chunk: a number in base 16, and extensions, which say nothing to us.
fn size(received: &mut BytesMut) -> Result<Option<u64>, Fault> {
    let rule = "chunks that say how long they are";
    let Some(end) = received.iter().take(LONGEST_LINE).position(|&byte| byte == b'\n') else {
        return if received.len() < LONGEST_LINE { Ok(None) } else { Err(rule) };
    };
    let line = received.split_to(end + 1);
    let line = line.strip_suffix(b"\r\n").ok_or(rule)?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    let extension = rest.trim_ascii_start();
    if !matches!(extension.first(), None | Some(b';')) || rest.contains(&b'\r') {
        return Err(rule);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| rule)?;
    u64::from_str_radix(digits, 16).map(Some).map_err(|_| rule)
}

/// As much of the next `left` bytes as there is.
fn data(received: &mut BytesMut, left: &mut u64) -> Part {
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(received.len());
    if here == 0 {
        return Part::More;
    }
    *left -= here as u64;
    Part::Data(received.split_to(here).freeze())
}

fn trailers(received: &mut BytesMut) -> Result<Option<HeaderMap>, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_TRAILERS];
    let (length, fields) = match httparse::parse_headers(received, &mut fields) {
        Ok(httparse::Status::Complete(parsed)) if parsed.0 <= LONGEST_TRAILERS => parsed,
        Ok(httparse::Status::Partial) if received.len() <= LONGEST_TRAILERS => return Ok(None),
        Ok(_) => return Err("trailers of 16 KiB at most"),
        Err(_) => return Err("trailers that are fields, 32 at most"),
    };
    let mut trailers = HeaderMap::new();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else { return Err("trailers that are fields") };
        trailers.append(name, value);
    }
    let _fields = received.split_to(length);
    Ok(Some(trailers))
}

#[cfg(test)]
mod tests;
