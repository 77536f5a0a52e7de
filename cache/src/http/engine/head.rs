//! The head of a stored response, with everything a hit needs to know about it worked out.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::policy::Policy;
use super::time::{UnixMs, millis};
use super::validators::EntityTag;
use super::vary::VaryField;

/// A stored response without its body.
///
/// The facts beside the headers were computed when the response was stored or freshened, so that
/// a hit parses nothing. The serialised form keeps all values of repeated fields in order.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredHead {
    #[serde(with = "super::head::status_form")]
    pub(crate) status: StatusCode,
    /// What is sent on: no hop-by-hop fields, none that `no-cache` or `private` name, with `Date`.
    #[serde(with = "super::head::headers_form")]
    pub(crate) headers: HeaderMap,
    /// When the request that brought this response (or last freshened it) was sent.
    pub(crate) request_at: UnixMs,
    /// When its response arrived.
    pub(crate) response_at: UnixMs,
    /// The value of `Date`, in seconds since 1970.
    pub(crate) date: u64,
    /// The value of `Last-Modified`, in seconds since 1970, if it has a valid one.
    pub(crate) last_modified: Option<u64>,
    /// Freshness lifetime (RFC 9111 section 4.2.1), in milliseconds.
    pub(crate) lifetime_ms: u64,
    /// Age at `response_at` (`corrected_initial_age`, section 4.2.3), in milliseconds.
    pub(crate) initial_age_ms: u64,
    /// How long past its lifetime it may be served while it is fetched anew, in milliseconds.
    pub(crate) stale_while_revalidate_ms: u64,
    /// How long past its lifetime it may be served in place of an error, in milliseconds.
    pub(crate) stale_if_error_ms: u64,
    /// How long past its lifetime it may be served if the origin is unreachable, in milliseconds.
    pub(crate) stale_if_unreachable_ms: u64,
    /// `no-cache`: never used without asking the origin.
    pub(crate) no_cache: bool,
    /// `must-revalidate`, `proxy-revalidate`, `s-maxage` or `no-cache`: never served stale.
    pub(crate) never_stale: bool,
    /// `immutable`: while it is fresh, a client's reload is no reason to ask the origin.
    pub(crate) immutable: bool,
    /// The request fields that selected it, and their values (section 4.1).
    pub(crate) vary: Vec<VaryField>,
}

/// How long an entry of the store should live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    /// While it is fresh; zero if it always has to be validated.
    pub(crate) fresh: Duration,
    /// After that: while it may be served stale, or be revalidated.
    pub(crate) stale: Duration,
}

impl StoredHead {
    /// Its age now (`current_age`, RFC 9111 section 4.2.3), in milliseconds.
    pub(crate) fn age_ms(&self, now: UnixMs) -> u64 {
        self.initial_age_ms.saturating_add(now.since(self.response_at))
    }

    /// What is left of its lifetime, in milliseconds; negative or zero once it is stale.
    pub(crate) fn remaining_ms(&self, now: UnixMs) -> i64 {
        let lifetime = i64::try_from(self.lifetime_ms).unwrap_or(i64::MAX);
        lifetime.saturating_sub(i64::try_from(self.age_ms(now)).unwrap_or(i64::MAX))
    }

    /// What is left of its lifetime in seconds, rounded down, as `Cache-Status` has it.
    pub(crate) fn ttl_seconds(&self, now: UnixMs) -> i64 {
        self.remaining_ms(now).div_euclid(1000)
    }

    /// Whether a request selects it (RFC 9111 section 4.1). Allocates only if a value is written
    /// differently from the one that was stored.
    pub(crate) fn matches(&self, request: &HeaderMap) -> bool {
        self.vary.iter().all(|field| field.matches(request))
    }

    /// The names of the request fields that select it, for [`vary::secondary_key`].
    ///
    /// [`vary::secondary_key`]: super::vary::secondary_key
    pub(crate) fn vary_names(&self) -> Vec<HeaderName> {
        self.vary.iter().map(|field| field.name().clone()).collect()
    }

    /// Whether it could be served or validated at all; storing another one wastes space.
    pub(crate) fn is_useful(&self, now: UnixMs) -> bool {
        let stale = if self.never_stale { 0 } else { self.longest_stale_ms() };
        let stale = i64::try_from(stale).unwrap_or(i64::MAX);
        self.has_validator() || (!self.no_cache && self.remaining_ms(now).saturating_add(stale) > 0)
    }

    /// Whether it has an entity tag or a modification date to ask the origin about.
    pub(crate) fn has_validator(&self) -> bool {
        EntityTag::of(&self.headers).is_some() || self.last_modified.is_some()
    }

    /// How long the store should keep it from `now` on.
    pub(crate) fn retention(&self, policy: &Policy, now: UnixMs) -> Retention {
        let remaining = u64::try_from(self.remaining_ms(now)).unwrap_or(0);
        let fresh = if self.no_cache { 0 } else { remaining };
        let serve = if self.never_stale { 0 } else { self.longest_stale_ms() };
        let validate = if self.has_validator() { millis(policy.keep) } else { 0 };
        Retention {
            fresh: Duration::from_millis(fresh),
            stale: Duration::from_millis(serve.max(validate)),
        }
    }

    fn longest_stale_ms(&self) -> u64 {
        self.stale_while_revalidate_ms.max(self.stale_if_error_ms).max(self.stale_if_unreachable_ms)
    }
}

/// Names and numbers only: header values may hold what a log must not.
impl std::fmt::Debug for StoredHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredHead")
            .field("status", &self.status)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("response_at", &self.response_at)
            .field("lifetime_ms", &self.lifetime_ms)
            .field("initial_age_ms", &self.initial_age_ms)
            .field("no_cache", &self.no_cache)
            .field("never_stale", &self.never_stale)
            .field("vary", &self.vary)
            .finish_non_exhaustive()
    }
}

/// A status as its number.
mod status_form {
    use super::StatusCode;
    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u16(status.as_u16())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<StatusCode, D::Error> {
        StatusCode::from_u16(u16::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// Headers as a list of (name, value), in which a name stands once for each of its values.
mod headers_form {
    use super::{HeaderMap, HeaderName, HeaderValue};
    use bytes::Bytes;
    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::{SerializeSeq as _, Serializer};

    pub(super) fn serialize<S: Serializer>(headers: &HeaderMap, to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(Some(headers.len()))?;
        for (name, value) in headers {
            list.serialize_element(&(name.as_str(), serde_bytes_of(value)))?;
        }
        list.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<HeaderMap, D::Error> {
        let list = Vec::<(String, Bytes)>::deserialize(from)?;
        let mut headers = HeaderMap::with_capacity(list.len());
        for (name, value) in list {
            let name = name.parse::<HeaderName>().map_err(D::Error::custom)?;
            let value = HeaderValue::from_maybe_shared(value).map_err(D::Error::custom)?;
            if headers.try_append(name, value).is_err() {
                return Err(D::Error::custom("too many header fields"));
            }
        }
        Ok(headers)
    }

    fn serde_bytes_of(value: &HeaderValue) -> Bytes {
        Bytes::copy_from_slice(value.as_bytes())
    }
}

#[cfg(test)]
mod tests;
