//! What is stored: whole responses, and the index of the variants of a target.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use serde::{Deserialize, Serialize};

use crate::http::engine::{StoredHead, UnixMs, vary};
use crate::http::key;

/// Most sets of `Vary` fields that the answers of one target may differ in; each costs a lookup.
const MAX_FIELD_SETS: usize = 8;

/// Version of the shape of stored responses: processes with another one share nothing. Raise it
/// with any change of a serialised type here or in the engine.
pub(crate) const SHAPE: u32 = 1;

/// What one header field or tag takes beside its text, roughly.
const FIELD: usize = 64;

/// A stored response, or the index of the variants of one target: the values of the cache under
/// an [`HttpCache`](crate::http::HttpCache). Clones share it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredResponse(Arc<Stored>);

#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are responses")]
pub(crate) enum Stored {
    Whole(Whole),
    Variants(Variants),
}

/// A response with its body.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Whole {
    pub(crate) head: StoredHead,
    pub(crate) body: Bytes,
    /// Its surrogate keys, as tags of the entry.
    pub(crate) tags: Vec<String>,
}

/// What stands under the key of a target whose answers have `Vary`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Variants {
    /// The request fields that select an answer, for each set of them that was seen, the last
    /// one seen first.
    #[serde(with = "names_form")]
    fields: Vec<Vec<HeaderName>>,
    /// The secondary keys, the last one stored last.
    keys: Vec<u128>,
    /// When the longest lived variant is gone.
    until: UnixMs,
}

impl StoredResponse {
    /// About how many bytes it takes, for the weigher of a cache that is bounded by them.
    #[must_use]
    pub fn weight(&self) -> usize {
        match &*self.0 {
            Stored::Whole(Whole { head, body, tags }) => {
                let fields = head.headers.iter();
                let fields: usize =
                    fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD).sum();
                let tags: usize = tags.iter().map(|tag| tag.len() + FIELD).sum();
                size_of::<Stored>() + body.len() + fields + tags
            }
            Stored::Variants(Variants { fields, keys, .. }) => {
                let names: usize = fields.iter().map(Vec::len).sum();
                size_of::<Stored>() + size_of_val(&**keys) + names * FIELD
            }
        }
    }

    pub(crate) fn whole(whole: Whole) -> Self {
        Self(Arc::new(Stored::Whole(whole)))
    }

    pub(crate) fn variants(variants: Variants) -> Self {
        Self(Arc::new(Stored::Variants(variants)))
    }

    /// Whether both are the same response, however each was read and whenever confirmed.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let same = |one: &Whole, other: &Whole| {
            let mut validators = [header::ETAG, header::LAST_MODIFIED].into_iter();
            one.head.status == other.head.status
                && validators
                    .all(|name| one.head.headers.get(&name) == other.head.headers.get(&name))
                && one.body == other.body
        };
        Arc::ptr_eq(&self.0, &other.0)
            || self.as_whole().zip(other.as_whole()).is_some_and(|(one, other)| same(one, other))
    }

    /// The response, unless this is an index.
    pub(crate) fn as_whole(&self) -> Option<&Whole> {
        match &*self.0 {
            Stored::Whole(whole) => Some(whole),
            Stored::Variants(_) => None,
        }
    }

    /// The index, unless this is a response.
    pub(crate) fn as_variants(&self) -> Option<&Variants> {
        match &*self.0 {
            Stored::Whole(_) => None,
            Stored::Variants(variants) => Some(variants),
        }
    }
}

/// No header value and no byte of the body: they may hold what a log must not.
impl fmt::Debug for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Whole")
            .field("head", &self.head)
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl Variants {
    /// Takes up a variant. Says whether that changed anything, and which variants leave so that
    /// at most `most` are left.
    pub(crate) fn add(
        &mut self,
        names: &[HeaderName],
        secondary: u128,
        until: UnixMs,
        most: usize,
    ) -> (bool, Vec<u128>) {
        let before = self.clone();
        if self.fields.first().is_none_or(|first| first != names) {
            self.fields.retain(|known| known != names);
            self.fields.insert(0, names.to_vec());
            self.fields.truncate(MAX_FIELD_SETS);
        }
        if !self.keys.contains(&secondary) {
            self.keys.push(secondary);
        }
        let crowd = self.keys.len().saturating_sub(most.max(1));
        let leave = self.keys.drain(..crowd).collect();
        self.until = self.until.max(until);
        (before != *self, leave)
    }

    pub(crate) fn until(&self) -> UnixMs {
        self.until
    }

    /// The keys under which an answer to a request with these headers may stand.
    pub(crate) fn candidates(
        &self,
        primary: &str,
        headers: &HeaderMap,
    ) -> impl Iterator<Item = String> {
        let secondary = |names: &Vec<HeaderName>| vary::secondary_key(names, headers);
        let known = |secondary: &u128| self.keys.contains(secondary);
        self.fields
            .iter()
            .take(MAX_FIELD_SETS)
            .map(secondary)
            .filter(known)
            .map(|key| key::variant(primary, key))
    }

    /// The keys of the last variants stored, as many as are worth a lookup each.
    pub(crate) fn latest(&self, primary: &str) -> impl Iterator<Item = String> {
        let latest = self.keys.iter().rev().take(MAX_FIELD_SETS);
        latest.map(|&secondary| key::variant(primary, secondary))
    }

    /// A key that requests with the same headers of interest share.
    pub(crate) fn flight_key(&self, primary: &str, headers: &HeaderMap) -> String {
        let mut names: Vec<HeaderName> = self.fields.iter().flatten().cloned().collect();
        names.sort_unstable_by(|one, two| one.as_str().cmp(two.as_str()));
        names.dedup();
        key::variant(primary, vary::secondary_key(&names, headers))
    }
}

/// Sets of header names as text.
mod names_form {
    use http::HeaderName;
    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::{Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(
        sets: &[Vec<HeaderName>],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let text = |set: &Vec<HeaderName>| set.iter().map(ToString::to_string).collect();
        sets.iter().map(text).collect::<Vec<Vec<String>>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Vec<HeaderName>>, D::Error> {
        let sets = Vec::<Vec<String>>::deserialize(from)?;
        let names = |set: &Vec<String>| set.iter().map(|name| name.parse()).collect();
        sets.iter().map(names).collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}
