//! How many circuits a registry keeps, and for how long.

use std::time::Duration;

use crate::{BreakerConfig, ConfigError};

/// No time is longer than a day, as in [`BreakerConfig`].
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What a [`BreakerRegistry`](crate::BreakerRegistry) keeps.
///
/// ```
/// use std::time::Duration;
/// use escala_cluster::{BreakerConfig, RegistryConfig};
///
/// let breaker = BreakerConfig::default().consecutive_failures(3);
/// let config = RegistryConfig::default().breaker(breaker).max_keys(500);
/// config.validate()?;
/// # Ok::<(), escala_cluster::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RegistryConfig {
    /// What each circuit counts, unless the registry was made with an override for its key.
    pub breaker: BreakerConfig,
    /// Circuits kept at most, 1 to 1,000,000. 10,000: as many tenants or hosts as one process is
    /// likely to serve within minutes, in a few tens of megabytes.
    pub max_keys: u32,
    /// A circuit without a call for this long is forgotten, unless it is open or in its ramp, was
    /// moved by hand, or has a call under way. 10 minutes: ten times the longest open time, so that a backend
    /// that fails whenever it is tried keeps its long open times.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub idle_after: Duration,
    /// What a call meets whose key finds no room.
    pub overflow: KeyOverflow,
    /// Circuits that are not closed and that the statistics name, 0 to 100; the others are only
    /// counted. 20: a page of them, and a bound on the series a scrape can make. They are others in
    /// each scrape, and whoever stores them keeps them all: zero where clients choose the keys.
    pub named_keys: u32,
}

/// What a call meets whose key finds no room, because every circuit kept is in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum KeyOverflow {
    /// It goes through, and is counted. The default: the keys that do not fit have nothing in
    /// common, so whoever floods the registry with failing keys must not close the way for others.
    #[default]
    Unguarded,
    /// All such calls share one circuit. For keys that lead to one backend in the end.
    Shared,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            breaker: BreakerConfig::default(),
            max_keys: 10_000,
            idle_after: Duration::from_secs(10 * 60),
            overflow: KeyOverflow::default(),
            named_keys: 20,
        }
    }
}

impl RegistryConfig {
    /// Sets [`breaker`](Self#structfield.breaker).
    #[must_use]
    pub fn breaker(mut self, config: BreakerConfig) -> Self {
        self.breaker = config;
        self
    }

    /// Sets [`max_keys`](Self#structfield.max_keys).
    #[must_use]
    pub fn max_keys(mut self, keys: u32) -> Self {
        self.max_keys = keys;
        self
    }

    /// Sets [`idle_after`](Self#structfield.idle_after).
    #[must_use]
    pub fn idle_after(mut self, time: Duration) -> Self {
        self.idle_after = time;
        self
    }

    /// Sets [`overflow`](Self#structfield.overflow).
    #[must_use]
    pub fn overflow(mut self, overflow: KeyOverflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Sets [`named_keys`](Self#structfield.named_keys).
    #[must_use]
    pub fn named_keys(mut self, keys: u32) -> Self {
        self.named_keys = keys;
        self
    }

    /// Checks every field, those of [`breaker`](Self#structfield.breaker) included.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.breaker.validate()?;
        if !(1..=1_000_000).contains(&self.max_keys) {
            return Err(ConfigError::new("max_keys", &self.max_keys, "be between 1 and 1000000"));
        }
        if self.idle_after.is_zero() || self.idle_after > LONGEST {
            let rule = "be longer than zero and at most 24 hours";
            return Err(ConfigError::new("idle_after", &format!("{:?}", self.idle_after), rule));
        }
        if self.named_keys > 100 {
            return Err(ConfigError::new("named_keys", &self.named_keys, "be at most 100"));
        }
        Ok(())
    }
}
