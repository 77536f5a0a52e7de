//! The head of an upstream's response, and how its body ends. Pure.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

/// Fields of one response; hyper's bound.
const MOST_FIELDS: usize = 100;
/// Bytes of a head; eight times what nginx has room for by default.
const LONGEST: usize = 64 * 1024;

/// Room for fields that are added on the way back.
const ADDED: usize = 8;

/// A whole head.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    /// Without a `Connection` that says no more than `keeps` does.
    pub(super) headers: HeaderMap,
    pub(super) framing: ResponseFraming,
    /// Whether the connection may carry another request after this one.
    pub(super) keeps: bool,
}

/// How the end of a response's body is told (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResponseFraming {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// What is no response is told by the rule it breaks.
pub(super) type Fault = &'static str;

/// Takes the head off the begin of what was received, and whatever was said meanwhile (`100 Continue`)
/// before it; `None` if there is less than a head. `to_head` if it answers a `HEAD`.
pub(super) fn take(received: &mut BytesMut, to_head: bool) -> Result<Option<ResponseHead>, Fault> {
    loop {
        let mut places = Places::new();
        let line = parse(received, &mut places)?;
        if line.as_ref().map_or(received.len(), |line| line.length) > LONGEST {
            return Err("a head of 64 KiB at most");
        }
        let Some(line) = line else { return Ok(None) };
        let bytes = received.split_to(line.length).freeze();
        let status = StatusCode::from_u16(line.status).map_err(|_| "a status from 100 to 999")?;
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            continue;
        }
        let mut headers = HeaderMap::with_capacity(places.len() + ADDED);
        let mut said = Said::default();
        for place in &places {
            let (name, value) = place.field(&bytes)?;
            if said.hear(&name, &value)? {
                headers.append(name, value);
            }
        }
        if let (Some(length), 2..) = (said.length, said.lengths) {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        let framing = said.framing(status, line.is_http_10, to_head)?;
        let keeps = said.keeps(line.is_http_10) && framing != ResponseFraming::UntilClose;
        return Ok(Some(ResponseHead { status, headers, framing, keeps }));
    }
}

/// The first line, and how much there is with it.
struct Line {
    status: u16,
    is_http_10: bool,
    length: usize,
}

/// Where name and value of a field begin and end. A head is shorter than 4 GiB.
struct Place {
    name: (u32, u32),
    value: (u32, u32),
}

/// Without an allocation for the usual head.
type Places = SmallVec<[Place; 32]>;

fn parse(received: &[u8], places: &mut Places) -> Result<Option<Line>, Fault> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, received, &mut fields);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err("100 fields at most"),
        Err(_) => return Err("a status line and fields"),
    };
    let begin = received.as_ptr().addr();
    let place = |part: &[u8]| {
        let at = part.as_ptr().addr().saturating_sub(begin);
        (at as u32, (at + part.len()) as u32)
    };
    places.extend(
        response
            .headers
            .iter()
            .map(|field| Place { name: place(field.name.as_bytes()), value: place(field.value) }),
    );
    let status = response.code.unwrap_or_default();
    Ok(Some(Line { status, is_http_10: response.version == Some(0), length }))
}

impl Place {
    /// The value shares the bytes of the head.
    fn field(&self, head: &Bytes) -> Result<(HeaderName, HeaderValue), Fault> {
        let range = |(begin, end): (u32, u32)| begin as usize..end as usize;
        let name = HeaderName::from_bytes(&head[range(self.name)]);
        let value = HeaderValue::from_maybe_shared(head.slice(range(self.value)));
        name.ok().zip(value.ok()).ok_or("a status line and fields")
    }
}

/// What the fields say of the message.
#[derive(Debug, Default)]
struct Said {
    length: Option<u64>,
    /// How often it was said; once is what others get.
    lengths: usize,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Said {
    /// False if the field says nothing to others.
    fn hear(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<bool, Fault> {
        match *name {
            CONTENT_LENGTH => {
                for member in value.as_bytes().split(|&byte| byte == b',') {
                    let length = number(member.trim_ascii()).ok_or("a length that is a number")?;
                    self.lengths += 1;
                    if self.length.replace(length).is_some_and(|other| other != length) {
                        return Err("one length");
                    }
                }
            }
            TRANSFER_ENCODING => {
                // Nothing else was asked for, and what is done to the body has to be undone by us.
                if self.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    return Err("the coding chunked, or none");
                }
                self.chunked = true;
            }
            CONNECTION => {
                let mut names = false;
                for member in value.as_bytes().split(|&byte| byte == b',') {
                    let member = member.trim_ascii();
                    let close = member.eq_ignore_ascii_case(b"close");
                    let keep_alive = member.eq_ignore_ascii_case(b"keep-alive");
                    self.close |= close;
                    self.keep_alive |= keep_alive;
                    names |= !close && !keep_alive;
                }
                return Ok(names);
            }
            _ => {}
        }
        Ok(true)
    }

    fn framing(
        &self,
        status: StatusCode,
        is_http_10: bool,
        to_head: bool,
    ) -> Result<ResponseFraming, Fault> {
        if to_head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        {
            return Ok(ResponseFraming::None);
        }
        match (self.chunked, self.length) {
            (true, _) if is_http_10 => Err("no coding in HTTP/1.0"),
            (true, _) => Ok(ResponseFraming::Chunked),
            (false, Some(0)) => Ok(ResponseFraming::None),
            (false, Some(length)) => Ok(ResponseFraming::Length(length)),
            (false, None) => Ok(ResponseFraming::UntilClose),
        }
    }

    fn keeps(&self, is_http_10: bool) -> bool {
        // One who states two lengths may mean the other, and what follows would be something else.
        let ambiguous = self.chunked && self.length.is_some();
        !self.close && !ambiguous && (!is_http_10 || self.keep_alive)
    }
}

/// Digits and nothing else: `parse` takes a sign as well.
fn number(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests;
