//! The `PURGE` method: who may, and what for.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use subtle::ConstantTimeEq;

use crate::config::{ConfigError, check};
use crate::http::key;

/// The key to the `PURGE` method of a layer.
///
/// A request with `Authorization: Bearer <token>` may then purge, within the tenant that the
/// layer's function finds for it:
/// - `PURGE /path?query`: every variant of the target;
/// - `PURGE /` with `Surrogate-Key: a b` or `Cache-Tag: a, b`: every response that has one of them.
///
/// `Purge-Mode: soft` makes them stale instead, so that they are revalidated and may still be
/// served where stale responses may. Answers: 200; 202 if the shared layer could not be reached
/// (this process is clear); 400 for a mode or keys that cannot be read; 403.
#[derive(Clone)]
pub struct PurgeConfig {
    token: Arc<[u8]>,
}

impl PurgeConfig {
    /// The token that a purge must bear.
    ///
    /// # Errors
    /// If it is shorter than 16 bytes, longer than 4,096, or holds what a header cannot.
    pub fn new(token: impl AsRef<str>) -> Result<Self, ConfigError> {
        let token = token.as_ref().as_bytes();
        let fits = (16..=4_096).contains(&token.len());
        let visible = token.iter().all(u8::is_ascii_graphic);
        let rule = "must be 16 to 4096 visible ASCII characters";
        // Its value is a secret, so the error shows its length alone.
        check("purge.token", Hidden(token.len()), fits && visible, rule)?;
        Ok(Self { token: token.into() })
    }

    /// Whether a request bears the token. The time it takes tells the token's length at most.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, token)) = value.as_bytes().split_at_checked(7) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(token.ct_eq(&self.token))
    }
}

impl fmt::Debug for PurgeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PurgeConfig").finish_non_exhaustive()
    }
}

struct Hidden(usize);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0)
    }
}

/// What a purge is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Purge {
    pub(crate) soft: bool,
    /// The surrogate keys; none if it is for the target.
    pub(crate) keys: Vec<String>,
}

impl Purge {
    /// Reads an authorised request.
    pub(crate) fn parse(headers: &HeaderMap) -> Result<Self, StatusCode> {
        let soft = match headers.get("purge-mode").map(HeaderValue::as_bytes) {
            None => false,
            Some(mode) if mode.eq_ignore_ascii_case(b"hard") => false,
            Some(mode) if mode.eq_ignore_ascii_case(b"soft") => true,
            Some(_) => return Err(StatusCode::BAD_REQUEST),
        };
        let keys = key::surrogate_keys(headers).ok_or(StatusCode::BAD_REQUEST)?;
        let names_keys =
            headers.contains_key(key::SURROGATE_KEY) || headers.contains_key(key::CACHE_TAG);
        // A purge of no key must not become one of the target.
        if names_keys && keys.is_empty() {
            return Err(StatusCode::BAD_REQUEST);
        }
        Ok(Self { soft, keys })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    #[test]
    fn only_the_bearer_of_the_token_is_admitted() {
        let config = PurgeConfig::new(TOKEN).unwrap();
        let admits = |value: &str| config.admits(&headers(&[("authorization", value)]));
        assert!(admits("Bearer 0123456789abcdef"));
        assert!(admits("bearer 0123456789abcdef"));
        assert!(!admits("Bearer 0123456789abcdeF"));
        assert!(!admits("Bearer 0123456789abcde"));
        assert!(!admits("Bearer "));
        assert!(!admits("Basic 0123456789abcdef"));
        assert!(!admits(""));
        assert!(!config.admits(&HeaderMap::new()));
        let twice = [("authorization", "Bearer 0123456789abcdef"); 2];
        assert!(!config.admits(&headers(&twice)), "one of two may be another's");
    }

    #[test]
    fn a_token_that_is_weak_or_no_header_is_refused_and_never_shown() {
        for token in ["", "short", "0123456789 abcdef", "0123456789abcdefü"] {
            let error = PurgeConfig::new(token).unwrap_err();
            assert_eq!(error.field, "purge.token");
            assert!(token.is_empty() || !error.to_string().contains(token));
        }
        assert!(!format!("{:?}", PurgeConfig::new(TOKEN).unwrap()).contains("0123"));
    }

    #[test]
    fn a_purge_is_hard_and_of_its_target_unless_it_says_otherwise() {
        let parse = |fields: &[(&'static str, &str)]| Purge::parse(&headers(fields));
        let purge = |soft, keys: &[&str]| Purge {
            soft,
            keys: keys.iter().map(|&key| key.to_owned()).collect(),
        };
        assert_eq!(parse(&[]), Ok(purge(false, &[])));
        assert_eq!(parse(&[("purge-mode", "Soft")]), Ok(purge(true, &[])));
        assert_eq!(parse(&[("surrogate-key", "a b")]), Ok(purge(false, &["a", "b"])));
        assert_eq!(parse(&[("cache-tag", "a, b")]), Ok(purge(false, &["a", "b"])));
        assert_eq!(parse(&[("surrogate-key", "  ")]), Err(StatusCode::BAD_REQUEST));
        assert_eq!(parse(&[("purge-mode", "gentle")]), Err(StatusCode::BAD_REQUEST));
    }
}
