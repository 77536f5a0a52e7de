//! What is wrong with a file, by field, value and rule.

use std::fmt;

/// A setting of the file that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value:?}, but must {rule}")]
pub(super) struct SettingError {
    /// The field's path in the file, such as `routes[1].path`.
    pub(super) field: String,
    pub(super) value: String,
    /// What the field must do, continuing "must".
    pub(super) rule: String,
}

impl SettingError {
    pub(super) fn new(
        field: impl Into<String>,
        value: impl fmt::Display,
        rule: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), value: value.to_string(), rule: rule.into() }
    }

    /// A crate's own error about one of its fields, which lie below `table` in the file.
    pub(super) fn within(table: &str, error: &escala_replicas::ConfigError) -> Self {
        Self::new(format!("{table}.{}", error.field), &error.value, error.rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_a_sentence() {
        let error = SettingError::new("routes[1].path", "pdf", "begin with /");
        assert_eq!(error.to_string(), r#"routes[1].path is "pdf", but must begin with /"#);
    }
}
