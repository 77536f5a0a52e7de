//! What can be taken away from a cache, in the form that layers and processes exchange.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::glob::Pattern;

/// A removal or expiry, as it travels to the shared layer and to other processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The value under the key with this text is never served again.
    RemoveKey(String),
    /// It is no longer fresh, and may be served only if the source fails.
    ExpireKey(String),
    /// As [`RemoveKey`](Self::RemoveKey), for every entry that bears the tag with this hash.
    RemoveTag(u64),
    /// As [`ExpireKey`](Self::ExpireKey), for every entry that bears the tag.
    ExpireTag(u64),
    /// Every key whose text matches.
    RemoveMatching(Pattern),
    /// Everything.
    Clear,
}

/// What stands for a tag. Two tags with one hash are removed together, which costs a load and
/// is never wrong.
pub(crate) fn tag_hash(tag: &str) -> u64 {
    xxh3_64_with_seed(tag.as_bytes(), u64::from_le_bytes(*b"the tags"))
}

/// What stands for a key where only its text is known. Never equal to a tag's by design.
pub(crate) fn key_hash(text: &str) -> u64 {
    xxh3_64_with_seed(text.as_bytes(), u64::from_le_bytes(*b"the keys"))
}

/// Who says so, and what: the body of a message between processes.
///
/// Reading is total: a body that is none of ours is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Random number of the cache handle that made the change.
    pub(crate) source: u64,
    pub(crate) change: Change,
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.source.to_le_bytes().to_vec();
        match &self.change {
            Change::RemoveKey(text) => push(&mut out, b'k', text.as_bytes()),
            Change::ExpireKey(text) => push(&mut out, b'e', text.as_bytes()),
            Change::RemoveTag(tag) => push(&mut out, b't', &tag.to_le_bytes()),
            Change::ExpireTag(tag) => push(&mut out, b'x', &tag.to_le_bytes()),
            Change::RemoveMatching(pattern) => push(&mut out, b'p', pattern.text().as_bytes()),
            Change::Clear => push(&mut out, b'c', &[]),
        }
        out
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let (source, rest) = body.split_first_chunk::<8>()?;
        let (kind, rest) = rest.split_first()?;
        let text = || std::str::from_utf8(rest).ok();
        let number = || Some(u64::from_le_bytes(rest.try_into().ok()?));
        let change = match kind {
            b'k' => Change::RemoveKey(text()?.to_owned()),
            b'e' => Change::ExpireKey(text()?.to_owned()),
            b't' => Change::RemoveTag(number()?),
            b'x' => Change::ExpireTag(number()?),
            b'p' => Change::RemoveMatching(Pattern::new(text()?)),
            b'c' if rest.is_empty() => Change::Clear,
            _ => return None,
        };
        Some(Self { source: u64::from_le_bytes(*source), change })
    }
}

fn push(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    out.push(kind);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_change_survives_the_way_to_another_process() {
        for change in [
            Change::RemoveKey("a:b".to_owned()),
            Change::ExpireKey("ü".to_owned()),
            Change::RemoveTag(7),
            Change::ExpireTag(u64::MAX),
            Change::RemoveMatching(Pattern::new(r"user:\*:[a-z]*")),
            Change::Clear,
        ] {
            let message = Message { source: 42, change };
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn a_key_and_a_tag_of_one_text_are_told_apart() {
        assert_ne!(key_hash("a"), tag_hash("a"));
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(message) = Message::decode(&body) {
                prop_assert_eq!(Message::decode(&message.encode()), Some(message));
            }
        }
    }
}
