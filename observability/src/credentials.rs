//! User and password of the protected pages, kept as digests and compared in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::ConfigError;

/// An `Authorization` header longer than this is refused unread; user and password of 250
/// characters each still fit.
const MAX_HEADER: usize = 1_024;

/// The user and password that `/metrics`, `/dashboard` and the health details ask for.
///
/// Only SHA-256 digests are kept, so neither a core dump's strings nor `Debug` show the password,
/// and the comparison takes the same time wherever the texts differ.
#[derive(Clone)]
pub struct Credentials {
    user: [u8; 32],
    password: [u8; 32],
    defect: Option<(&'static str, &'static str)>,
}

impl Credentials {
    /// Both are needed by every protected page.
    ///
    /// A user that is empty or holds a colon cannot be sent by Basic authentication; the builder
    /// refuses it, as it refuses an empty password.
    #[must_use]
    pub fn new(user: impl AsRef<str>, password: impl AsRef<str>) -> Self {
        let (user, password) = (user.as_ref(), password.as_ref());
        let defect = if user.is_empty() || user.contains(':') {
            Some(("credentials.user", "must not be empty nor hold a colon"))
        } else if password.is_empty() {
            Some(("credentials.password", "must not be empty"))
        } else {
            None
        };
        Self {
            user: Sha256::digest(user.as_bytes()).into(),
            password: Sha256::digest(password.as_bytes()).into(),
            defect,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        match self.defect {
            Some((field, rule)) => Err(ConfigError::new(field, "(hidden)", rule)),
            None => Ok(()),
        }
    }

    /// Whether the request carries them. Absent, malformed and wrong ones are all `false`.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(given) = headers.get(header::AUTHORIZATION).and_then(|v| decode(v.as_bytes()))
        else {
            return false;
        };
        let colon = given.iter().position(|&b| b == b':').unwrap_or(given.len());
        let (user, password) = given.split_at(colon);
        let user: [u8; 32] = Sha256::digest(user).into();
        let password: [u8; 32] = Sha256::digest(password.get(1..).unwrap_or_default()).into();
        // Both are always compared: a short cut would tell a right user from a wrong one.
        (user.ct_eq(&self.user) & password.ct_eq(&self.password)).into()
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// `user:password` of a `Basic` header.
fn decode(header: &[u8]) -> Option<Vec<u8>> {
    if header.len() > MAX_HEADER {
        return None;
    }
    let (scheme, rest) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    STANDARD.decode(rest.trim_ascii()).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn admitted(header: &str) -> bool {
        let credentials = Credentials::new("ops", "s3:cret");
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(header).unwrap());
        credentials.admit(&headers)
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn only_the_exact_pair_is_admitted() {
        assert!(admitted(&basic("ops:s3:cret")), "a password may hold a colon");
        assert!(admitted(&basic("ops:s3:cret").replace("Basic", "bAsIc")));
        for wrong in ["ops:s3:cre", "ops:", "ops", "", ":", "op:s3:cret", "ops:s3:cret "] {
            assert!(!admitted(&basic(wrong)), "{wrong:?}");
        }
    }

    #[test]
    fn malformed_headers_are_refused() {
        for bad in ["", "Basic", "Basic ", "Basic !!!", "Bearer b3BzOnMzOmNyZXQ=", "Basicb3Bz"] {
            assert!(!admitted(bad), "{bad:?}");
        }
        assert!(!admitted(&format!("{}{}", basic("ops:s3:cret"), " ".repeat(2_000))));
        assert!(!Credentials::new("ops", "x").admit(&HeaderMap::new()));
    }

    #[test]
    fn neither_debug_nor_a_refusal_shows_the_secret() {
        assert_eq!(format!("{:?}", Credentials::new("ops", "secret")), "Credentials(..)");
        for (user, password) in [("o:ps", "secret"), ("", "secret"), ("secret", "")] {
            let error = Credentials::new(user, password).validate().expect_err("refused");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
