//! Makes names and label values safe for the Prometheus text format.

use std::borrow::Cow;

/// Longest label value and name, in bytes: a route or a node name fits, a stray document does not.
pub(crate) const MAX_LABEL: usize = 128;

/// A label value without backslashes and control characters, at most [`MAX_LABEL`] bytes.
///
/// Backslashes go because exporters differ in escaping them: `a\` and `a\\` have been seen to
/// come out the same, which makes two series one.
pub(crate) fn value(text: &str) -> Cow<'_, str> {
    let bad = |c: char| c == '\\' || c.is_control();
    if text.len() <= MAX_LABEL && !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    let mut clean: String = text.chars().filter(|&c| !bad(c)).collect();
    clean.truncate(clean.floor_char_boundary(MAX_LABEL));
    Cow::Owned(clean)
}

/// A metric or label name: letters, digits and underscores, not beginning with a digit.
pub(crate) fn name(text: &str) -> Cow<'_, str> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts_well && text.len() <= MAX_LABEL && text.chars().all(good) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 1);
    if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        clean.push('_');
    }
    clean.extend(text.chars().take(MAX_LABEL).map(|c| if good(c) { c } else { '_' }));
    clean.truncate(MAX_LABEL);
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_lose_what_could_break_the_format() {
        assert_eq!(value("/users/{id}"), "/users/{id}");
        assert_eq!(value("a\\\nb\t\"c\""), "ab\"c\"");
        assert_eq!(value(&"é".repeat(100)).len(), 128);
    }

    #[test]
    fn names_become_legal() {
        assert_eq!(name("wait_seconds_total"), "wait_seconds_total");
        assert_eq!(name("hit ratio (%)"), "hit_ratio____");
        assert_eq!(name("2xx"), "_2xx");
        assert_eq!(name(""), "_");
    }

    proptest! {
        #[test]
        fn every_name_is_legal(text in ".{0,200}") {
            let clean = name(&text);
            prop_assert!(!clean.is_empty() && clean.len() <= MAX_LABEL);
            prop_assert!(clean.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'));
            prop_assert!(clean.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
        }

        #[test]
        fn every_value_is_short_and_plain(text in any::<String>()) {
            let clean = value(&text);
            prop_assert!(clean.len() <= MAX_LABEL);
            prop_assert!(!clean.contains(|c: char| c == '\\' || c.is_control()));
        }
    }
}
