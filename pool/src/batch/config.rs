//! The limits of a batcher.

use std::time::Duration;

use crate::config::{ConfigError, count, duration};

/// How large batches get, how many there are at a time, and how many may wait for the next.
///
/// ```
/// # use escala_pool::BatchConfig;
/// assert!(BatchConfig::new().max_batch(500).validate().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct BatchConfig {
    /// Keys (or writes) in one batch at most. Default 1,000 (documented): past that a longer batch
    /// saves little and keeps its first caller waiting for its last.
    pub max_batch: usize,
    /// Batches under way at a time. Without it, 2 for lookups: while the source works on one, the
    /// next is sent and the last is handed out, and a slow one does not stop the others. And 1 for
    /// writes, so that they keep their order and no two groups lock each other's rows.
    pub max_in_flight: Option<usize>,
    /// Lookups (or writes) that may wait for a batch; one more is rejected at once. Default 10,000,
    /// as for connections: ten batches.
    pub max_waiters: usize,
    /// Longest time for one batch, readiness of the source included. Default 10 s: a pool's
    /// acquire timeout and as long again for the statement.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub timeout: Duration,
}

impl BatchConfig {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the keys in one batch.
    #[must_use]
    pub fn max_batch(mut self, max_batch: usize) -> Self {
        self.max_batch = max_batch;
        self
    }

    /// Sets the batches under way at a time.
    #[must_use]
    pub fn max_in_flight(mut self, max_in_flight: usize) -> Self {
        self.max_in_flight = Some(max_in_flight);
        self
    }

    /// Sets the lookups that may wait.
    #[must_use]
    pub fn max_waiters(mut self, max_waiters: usize) -> Self {
        self.max_waiters = max_waiters;
        self
    }

    /// Sets the longest time for one batch.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Checks every limit.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        count("max_batch", self.max_batch)?;
        self.max_in_flight.map_or(Ok(()), |most| count("max_in_flight", most))?;
        count("max_waiters", self.max_waiters)?;
        duration("timeout", self.timeout)
    }
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            max_batch: 1_000,
            max_in_flight: None,
            max_waiters: 10_000,
            timeout: Duration::from_secs(10),
        }
    }
}
