//! Tokens in the headers of requests and responses.

use std::time::{Duration, SystemTime};

use http::header::{CACHE_CONTROL, COOKIE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};

use super::config::SessionConfig;
use super::keys::{Keys, TokenError};
use super::token::Token;
use crate::ConfigError;

/// A browser may send several cookies of one name, for different paths; more are somebody's play.
const CANDIDATES: usize = 4;

/// Finds tokens in requests and puts them into responses.
#[derive(Debug)]
pub(super) struct Carrier {
    keys: Keys,
    cookie: Option<String>,
    header: Option<HeaderName>,
    life: Duration,
    secure: bool,
}

impl Carrier {
    pub(super) fn new(keys: Keys, config: &SessionConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        let (cookie, header) = config.names()?;
        Ok(Self { keys, cookie, header, life: config.life, secure: config.secure })
    }

    pub(super) fn life(&self) -> Duration {
        self.life
    }

    /// The texts of a request that stand where a token would.
    pub(super) fn texts<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        let in_header = self.header.iter().flat_map(|name| headers.get_all(name));
        let cookies = |name: &'a String| {
            let cookies = headers.get_all(COOKIE).into_iter();
            cookies.flat_map(|line| cookies_named(line.as_bytes(), name.as_bytes()))
        };
        let in_cookies = self.cookie.iter().flat_map(cookies);
        in_header.map(HeaderValue::as_bytes).chain(in_cookies).take(CANDIDATES)
    }

    pub(super) fn open(&self, text: &[u8], now: SystemTime) -> Result<Token, TokenError> {
        self.keys.open(text, self.life, now)
    }

    /// Hands a token to the client. A response that carries one is for this client alone.
    pub(super) fn hand_out(&self, token: &Token, headers: &mut HeaderMap) {
        let text = self.keys.seal(token);
        if let Some(name) = &self.cookie {
            let secure = if self.secure { "; Secure" } else { "" };
            let life = self.life.as_millis().div_ceil(1_000);
            let cookie =
                format!("{name}={text}; Max-Age={life}; Path=/; HttpOnly; SameSite=Lax{secure}");
            if let Ok(cookie) = HeaderValue::try_from(cookie) {
                headers.append(SET_COOKIE, cookie);
            }
        }
        if let Some(name) = &self.header
            && let Ok(text) = HeaderValue::try_from(text)
        {
            headers.insert(name, text);
        }
        if !is_for_one_client(headers) {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }
}

fn cookies_named<'a>(cookies: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    cookies.split(|byte| *byte == b';').filter_map(move |cookie| {
        let value = cookie.trim_ascii().strip_prefix(name)?.strip_prefix(b"=")?;
        // RFC 6265 lets a value stand in quotes.
        Some(value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value))
    })
}

/// Whether no shared cache may keep the response, as its `Cache-Control` has it already.
fn is_for_one_client(headers: &HeaderMap) -> bool {
    headers.get_all(CACHE_CONTROL).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|directive| {
            // `private="field"` covers the named fields alone, so it does not count.
            let directive = directive.trim_ascii();
            directive.eq_ignore_ascii_case(b"no-store")
                || directive.eq_ignore_ascii_case(b"private")
        })
    })
}
