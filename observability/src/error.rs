//! The one failure of this crate: a configuration that cannot be.

/// A setting that was refused: names the field, its value and the rule it breaks.
///
/// Secrets never appear in `value`; a refused credential shows as `(hidden)`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value} {rule}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The field, as spelled in [`ObservabilityConfig`](crate::ObservabilityConfig) or in the
    /// builder; a nested one with a dot, as in `thresholds.cpu`.
    pub field: &'static str,
    /// The value that was given.
    pub value: String,
    /// What it should be, worded so that it follows the value.
    pub rule: &'static str,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, value: impl Into<String>, rule: &'static str) -> Self {
        Self { field, value: value.into(), rule }
    }
}
