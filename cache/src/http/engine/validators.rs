//! Entity tags and modification dates (RFC 9110 section 8.8).

use http::header::{self, HeaderMap, HeaderName};

use super::fields::single;

/// An entity tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntityTag<'a> {
    pub(crate) weak: bool,
    /// Between the quotes.
    opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Reads exactly one entity tag.
    pub(crate) fn parse(value: &'a [u8]) -> Option<Self> {
        let (tag, rest) = Self::take(value)?;
        rest.is_empty().then_some(tag)
    }

    /// The tag of a stored or received response. One without quotes is none.
    pub(crate) fn of(headers: &'a HeaderMap) -> Option<Self> {
        Self::parse(super::fields::trim(single(headers, &header::ETAG)?.as_bytes()))
    }

    /// Equal and both strong (section 8.8.3.2).
    pub(crate) fn strongly_equals(&self, other: &Self) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Equal, however strong.
    pub(crate) fn weakly_equals(&self, other: &Self) -> bool {
        self.opaque == other.opaque
    }

    /// Takes a tag from the front. A backslash is an ordinary byte, unlike in a quoted string.
    fn take(value: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, quoted) = match value.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, value),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let end = inner.iter().position(|&byte| byte == b'"')?;
        let opaque = &inner[..end];
        let valid = opaque.iter().all(|&byte| byte == 0x21 || byte >= 0x23 && byte != 0x7f);
        valid.then(|| (Self { weak, opaque }, &inner[end + 1..]))
    }
}

/// The conditions of an `If-None-Match`: `*`, or tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoneMatch<'a> {
    /// Any representation at all.
    Any,
    /// Any of these. What is no tag is left out: it matches nothing.
    Tags(Vec<EntityTag<'a>>),
}

impl<'a> NoneMatch<'a> {
    /// Reads all lines of a field such as `If-None-Match`; `None` if there is none.
    pub(crate) fn parse(headers: &'a HeaderMap, name: &HeaderName) -> Option<Self> {
        if !headers.contains_key(name) {
            return None;
        }
        let mut tags = Vec::new();
        for line in headers.get_all(name) {
            let mut rest = line.as_bytes();
            if super::fields::trim(rest) == b"*" {
                return Some(Self::Any);
            }
            while !rest.is_empty() {
                if let Some((tag, tail)) = EntityTag::take(rest) {
                    tags.push(tag);
                    rest = tail;
                } else if matches!(rest[0], b' ' | b'\t' | b',') {
                    rest = &rest[1..];
                } else {
                    let len = rest.iter().position(|&byte| byte == b',').unwrap_or(rest.len());
                    let (member, tail) = rest.split_at(len);
                    if member.contains(&b'"') {
                        // Where a tag begins or ends is anybody's guess from here on.
                        break;
                    }
                    rest = tail;
                }
            }
        }
        Some(Self::Tags(tags))
    }

    /// Whether a representation with this tag is among them (weak comparison).
    pub(crate) fn matches(&self, tag: Option<&EntityTag<'_>>) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => {
                tag.is_some_and(|tag| tags.iter().any(|other| other.weakly_equals(tag)))
            }
        }
    }
}

/// Whether `Last-Modified` tells two representations apart reliably: it lies so far before `Date`
/// that a second change within the same second would have shown (section 8.8.2.2).
pub(crate) fn is_strong_date(last_modified: u64, date: u64) -> bool {
    date.saturating_sub(last_modified) >= 60
}

#[cfg(test)]
mod tests;
