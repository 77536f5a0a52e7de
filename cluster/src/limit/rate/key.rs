//! What a key is made of, and how its parts reach a store: hashed for the memory of this process,
//! spelled out for one that others share.

#[cfg(feature = "redis")]
mod spell;

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

use ahash::{AHasher, RandomState};

/// Takes the parts of one key, in order.
///
/// A key never ends up in memory, a log or a label as it is. In this process it is a hash under a
/// seed nobody outside knows, so that no client can aim at another's bucket. For a store that
/// others share it is spelled out, without secrets and at bounded length.
pub struct KeyParts {
    sink: Sink,
}

enum Sink {
    Hash(AHasher),
    #[cfg(feature = "redis")]
    Spell(spell::Spelling),
}

/// A whole key, as its store wants it.
#[derive(Clone)]
pub(super) enum Key {
    Hash(u64),
    #[cfg(feature = "redis")]
    Text(String),
}

/// The kinds of parts. They are part of what is hashed or spelled: a tenant called `10.0.0.1` is
/// not the client of that address.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Secret,
    Address,
    Number,
}

impl KeyParts {
    #[inline]
    pub(super) fn hashed(state: &RandomState) -> Self {
        Self { sink: Sink::Hash(state.build_hasher()) }
    }

    #[cfg(feature = "redis")]
    pub(super) fn spelled(limit: &str) -> Self {
        Self { sink: Sink::Spell(spell::Spelling::new(limit)) }
    }

    /// Adds text that may be shown to operators: a tenant, a route, a method.
    pub fn text(&mut self, text: &str) {
        self.part(Kind::Text, text.as_bytes());
    }

    /// Adds what must not be shown: a token, an API key, a cookie. Only its hash is kept, SHA-256
    /// where others can read it.
    pub fn secret(&mut self, secret: &[u8]) {
        self.part(Kind::Secret, secret);
    }

    /// Adds an address. An IPv4 address in IPv6 clothes is the IPv4 address.
    #[inline]
    pub fn address(&mut self, address: IpAddr) {
        match &mut self.sink {
            Sink::Hash(hasher) => {
                // One form for both families: IPv4 in the range that maps it.
                let bits = match address {
                    IpAddr::V4(v4) => 0xFFFF_0000_0000 | u128::from(v4.to_bits()),
                    IpAddr::V6(v6) => v6.to_bits(),
                };
                hasher.write_u8(Kind::Address as u8);
                hasher.write_u128(bits);
            }
            #[cfg(feature = "redis")]
            Sink::Spell(spelling) => spelling.plain('a', &address.to_canonical()),
        }
    }

    /// Adds a number: the id of a tenant or a user.
    #[inline]
    pub fn number(&mut self, number: u64) {
        match &mut self.sink {
            Sink::Hash(hasher) => {
                hasher.write_u8(Kind::Number as u8);
                hasher.write_u64(number);
            }
            #[cfg(feature = "redis")]
            Sink::Spell(spelling) => spelling.plain('n', &number),
        }
    }

    #[inline]
    fn part(&mut self, kind: Kind, bytes: &[u8]) {
        match &mut self.sink {
            // The length keeps "ab" + "c" apart from "a" + "bc".
            Sink::Hash(hasher) => {
                hasher.write_u8(kind as u8);
                hasher.write_usize(bytes.len());
                hasher.write(bytes);
            }
            #[cfg(feature = "redis")]
            Sink::Spell(spelling) => match kind {
                Kind::Secret => spelling.digest('s', bytes),
                _ => spelling.escaped('t', bytes),
            },
        }
    }

    /// All parts as one.
    #[inline]
    pub(super) fn finish(&mut self) -> Key {
        match &mut self.sink {
            Sink::Hash(hasher) => Key::Hash(hasher.finish()),
            #[cfg(feature = "redis")]
            Sink::Spell(spelling) => Key::Text(spelling.take_text()),
        }
    }
}

impl fmt::Debug for KeyParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyParts").finish_non_exhaustive()
    }
}

/// What the direct calls of a [`RateLimiter`](crate::RateLimiter) take as a key.
///
/// Text counts as public, see [`KeyParts::text`]; wrap it in a type that calls
/// [`KeyParts::secret`] if it is a token.
pub trait RateKey {
    /// Hands over the parts, always the same ones in the same order for the same key.
    fn parts(&self, parts: &mut KeyParts);
}

impl RateKey for str {
    fn parts(&self, parts: &mut KeyParts) {
        parts.text(self);
    }
}

impl RateKey for String {
    fn parts(&self, parts: &mut KeyParts) {
        parts.text(self);
    }
}

impl RateKey for IpAddr {
    fn parts(&self, parts: &mut KeyParts) {
        parts.address(*self);
    }
}

impl RateKey for u64 {
    fn parts(&self, parts: &mut KeyParts) {
        parts.number(*self);
    }
}

impl<K: RateKey + ?Sized> RateKey for &K {
    fn parts(&self, parts: &mut KeyParts) {
        (**self).parts(parts);
    }
}

impl<A: RateKey, B: RateKey> RateKey for (A, B) {
    fn parts(&self, parts: &mut KeyParts) {
        self.0.parts(parts);
        self.1.parts(parts);
    }
}

#[cfg(test)]
mod tests;
