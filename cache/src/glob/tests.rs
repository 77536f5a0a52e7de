//! Patterns against a table, against the algorithm of Redis, and their own rewriting.

use proptest::prelude::*;

use super::*;

fn check(pattern: &str, text: &str, expected: bool) {
    assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern:?} on {text:?}");
}

#[test]
fn patterns_mean_what_redis_says() {
    check("user:42:*", "user:42:orders", true);
    check("user:42:*", "user:42:", true);
    check("user:42:*", "user:421:x", false);
    check("*", "", true);
    check("*", "anything", true);
    check("", "", true);
    check("", "a", false);
    check("h?llo", "hallo", true);
    check("h?llo", "hllo", false);
    check("h[ae]llo", "hello", true);
    check("h[^e]llo", "hello", false);
    check("h[a-b]llo", "hbllo", true);
    check("h[b-a]llo", "hallo", true);
    check(r"\*", "*", true);
    check(r"\*", "x", false);
    check(r"a\", r"a\", true);
    check("[abc", "b", true);
    check("[]", "]", false);
    check("[^]", "x", true);
    check(r"[\]]", "]", true);
    check("a*b*c", "aXbYbZc", true);
    check("a*b*c", "aXbYbZ", false);
    check("**a", "aaa", true);
    check("?", "é", false);
    check("??", "é", true);
}

#[test]
fn a_hostile_pattern_costs_length_times_length() {
    let pattern = Pattern::new(&"a*".repeat(500));
    assert!(!pattern.matches(&format!("{}b", "a".repeat(400))));
}

/// Redis 7.0 `stringmatchlen_impl`, its signed bytes left out, written as plainly as it goes.
fn redis(pattern: &[u8], text: &[u8]) -> bool {
    let mut pattern = pattern;
    let mut text = text;
    while !pattern.is_empty() && !text.is_empty() {
        match pattern[0] {
            b'*' => {
                while pattern.get(1) == Some(&b'*') {
                    pattern = &pattern[1..];
                }
                return pattern.len() == 1
                    || (0..text.len()).any(|skip| redis(&pattern[1..], &text[skip..]));
            }
            b'?' => pattern = &pattern[1..],
            b'[' => {
                pattern = &pattern[1..];
                let not = pattern.first() == Some(&b'^');
                if not {
                    pattern = &pattern[1..];
                }
                let mut matched = false;
                loop {
                    if pattern.len() >= 2 && pattern[0] == b'\\' {
                        matched |= pattern[1] == text[0];
                        pattern = &pattern[2..];
                    } else if pattern.is_empty() {
                        break;
                    } else if pattern[0] == b']' {
                        pattern = &pattern[1..];
                        break;
                    } else if pattern.len() >= 3 && pattern[1] == b'-' {
                        let (low, high) = (pattern[0].min(pattern[2]), pattern[0].max(pattern[2]));
                        matched |= (low..=high).contains(&text[0]);
                        pattern = &pattern[3..];
                    } else {
                        matched |= pattern[0] == text[0];
                        pattern = &pattern[1..];
                    }
                }
                if matched == not {
                    return false;
                }
            }
            other => {
                let escaped = other == b'\\' && pattern.len() >= 2;
                let literal = if escaped { pattern[1] } else { other };
                if literal != text[0] {
                    return false;
                }
                pattern = &pattern[1 + usize::from(escaped)..];
            }
        }
        text = &text[1..];
        if text.is_empty() {
            while pattern.first() == Some(&b'*') {
                pattern = &pattern[1..];
            }
            break;
        }
    }
    pattern.is_empty() && text.is_empty()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    // The text is never empty: behind the prefix of a cache, no key is.
    #[test]
    fn our_matcher_agrees_with_the_algorithm_of_redis(
        pattern in r"[ab*?\[\]\\^-]{0,10}",
        text in r"k[ab*?\[\]\\^-]{0,8}",
    ) {
        let pattern = format!("k{pattern}");
        prop_assert_eq!(Pattern::new(&pattern).matches(&text), redis(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn what_goes_to_redis_matches_at_least_what_we_match(
        prefix in r"[a*?\[\]\\^-]{1,4}",
        pattern in r"[abé*?\[\]\\^-]{0,10}",
        text in r"[abé*?\[\]\\^-]{0,8}",
    ) {
        let own = Pattern::new(&pattern);
        let key = format!("{prefix}{text}");
        if own.matches(&text) {
            prop_assert!(redis(&own.to_redis(&prefix), key.as_bytes()));
        }
        if !key.starts_with(&prefix) {
            prop_assert!(!redis(&own.to_redis(&prefix), key.as_bytes()));
        }
    }

    #[test]
    fn an_escaped_text_matches_itself_and_nothing_else(text in ".{0,8}", other in ".{0,8}") {
        let pattern = Pattern::new(&Pattern::escape(&text));
        prop_assert!(pattern.matches(&text));
        prop_assert_eq!(pattern.matches(&other), text == other);
    }

    #[test]
    fn redis_reads_the_pattern_of_a_tenant_as_we_do(
        tenant in r"[ab:%é*?\[\]\\^-]{0,4}",
        other in r"[ab:%é*?\[\]\\^-]{0,4}",
        rest in r"[ab:*]{0,4}",
    ) {
        let pattern = Pattern::tenant(&tenant).to_redis("2:c*:");
        for (owner, owned) in [(&tenant, true), (&other, tenant == other)] {
            let key = format!("2:c*:{}", (owner, &rest).text());
            prop_assert_eq!(redis(&pattern, key.as_bytes()), owned);
        }
    }
}
