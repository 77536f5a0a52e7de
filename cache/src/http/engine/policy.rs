//! What a shared cache is free to choose, each choice by itself.

use std::time::Duration;

use http::HeaderName;

use crate::config::{ConfigError, check};

/// The choices of a shared cache.
///
/// No choice here lets the cache break a MUST of RFC 9111. [`safe`](Self::safe), the default, is
/// for an application's own answers: nothing is stored that the application did not plainly mean
/// to share, and clients cannot make the cache ask the application. [`rfc`](Self::rfc) is for a
/// proxy: all that a shared cache may do, it does.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Policy {
    /// Lifetime of a response that names none, if its status is a success, a permanent redirect
    /// or 410. Default: `None`, as only the application knows what may be old. Set it only where the
    /// answer does not depend on who asks: a response without `Vary: Cookie` is everybody's.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub default_ttl: Option<Duration>,
    /// The same for 404, 405, 414 and 501. Default: `None`; keep it short, as what is missing now
    /// may be there soon.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub negative_ttl: Option<Duration>,
    /// Lifetime that wins over the one a response names, for the statuses of
    /// [`default_ttl`](Self::default_ttl). It never wins over `no-store`, `private` or `no-cache`.
    /// Default: `None`.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub forced_ttl: Option<Duration>,
    /// No response is fresh for longer. Default: `None`, as the origin knows best.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub max_ttl: Option<Duration>,
    /// Share of the time since `Last-Modified`, in percent, for which a response without any
    /// lifetime counts as fresh; 0 turns heuristics off. Default: 0 (`rfc`: 10, RFC 9111's
    /// example).
    pub heuristic_percent: u8,
    /// No heuristic lifetime is longer. Default: 24 h, RFC 9111's former bound for a warning.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub heuristic_max: Duration,
    /// The targeted fields this cache obeys, the first valid one in this order (RFC 9213).
    /// Default: `cdn-cache-control`.
    #[cfg_attr(feature = "serde", serde(with = "names"))]
    pub targeted: Vec<HeaderName>,
    /// Whether a response with `Set-Cookie` is stored if its lifetime is explicit. Default: no, as
    /// one user's session would be every user's (`rfc`: yes).
    pub store_set_cookie: bool,
    /// Which answers to requests with `Authorization` are stored. Default: those marked `public`
    /// (`rfc`: also `s-maxage` and `must-revalidate`, as RFC 9111 section 3.5 has it).
    pub store_authorized: Authorized,
    /// Whether 401, 403, 5xx and statuses nobody registered are stored if their lifetime is
    /// explicit. Default: no, as middleware that marks every answer would make one failure last
    /// (`rfc`: yes).
    pub store_errors: bool,
    /// Whether an answer to `POST` with an explicit lifetime and a `Content-Location` equal to its
    /// target is stored for later `GET`s. Default: no (`rfc`: yes).
    pub store_post: bool,
    /// Whether a request's `no-cache` (and `Pragma: no-cache` without `Cache-Control`) makes the
    /// cache ask the origin. Default: no, as anyone could load it so (`rfc`: yes).
    pub honour_no_cache: bool,
    /// Whether a request's `max-age` and `min-fresh` do the same. Default: no (`rfc`: yes).
    pub honour_max_age: bool,
    /// Whether a request's `max-stale` (and `stale-if-error`) lets it have a stale response.
    /// Default: yes; it only spares the origin.
    pub honour_max_stale: bool,
    /// Whether a request's `only-if-cached` gets 504 instead of the origin's answer. Default: yes.
    pub honour_only_if_cached: bool,
    /// Whether the answer to a request with `no-store` is kept out of the store. Default: yes.
    pub honour_no_store: bool,
    /// How long past its lifetime a response that does not say `stale-while-revalidate` is served
    /// while it is fetched anew. Default: zero, as RFC 5861 has it.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub stale_while_revalidate: Duration,
    /// How long past its lifetime a response that does not say `stale-if-error` is served when the
    /// origin answers 500, 502, 503 or 504. Default: zero, as RFC 5861 has it (`rfc`: 1 day, since
    /// RFC 9111 section 4.3.3 lets a cache take a failed validation for no answer at all).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub stale_if_error: Duration,
    /// How long past its lifetime a response is served when the origin cannot be reached at all
    /// (RFC 9111 section 4.2.4). Default: zero (`rfc`: 1 day).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub stale_if_unreachable: Duration,
    /// How long a stale response with a validator is kept so that it can be revalidated. Default:
    /// 1 h.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub keep: Duration,
    /// Whether a request that no variant matches asks the origin with the entity tags of the
    /// others, so that a 304 can choose one. Default: no (`rfc`: yes).
    pub validate_other_variants: bool,
    /// Most variants kept under one key. Default: 32: languages times encodings, not users.
    pub max_variants: usize,
    /// Most ranges answered in one response; a request with more gets the whole. Default: 16, as
    /// many small parts cost more than the whole.
    pub max_ranges: usize,
}

