//! The `Cache-Status` response field (RFC 9211).

use std::io::Write as _;

use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, StatusCode};
use sfv::{Integer, KeyRef, ListSerializer, StringRef, TokenRef};

use super::fields::add;

/// Why a request went to the origin: the values of `fwd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fwd {
    /// The cache was told to keep out.
    Bypass,
    /// The method is not answered from the store.
    Method,
    /// Nothing is stored under this target.
    UriMiss,
    /// Something is, but not for these request fields.
    VaryMiss,
    /// The request's directives or conditions ask for it.
    Request,
    /// What is stored is stale.
    Stale,
}

impl Fwd {
    /// The token of RFC 9211 section 2.2.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
        }
    }
}

/// How this cache handled one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheStatus<'a> {
    /// This cache's name.
    pub(crate) name: &'a str,
    /// Why it asked the origin; `None` is a hit.
    pub(crate) fwd: Option<Fwd>,
    /// The status the origin answered with.
    pub(crate) fwd_status: Option<StatusCode>,
    /// What is left of the response's lifetime, in seconds; negative if it is stale.
    pub(crate) ttl: Option<i64>,
    /// Whether the response was stored.
    pub(crate) stored: bool,
    /// Whether the request shared another one's answer instead of going to the origin itself.
    pub(crate) collapsed: bool,
    /// The key, if the cache shows keys.
    pub(crate) key: Option<&'a str>,
    /// A word for whoever debugs.
    pub(crate) detail: Option<&'a str>,
}

impl<'a> CacheStatus<'a> {
    /// A response from the store, without asking the origin.
    pub(crate) fn hit(name: &'a str) -> Self {
        Self {
            name,
            fwd: None,
            fwd_status: None,
            ttl: None,
            stored: false,
            collapsed: false,
            key: None,
            detail: None,
        }
    }

    /// A request that went to the origin.
    pub(crate) fn forwarded(name: &'a str, fwd: Fwd) -> Self {
        Self { fwd: Some(fwd), ..Self::hit(name) }
    }

    /// Adds itself after the members that caches nearer the origin have written.
    pub(crate) fn append_to(&self, headers: &mut HeaderMap) {
        if let Some(value) = self.to_value() {
            add(headers, CACHE_STATUS, value);
        }
    }

    /// The member, as a field value.
    pub(crate) fn to_value(self) -> Option<HeaderValue> {
        self.plain_hit().or_else(|| self.serialised())
    }

    /// A hit that says no more than its lifetime, which is what most answers say, written without
    /// the serialiser and its allocations.
    fn plain_hit(&self) -> Option<HeaderValue> {
        let Self { name, fwd: None, ttl: Some(ttl), key: None, detail: None, .. } = *self else {
            return None;
        };
        TokenRef::from_str(name).ok()?;
        let ttl = sf_integer(ttl);
        let mut room = [0_u8; 96];
        let mut left = &mut room[..];
        write!(left, "{name};hit;ttl={ttl}").ok()?;
        let unused = left.len();
        HeaderValue::from_bytes(&room[..room.len() - unused]).ok()
    }

    fn serialised(self) -> Option<HeaderValue> {
        let mut list = ListSerializer::new();
        let member = match (TokenRef::from_str(self.name), StringRef::from_str(self.name)) {
            (Ok(token), _) => list.bare_item(token),
            (_, Ok(string)) => list.bare_item(string),
            // A name that is no text at all; the layer's configuration refuses it.
            _ => list.bare_item(TokenRef::constant("cache")),
        };
        let mut member = match self.fwd {
            None => member.parameter(KeyRef::constant("hit"), true),
            Some(fwd) => {
                let token = TokenRef::from_str(fwd.as_str()).ok()?;
                member.parameter(KeyRef::constant("fwd"), token)
            }
        };
        if self.fwd.is_some() {
            if let Some(status) = self.fwd_status {
                let status = i64::from(status.as_u16());
                member = member.parameter(KeyRef::constant("fwd-status"), sf_integer(status));
            }
            if self.stored {
                member = member.parameter(KeyRef::constant("stored"), true);
            }
            if self.collapsed {
                member = member.parameter(KeyRef::constant("collapsed"), true);
            }
        }
        if let Some(ttl) = self.ttl {
            member = member.parameter(KeyRef::constant("ttl"), sf_integer(ttl));
        }
        for (name, text) in [("key", self.key), ("detail", self.detail)] {
            // What cannot be written as a string is left out; it is there for people only.
            if let Some(text) = text.and_then(|text| StringRef::from_str(text).ok()) {
                member = member.parameter(KeyRef::from_str(name).ok()?, text);
            }
        }
        let _written = member;
        HeaderValue::try_from(list.finish()?).ok()
    }
}

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The nearest integer that a structured field can hold.
fn sf_integer(value: i64) -> Integer {
    let limit = i64::from(Integer::MAX);
    Integer::try_from(value.clamp(-limit, limit)).unwrap_or(Integer::MAX)
}

#[cfg(test)]
mod tests;
