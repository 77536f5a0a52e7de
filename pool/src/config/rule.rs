//! What every setting must fulfil, and the error of one that does not.

use std::time::Duration;

/// The resolution of tokio's timer.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);
/// No duration of a configuration is longer, so that no deadline computed from one overflows.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A setting that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value}: {rule}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The field of the configuration.
    pub field: &'static str,
    /// The value that was refused; never a secret.
    pub value: String,
    /// What the value must fulfil.
    pub rule: &'static str,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, value: impl Into<String>, rule: &'static str) -> Self {
        Self { field, value: value.into(), rule }
    }
}

/// As [`duration`], where zero and nothing mean "never".
pub(super) fn optional(field: &'static str, value: Option<Duration>) -> Result<(), ConfigError> {
    some(value).map_or(Ok(()), |value| duration(field, value))
}

/// Files of some formats cannot say `None`, so zero means it too.
pub(crate) fn some(value: Option<Duration>) -> Option<Duration> {
    value.filter(|value| !value.is_zero())
}

/// Refuses zero and what no machine could hold.
pub(crate) fn count(field: &'static str, value: usize) -> Result<(), ConfigError> {
    if (1..=100_000).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::new(field, value.to_string(), "must be between 1 and 100000"))
}

/// Refuses what would fail every call, and what overflows a clock.
pub(crate) fn duration(field: &'static str, value: Duration) -> Result<(), ConfigError> {
    if (SHORTEST..=LONGEST).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::new(field, format!("{value:?}"), "must be between 1 ms and 365 days"))
}