/// Which answers to requests with `Authorization` may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Authorized {
    /// None.
    Never,
    /// Those marked `public`.
    Public,
    /// Those marked `public`, `s-maxage` or `must-revalidate` (RFC 9111 section 3.5).
    Explicit,
}

impl Policy {
    /// The choices for an application's own answers; see the fields' defaults.
    #[must_use]
    pub fn safe() -> Self {
        Self {
            default_ttl: None,
            negative_ttl: None,
            forced_ttl: None,
            max_ttl: None,
            heuristic_percent: 0,
            heuristic_max: DAY,
            targeted: vec![HeaderName::from_static("cdn-cache-control")],
            store_set_cookie: false,
            store_authorized: Authorized::Public,
            store_errors: false,
            store_post: false,
            honour_no_cache: false,
            honour_max_age: false,
            honour_max_stale: true,
            honour_only_if_cached: true,
            honour_no_store: true,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            stale_if_unreachable: Duration::ZERO,
            keep: Duration::from_secs(60 * 60),
            validate_other_variants: false,
            max_variants: 32,
            max_ranges: 16,
        }
    }

    /// All that a shared cache may do, for a proxy; see the fields' defaults.
    #[must_use]
    pub fn rfc() -> Self {
        Self {
            heuristic_percent: 10,
            store_set_cookie: true,
            store_authorized: Authorized::Explicit,
            store_errors: true,
            store_post: true,
            honour_no_cache: true,
            honour_max_age: true,
            stale_if_error: DAY,
            stale_if_unreachable: DAY,
            validate_other_variants: true,
            ..Self::safe()
        }
    }
}

/// The choices most often made, in chains.
impl Policy {
    /// Sets the lifetime of successes that name none.
    #[must_use]
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = Some(ttl);
        self
    }

    /// Sets the lifetime of 404, 405, 414 and 501 that name none.
    #[must_use]
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = Some(ttl);
        self
    }

    /// Sets the lifetime that wins over what a response names.
    #[must_use]
    pub fn forced_ttl(mut self, ttl: Duration) -> Self {
        self.forced_ttl = Some(ttl);
        self
    }

    /// Sets the longest lifetime.
    #[must_use]
    pub fn max_ttl(mut self, ttl: Duration) -> Self {
        self.max_ttl = Some(ttl);
        self
    }

    /// Sets how long a stale response is served while it is fetched anew, if it does not say.
    #[must_use]
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = window;
        self
    }

    /// Sets how long a stale response is served in place of an error and of no answer at all, if
    /// it does not say.
    #[must_use]
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.stale_if_error = window;
        self.stale_if_unreachable = window;
        self
    }

    /// Sets the targeted fields this cache obeys, the first valid one winning.
    #[must_use]
    pub fn targeted(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.targeted = names.into_iter().collect();
        self
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// The first field whose value breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, ttl) in [
            ("default_ttl", self.default_ttl),
            ("negative_ttl", self.negative_ttl),
            ("forced_ttl", self.forced_ttl),
            ("max_ttl", self.max_ttl),
        ] {
            let keeps = ttl.is_none_or(|ttl| !ttl.is_zero());
            check(field, ttl, keeps, "must be longer than zero, or left out")?;
        }
        let percent = self.heuristic_percent;
        check("heuristic_percent", percent, percent <= 100, "must be from 0 to 100")?;
        check("max_variants", self.max_variants, self.max_variants > 0, "must be at least 1")
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::safe()
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Header names as text.
#[cfg(feature = "serde")]
mod names {
    use http::HeaderName;
    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::{SerializeSeq as _, Serializer};

    pub(super) fn serialize<S: Serializer>(
        names: &[HeaderName],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(names.len()))?;
        for name in names {
            list.serialize_element(name.as_str())?;
        }
        list.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<HeaderName>, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names.iter().map(|name| name.parse().map_err(D::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_profiles_keep_the_rules_and_a_broken_one_is_named() {
        assert_eq!(Policy::safe().validate(), Ok(()));
        assert_eq!(Policy::rfc().validate(), Ok(()));
        let field = |policy: Policy| policy.validate().unwrap_err().field;
        assert_eq!(field(Policy::safe().default_ttl(Duration::ZERO)), "default_ttl");
        assert_eq!(field(Policy { heuristic_percent: 101, ..Policy::rfc() }), "heuristic_percent");
        assert_eq!(field(Policy { max_variants: 0, ..Policy::rfc() }), "max_variants");
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_policy_survives_its_file_form() {
        let policy = Policy::rfc().default_ttl(Duration::from_secs(600));
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy);
        assert!(serde_json::from_str::<Policy>(r#"{"targeted": ["a b"]}"#).is_err());
        assert!(serde_json::from_str::<Policy>(r#"{"default_tll": "5s"}"#).is_err());
    }
}
