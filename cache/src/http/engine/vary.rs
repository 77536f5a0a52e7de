//! Which request fields select a stored response (RFC 9111 section 4.1).

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::fields::{all_members, parts, trim};

/// What a response's `Vary` fields name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Vary {
    /// `*`, a member that is no field name, or more names than anyone means: no request matches.
    Any,
    /// These fields, sorted and without repetition; empty if there is no `Vary`.
    Names(Vec<HeaderName>),
}

impl Vary {
    /// Reads all `Vary` fields of a response.
    pub(crate) fn parse(headers: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for member in all_members(headers, &header::VARY) {
            match HeaderName::from_bytes(member) {
                Ok(name) if member != b"*" && names.len() < MAX_NAMES => names.push(name),
                _ => return Self::Any,
            }
        }
        names.sort_unstable_by(|one, two| one.as_str().cmp(two.as_str()));
        names.dedup();
        Self::Names(names)
    }
}

/// One field that selects a stored response, with the value its request had.
///
/// `Debug` shows the name alone: the value may be a cookie.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VaryField {
    #[serde(with = "name_form")]
    name: HeaderName,
    /// The bytes of the request's only line, if it had exactly one: the next request with the
    /// same bytes matches without any reading.
    line: Option<Bytes>,
    /// The normalised value if it differs from `line`; `None` with no `line` is an absent field.
    normal: Option<Bytes>,
}

impl VaryField {
    /// Records what `request` has for a field.
    pub(crate) fn of(name: &HeaderName, request: &HeaderMap) -> Self {
        let normal = normalised(name, request);
        let line = only_line(name, request);
        let normal = match (&normal, line) {
            (Some(normal), Some(line)) if normal.as_ref() == line => None,
            (Some(normal), _) => Some(Bytes::copy_from_slice(normal)),
            (None, _) => None,
        };
        Self { name: name.clone(), line: line.map(Bytes::copy_from_slice), normal }
    }

    pub(crate) fn name(&self) -> &HeaderName {
        &self.name
    }

    /// Whether `request` has the same value, or is without the field as the stored request was.
    pub(crate) fn matches(&self, request: &HeaderMap) -> bool {
        if let (Some(stored), Some(line)) = (&self.line, only_line(&self.name, request))
            && stored == line
        {
            return true;
        }
        let stored = self.normal.as_ref().or(self.line.as_ref());
        match (stored, normalised(&self.name, request)) {
            (Some(stored), Some(value)) => stored.as_ref() == value.as_ref(),
            (None, None) => true,
            _ => false,
        }
    }
}

impl std::fmt::Debug for VaryField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name.as_str())
    }
}

/// A hash of the values that `request` has for these fields, normalised: the secondary key.
///
/// Equal for any two requests that select the same variant. Two that do not may collide, so
/// [`StoredHead::matches`](super::StoredHead::matches) has the last word.
pub(crate) fn secondary_key(names: &[HeaderName], request: &HeaderMap) -> u128 {
    let mut hash = Xxh3::new();
    for name in names {
        hash.update(name.as_str().as_bytes());
        match normalised(name, request) {
            // The length keeps two fields from running into one another.
            Some(value) => {
                hash.update(&[1]);
                hash.update(&(value.len() as u64).to_le_bytes());
                hash.update(&value);
            }
            None => hash.update(&[0]),
        }
    }
    hash.digest128()
}

/// The value of a request field in the form in which two that mean the same are equal; `None` if
/// it is absent.
///
/// RFC 9111 section 4.1 allows whitespace to change, lines to be combined, and what the field's
/// own definition makes equal. For the three fields whose members are weighed rather than ordered
/// (RFC 9110 sections 12.5.2 to 12.5.4), that is order and case as well.
fn normalised<'a>(name: &HeaderName, request: &'a HeaderMap) -> Option<Cow<'a, [u8]>> {
    if !request.contains_key(name) {
        return None;
    }
    let weighed = *name == header::ACCEPT_ENCODING
        || *name == header::ACCEPT_LANGUAGE
        || *name == header::ACCEPT_CHARSET;
    if !weighed && let Some(line) = only_line(name, request) {
        let plain = trim(line);
        if !plain.contains(&b',') {
            return Some(Cow::Borrowed(plain));
        }
    }
    let joined = if weighed {
        let mut weights: Vec<_> = all_members(request, name).map(weighed_member).collect();
        weights.sort_unstable();
        weights.join(&b',')
    } else {
        let lines = request.get_all(name).iter();
        lines.flat_map(|line| parts(line.as_bytes())).collect::<Vec<_>>().join(&b',')
    };
    Some(Cow::Owned(joined))
}

/// `EN ; Q=0.50` is `en;q=0.5`, and a weight of 1 is no weight.
fn weighed_member(member: &[u8]) -> Vec<u8> {
    let mut parts = member.split(|&byte| byte == b';').map(trim);
    let mut out = parts.next().unwrap_or_default().to_ascii_lowercase();
    for part in parts {
        let part = part.to_ascii_lowercase();
        let Some(weight) = part.strip_prefix(b"q=") else {
            out.push(b';');
            out.extend_from_slice(&part);
            continue;
        };
        let short = short_weight(weight);
        if short != b"1" {
            out.extend_from_slice(b";q=");
            out.extend_from_slice(short);
        }
    }
    out
}

/// A weight without the zeros that say nothing.
fn short_weight(weight: &[u8]) -> &[u8] {
    if !weight.contains(&b'.') {
        return weight;
    }
    let len = weight.iter().rposition(|&byte| byte != b'0').map_or(0, |last| last + 1);
    let short = &weight[..len];
    short.strip_suffix(b".").unwrap_or(short)
}

fn only_line<'a>(name: &HeaderName, request: &'a HeaderMap) -> Option<&'a [u8]> {
    let mut lines = request.get_all(name).iter();
    let line = lines.next()?;
    lines.next().is_none().then_some(line.as_bytes())
}

/// More names than this are a mistake or an attack; the response is then not stored.
const MAX_NAMES: usize = 32;

/// A header name as its text.
mod name_form {
    use super::HeaderName;
    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(name: &HeaderName, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(name.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<HeaderName, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
