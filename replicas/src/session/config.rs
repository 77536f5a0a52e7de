//! How tokens travel with requests and responses.

use std::time::Duration;

use http::HeaderName;

use super::{LONGEST_LIFE, TOKEN_LIFE};
use crate::ConfigError;

/// How a client carries its token, and for how long it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct SessionConfig {
    /// The cookie that browsers carry it in, `None` for no cookie. Default `escala_token`; with
    /// [`secure`](Self#structfield.secure), a name that starts with `__Host-` keeps other hosts of the
    /// domain from setting it. It is `HttpOnly`, `SameSite=Lax`, of path `/`, and lives as long as the
    /// token.
    pub cookie: Option<String>,
    /// The header that other clients carry it in: what a response holds, the next request sends
    /// back. Default none. With a cookie too, either is taken.
    pub header: Option<String>,
    /// From a write until it is taken to be on every replica. Default [`TOKEN_LIFE`], 30 s; an hour at
    /// most. The same on all processes that serve the same clients.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub life: Duration,
    /// The cookie travels by HTTPS only. Default true; without HTTPS browsers then drop it, other
    /// than from `localhost`.
    pub secure: bool,
    /// Responses say which node served the last read or write of the request, and why, in
    /// `x-escala-node` and `x-escala-reason`. Default false: it is nobody's business outside.
    pub explain: bool,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            cookie: Some("escala_token".to_owned()),
            header: None,
            life: TOKEN_LIFE,
            secure: true,
            explain: false,
        }
    }
}

impl SessionConfig {
    /// Sets the cookie's name.
    #[must_use]
    pub fn cookie(mut self, name: impl Into<String>) -> Self {
        self.cookie = Some(name.into());
        self
    }

    /// Uses no cookie.
    #[must_use]
    pub fn without_cookie(mut self) -> Self {
        self.cookie = None;
        self
    }

    /// Sets the header's name.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>) -> Self {
        self.header = Some(name.into());
        self
    }

    /// Sets [`life`](Self#structfield.life).
    #[must_use]
    pub fn life(mut self, life: Duration) -> Self {
        self.life = life;
        self
    }

    /// Sets [`secure`](Self#structfield.secure).
    #[must_use]
    pub fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Sets [`explain`](Self#structfield.explain).
    #[must_use]
    pub fn explain(mut self, explain: bool) -> Self {
        self.explain = explain;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.names()?;
        if self.life < Duration::from_secs(1) || self.life > LONGEST_LIFE {
            let rule = "be from 1 second to 1 hour";
            return Err(ConfigError::new("life", format!("{:?}", self.life), rule));
        }
        Ok(())
    }

    /// The cookie and the header.
    pub(super) fn names(&self) -> Result<(Option<String>, Option<HeaderName>), ConfigError> {
        if let Some(cookie) = &self.cookie
            && !is_token(cookie)
        {
            let rule = "be the name of a cookie: letters, digits, hyphens and the like";
            return Err(ConfigError::new("cookie", cookie, rule));
        }
        let header = self.header.as_ref().map(|name| {
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| ConfigError::new("header", name, "be the name of a header"))
        });
        let header = header.transpose()?;
        if self.cookie.is_none() && header.is_none() {
            let rule = "be named where there is no cookie: something has to carry the token";
            return Err(ConfigError::new("header", "none", rule));
        }
        if self.cookie.as_ref().is_some_and(|name| name.starts_with("__Host-")) && !self.secure {
            let rule = "be true for a cookie of that name, which browsers drop otherwise";
            return Err(ConfigError::new("secure", "false", rule));
        }
        Ok((self.cookie.clone(), header))
    }
}

/// RFC 9110's `token`, as RFC 6265 asks of a cookie's name.
fn is_token(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(allowed)
}
