//! What a limit does at its edges: no key, no room, no answer.

use super::Quota;
use crate::ConfigError;

/// More keys than this are a slip: they would take 4 GB.
const MOST_KEYS: usize = 100_000_000;

/// A limit: how much each key gets, and what happens where the quota alone does not say.
///
/// ```
/// use escala_cluster::{MissingKey, Quota, RateLimitConfig};
///
/// let config = RateLimitConfig::new(Quota::per_minute(600).burst(50))
///     .max_keys(1_000_000)
///     .missing_key(MissingKey::Skip);
/// config.validate()?;
/// # Ok::<(), escala_cluster::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct RateLimitConfig {
    /// What one key gets. There is no default: nobody but you knows what your service can take.
    pub quota: Quota,
    /// Keys that are kept in memory at most, 1 to 100,000,000. 100,000, which take 4 MB: more
    /// clients than one process serves while their buckets are not full again. A key takes 16 bytes
    /// and up to 27 more of free space.
    #[cfg_attr(feature = "serde", serde(default = "default_max_keys"))]
    pub max_keys: usize,
    /// What a new key gets when all keys kept are in use. [`Overflow::Share`], so that neither an
    /// attacker with many addresses nor everybody else is let through without limit or shut out.
    #[cfg_attr(feature = "serde", serde(default))]
    pub overflow: Overflow,
    /// What a request without a key gets. [`MissingKey::Share`], which holds in both cases: of the
    /// many requests without a key none is let through without limit, and of the few none is shut
    /// out.
    #[cfg_attr(feature = "serde", serde(default))]
    pub missing_key: MissingKey,
    /// What a request gets when a store outside this process cannot be asked.
    /// [`StoreFailure::Allow`]: a limit protects a service from too much, and the store being down
    /// is no sign of that.
    #[cfg_attr(feature = "serde", serde(default))]
    pub store_failure: StoreFailure,
    /// Counts what would be refused, and refuses nothing. Off. Switch it on to try a new quota on
    /// live traffic.
    #[cfg_attr(feature = "serde", serde(default))]
    pub shadow: bool,
}

/// What a new key gets when there is no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Overflow {
    /// It shares a bucket with the other keys without room, one in each of the parts the memory is
    /// divided into.
    #[default]
    Share,
    /// It is let through without being counted.
    Allow,
    /// It is refused.
    Reject,
}

/// What a request without a key gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum MissingKey {
    /// All of them are one key.
    #[default]
    Share,
    /// This limit does not apply to it. Right for a limit per tenant behind one per address.
    Skip,
    /// It is refused: status 400.
    Reject,
}

/// What a request gets when the store of a limit cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum StoreFailure {
    /// It is let through (fail open).
    #[default]
    Allow,
    /// It is refused (fail closed): status 503. Right where the limit is what holds off an attack,
    /// as at a login.
    Reject,
    /// Each process keeps to its share of the quota, in memory, until the store answers again.
    Local {
        /// Processes among which the quota is divided, at least 1. A share of a burst is rounded
        /// up to whole units.
        processes: u32,
    },
}

/// Which headers tell clients about the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum RateLimitHeaders {
    /// `RateLimit-Policy` and `RateLimit`, as draft-ietf-httpapi-ratelimit-headers-10 has them.
    #[default]
    Standard,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` (seconds until all is
    /// back), of the limit with the least left. For clients that read nothing else.
    Legacy,
    /// All five.
    Both,
    /// None. `Retry-After` is sent all the same.
    Off,
}

fn default_max_keys() -> usize {
    100_000
}

impl RateLimitConfig {
    /// A limit with the defaults around its quota.
    #[must_use]
    pub fn new(quota: Quota) -> Self {
        Self {
            quota,
            max_keys: default_max_keys(),
            overflow: Overflow::default(),
            missing_key: MissingKey::default(),
            store_failure: StoreFailure::default(),
            shadow: false,
        }
    }

    /// Sets [`quota`](Self#structfield.quota).
    #[must_use]
    pub fn quota(mut self, quota: Quota) -> Self {
        self.quota = quota;
        self
    }

    /// Sets [`max_keys`](Self#structfield.max_keys).
    #[must_use]
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Sets [`overflow`](Self#structfield.overflow).
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Sets [`missing_key`](Self#structfield.missing_key).
    #[must_use]
    pub fn missing_key(mut self, missing_key: MissingKey) -> Self {
        self.missing_key = missing_key;
        self
    }

    /// Sets [`store_failure`](Self#structfield.store_failure).
    #[must_use]
    pub fn store_failure(mut self, store_failure: StoreFailure) -> Self {
        self.store_failure = store_failure;
        self
    }

    /// Sets [`shadow`](Self#structfield.shadow).
    #[must_use]
    pub fn shadow(mut self, shadow: bool) -> Self {
        self.shadow = shadow;
        self
    }

    /// Checks every field. [`RateLimiter::new`](crate::RateLimiter::new) does it too.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.quota.validate()?;
        if !(1..=MOST_KEYS).contains(&self.max_keys) {
            let rule = "be between 1 and 100000000";
            return Err(ConfigError::new("max_keys", &self.max_keys, rule));
        }
        if self.store_failure == (StoreFailure::Local { processes: 0 }) {
            return Err(ConfigError::new("store_failure.local.processes", &0, "be at least 1"));
        }
        Ok(())
    }
}

impl From<Quota> for RateLimitConfig {
    fn from(quota: Quota) -> Self {
        Self::new(quota)
    }
}

/// A limit's name stands in headers and documents that clients read.
pub(super) fn validate_name(name: &str) -> Result<(), ConfigError> {
    let visible = name.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if visible && (1..=64).contains(&name.len()) {
        return Ok(());
    }
    let value = name.escape_debug().to_string();
    Err(ConfigError::new("name", &value, "be 1 to 64 visible characters of ASCII"))
}
