//! The failures both halves of the crate share: a configuration that breaks its own rules.

use std::fmt::Display;

/// Any error that can travel between threads; what tower layers use among themselves.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A field of a configuration breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, but must {rule}")]
pub struct ConfigError {
    field: &'static str,
    value: String,
    rule: &'static str,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, value: &dyn Display, rule: &'static str) -> Self {
        Self { field, value: value.to_string(), rule }
    }

    /// The field, as it is spelled in the struct and in a file.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// The value that was refused.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What the value must be or do.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        self.rule
    }
}
