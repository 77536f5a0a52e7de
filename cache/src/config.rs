//! What can be set on a cache, and the rules each value must keep.

use std::time::Duration;

/// Settings of one cache.
///
/// Every lifetime is a bound: a copy in a layer lives the shortest of the value's own lifetime
/// ([`ttl`](Self::ttl) or the one given per call) and the lifetime of that layer.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct CacheConfig {
    /// Tells this cache from others in statistics, events and the shared layer. 1 to 64 bytes.
    ///
    /// Two caches on one shared store must not bear the same name, unless they are the same
    /// cache in two processes. Default: empty, which is refused, so that nobody forgets it.
    pub name: String,
    /// Lifetime of a value when the call gives none. Default: 5 min, the documented system's.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub ttl: Duration,
    /// The layer in the memory of this process.
    pub memory: Memory,
    /// Lifetime of a copy in the shared layer. Default: 1 min, the documented system's: without
    /// a message between processes, it bounds how long one may read what another removed.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub shared_ttl: Duration,
    /// Share of a lifetime, from 0 to 0.5, that is taken off at random, so that entries written
    /// together do not expire together. Never lengthens a lifetime. Default: 0.1, which spreads
    /// reloads over a tenth of the lifetime and costs 5 % of it on average.
    pub jitter: f64,
    /// Longest time a load may take before its callers get
    /// [`LoadError::TimedOut`](crate::LoadError::TimedOut) and its task is dropped.
    /// Default: 30 s, longer than any request should wait, so that only a hung source meets it.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub load_timeout: Duration,
    /// Longest encoded value that goes to the shared layer, in bytes; a longer one stays in
    /// memory only. Default: 1 MiB, as one larger answer delays all behind it on the connection.
    pub max_value_bytes: usize,
    /// Version of the value type's shape. Raise it whenever a field is added, removed or moved:
    /// the default codec writes no field names and cannot see it. Default: 0.
    pub schema_version: u32,
}

impl CacheConfig {
    /// The defaults under a name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// The first field whose value breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self {
            name,
            ttl,
            memory,
            shared_ttl,
            jitter,
            load_timeout,
            max_value_bytes,
            schema_version: _,
        } = self;
        check_name("name", name)?;
        check_duration("ttl", *ttl)?;
        check("memory.capacity", memory.capacity, memory.capacity > 0, "must be at least 1")?;
        check_duration("memory.ttl", memory.ttl)?;
        check_duration("shared_ttl", *shared_ttl)?;
        check("jitter", jitter, (0.0..=0.5).contains(jitter), "must be from 0 to 0.5")?;
        check_duration("load_timeout", *load_timeout)?;
        let fits = (1..=MAX_VALUE_BYTES).contains(max_value_bytes);
        check("max_value_bytes", max_value_bytes, fits, "must be from 1 to 536870912")
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            ttl: Duration::from_secs(5 * 60),
            memory: Memory::default(),
            shared_ttl: Duration::from_secs(60),
            jitter: 0.1,
            load_timeout: Duration::from_secs(30),
            max_value_bytes: 1024 * 1024,
            schema_version: 0,
        }
    }
}

impl From<&str> for CacheConfig {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for CacheConfig {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

/// Settings of the layer in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Memory {
    /// Most entries held; past it the least valuable leave. Default: 1,000, the documented
    /// system's: some megabytes of ordinary values.
    pub capacity: u64,
    /// Lifetime of a copy in memory. Default: 10 min, the documented system's.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub ttl: Duration,
}

impl Memory {
    /// Room for `capacity` entries, the other settings at their defaults.
    #[must_use]
    pub fn entries(capacity: u64) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// Sets the lifetime of a copy in memory.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { capacity: 1_000, ttl: Duration::from_secs(10 * 60) }
    }
}

/// A setting that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value}: {rule}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The field, with its path.
    pub field: &'static str,
    /// The value it had; never a secret.
    pub value: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

/// The longest bulk string Redis takes.
const MAX_VALUE_BYTES: usize = 512 * 1024 * 1024;

pub(crate) fn check(
    field: &'static str,
    value: impl std::fmt::Debug,
    keeps: bool,
    rule: &'static str,
) -> Result<(), ConfigError> {
    if keeps { Ok(()) } else { Err(ConfigError { field, value: format!("{value:?}"), rule }) }
}

pub(crate) fn check_duration(field: &'static str, value: Duration) -> Result<(), ConfigError> {
    check(field, value, !value.is_zero(), "must be longer than zero")
}

pub(crate) fn check_name(field: &'static str, value: &str) -> Result<(), ConfigError> {
    check(field, value, (1..=64).contains(&value.len()), "must be 1 to 64 bytes long")
}
