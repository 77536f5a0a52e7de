//! The engine that keeps jobs in this process: its settings.

use std::time::Duration;

use super::{Engine, sealed};
use crate::error::ConfigError;

/// Keeps jobs in the memory of this process: fastest, and **lost when the process ends**.
///
/// Four lanes of two rings (urgent and not) and a heap of delayed jobs, behind one lock that is
/// held for a push, a claim or a settlement, never across an await.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct MemoryEngine {
    /// Dead letters kept; the oldest is dropped, and counted, for a new one. Default 10,000, as
    /// many as a lane holds, so that one lane's worth of failures can be looked at and replayed.
    pub dead_letters: usize,
    /// How long an idempotency key is remembered, from the enqueue on. Default 1 h: longer than
    /// any client repeats a request, short enough to keep a busy hour in memory.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub key_lifetime: Duration,
    /// Idempotency keys remembered; the oldest is forgotten early, and counted, for a new one.
    /// Default 100,000: about 28 a second through the default lifetime, some 15 MB.
    pub key_capacity: usize,
}

impl Default for MemoryEngine {
    fn default() -> Self {
        Self {
            dead_letters: 10_000,
            key_lifetime: Duration::from_secs(3_600),
            key_capacity: 100_000,
        }
    }
}

impl MemoryEngine {
    /// Sets how many dead letters are kept.
    #[must_use]
    pub const fn dead_letters(mut self, letters: usize) -> Self {
        self.dead_letters = letters;
        self
    }

    /// Sets how long an idempotency key is remembered.
    #[must_use]
    pub const fn key_lifetime(mut self, lifetime: Duration) -> Self {
        self.key_lifetime = lifetime;
        self
    }

    /// Sets how many idempotency keys are remembered.
    #[must_use]
    pub const fn key_capacity(mut self, keys: usize) -> Self {
        self.key_capacity = keys;
        self
    }

    /// Checks every setting; the builder does it too.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        const POSITIVE: &str = "must be at least 1";
        let (letters, keys) = (self.dead_letters, self.key_capacity);
        ConfigError::check(letters > 0, "memory.dead_letters", letters, POSITIVE)?;
        ConfigError::check(keys > 0, "memory.key_capacity", keys, POSITIVE)?;
        ConfigError::check(
            !self.key_lifetime.is_zero(),
            "memory.key_lifetime",
            self.key_lifetime,
            "must be above zero",
        )
    }
}

impl Engine for MemoryEngine {}

impl sealed::Sealed for MemoryEngine {
    fn into_memory(self) -> Self {
        self
    }
}
