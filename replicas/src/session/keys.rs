//! Tokens as text that a client carries and can neither make nor read.

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::token::{PAYLOAD, Token};
use crate::ConfigError;

type HmacSha256 = Hmac<Sha256>;

/// A text starts with it; another layout gets another number.
const VERSION: u8 = 1;
/// Half of an HMAC-SHA-256, which RFC 2104 allows: the rest would only lengthen every request.
const TAG: usize = 16;
const SEALED: usize = 1 + TAG + PAYLOAD;
/// A text has exactly this many bytes, so nothing longer is ever looked at.
pub const TOKEN_TEXT_LEN: usize = (SEALED * 4).div_ceil(3);
/// The strength of the hash; shorter secrets are passwords.
const MIN_SECRET: usize = 32;
/// One in use, one on its way in and one on its way out would do.
const MAX_KEYS: usize = 8;

/// The secrets by which tokens are sealed and opened. All processes that serve the same clients need
/// the same ones.
///
/// # What is secret
/// A sealed token is authentic: a client cannot make one, nor change one, so it cannot have its
/// reads sent to the primary for longer than the life of a token that it was given. And it is
/// confidential: the difference of two positions is how much *everybody* wrote in between, which is
/// nobody's business. What it tells is that its bearer caused a write, at the time it was handed out.
///
/// It is no credential. It names no user, opens nothing, and whoever steals one gets fresher reads.
///
/// # How
/// HMAC-SHA-256 over version and content, cut to 128 bits; the content is masked by another
/// HMAC-SHA-256 of that tag (a synthetic initialisation vector, as in RFC 5297, so there is no nonce
/// that could be used twice). Both keys are derived from the secret. Tags are compared in constant
/// time.
#[derive(Clone)]
pub struct Keys {
    /// The first one seals.
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    tag: HmacSha256,
    mask: HmacSha256,
}

impl Keys {
    /// One secret of at least 32 random bytes, for example by `openssl rand 32`.
    ///
    /// # Errors
    /// It is shorter.
    pub fn new(secret: &[u8]) -> Result<Self, ConfigError> {
        Ok(Self { keys: vec![Key::derive(secret)?] })
    }

    /// Also opens what this secret sealed; it seals nothing. To change secrets while several
    /// processes run, first add the new one so on all of them, then put it first, and remove the old
    /// one when the tokens it sealed have expired.
    ///
    /// # Errors
    /// The secret has fewer than 32 bytes; there are eight already.
    pub fn and(mut self, secret: &[u8]) -> Result<Self, ConfigError> {
        if self.keys.len() == MAX_KEYS {
            let rule = "be at most 8: each costs time on every token that none opens";
            return Err(ConfigError::new("token secrets", (MAX_KEYS + 1).to_string(), rule));
        }
        self.keys.push(Key::derive(secret)?);
        Ok(self)
    }

    /// The token as [`TOKEN_TEXT_LEN`] characters that stand unescaped in a cookie, a header and a
    /// URL.
    #[must_use]
    pub fn seal(&self, token: &Token) -> String {
        let mut sealed = [VERSION; SEALED];
        if let Some(key) = self.keys.first() {
            let mut payload = token.to_payload();
            let tag = key.tag(&payload);
            key.mask(&tag, &mut payload);
            sealed[1..=TAG].copy_from_slice(&tag);
            sealed[1 + TAG..].copy_from_slice(&payload);
        }
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// The token in a text that one of the secrets sealed, if some of its life is left.
    ///
    /// # Errors
    /// Anything else, whatever the bytes are.
    pub fn open(&self, text: &[u8], life: Duration, now: SystemTime) -> Result<Token, TokenError> {
        let mut sealed = [0; SEALED];
        if text.len() != TOKEN_TEXT_LEN {
            return Err(TokenError::Malformed);
        }
        let decoded = URL_SAFE_NO_PAD.decode_slice(text, &mut sealed);
        if decoded != Ok(SEALED) {
            return Err(TokenError::Malformed);
        }
        let [version, sealed @ ..] = sealed;
        if version != VERSION {
            return Err(TokenError::Version);
        }
        let (tag, masked) = sealed.split_at(TAG);
        let payload = self.keys.iter().find_map(|key| {
            let mut payload = [0; PAYLOAD];
            payload.copy_from_slice(masked);
            key.mask(tag, &mut payload);
            key.verify(tag, &payload).then_some(payload)
        });
        let token = Token::from_payload(payload.ok_or(TokenError::Forged)?);
        token.remaining(life, now).map(|_| token).ok_or(TokenError::Expired)
    }
}

impl Key {
    fn derive(secret: &[u8]) -> Result<Self, ConfigError> {
        if secret.len() < MIN_SECRET {
            // Its length, not the secret.
            let value = format!("{} bytes", secret.len());
            return Err(ConfigError::new("token secret", value, "have at least 32 bytes"));
        }
        // So that a secret that something else uses too is of no help there, nor here.
        let of =
            |purpose: &[u8]| keyed(&keyed(secret).chain_update(purpose).finalize().into_bytes());
        Ok(Self { tag: of(b"escala token v1 tag"), mask: of(b"escala token v1 mask") })
    }

    fn mac(&self, payload: &[u8; PAYLOAD]) -> HmacSha256 {
        self.tag.clone().chain_update([VERSION]).chain_update(payload)
    }

    fn tag(&self, payload: &[u8; PAYLOAD]) -> [u8; TAG] {
        let mut tag = [0; TAG];
        tag.copy_from_slice(&self.mac(payload).finalize().into_bytes()[..TAG]);
        tag
    }

    fn verify(&self, tag: &[u8], payload: &[u8; PAYLOAD]) -> bool {
        self.mac(payload).verify_truncated_left(tag).is_ok()
    }

    /// Its own inverse.
    fn mask(&self, tag: &[u8], payload: &mut [u8; PAYLOAD]) {
        let stream = self.mask.clone().chain_update(tag).finalize().into_bytes();
        for (byte, mask) in payload.iter_mut().zip(stream) {
            *byte ^= mask;
        }
    }
}

fn keyed(secret: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(secret).expect("HMAC takes a key of any length")
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("count", &self.keys.len()).finish_non_exhaustive()
    }
}

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It has not the form of one.
    #[error("the token is malformed")]
    Malformed,
    /// It has a layout that this version does not know.
    #[error("the token is of another version")]
    Version,
    /// None of the secrets sealed it, or not as it is now.
    #[error("the token is forged, or of a secret that is not in use")]
    Forged,
    /// It was good, and its time is up.
    #[error("the token has expired")]
    Expired,
}
