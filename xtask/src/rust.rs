//! Just enough of Rust's grammar for the tidy rules: which characters are code, which braces
//! belong together.
//!
//! A rule that searches raw text finds its own documentation and the fixtures of its tests, and
//! a brace inside a string ends a function too early. Both go away once comments and literals
//! are blanked.

use std::ops::Range;

/// The text with comments and the contents of string and character literals turned into blanks.
///
/// Line breaks stay, so line numbers agree with the original. The cost is one pass.
#[must_use]
pub fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let (end, keep) = token(&chars, at);
        out.extend(chars[at..end].iter().map(|&c| if keep || c == '\n' { c } else { ' ' }));
        at = end;
    }
    out
}

/// Where the token that starts at `at` ends, and whether it is code.
fn token(chars: &[char], at: usize) -> (usize, bool) {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => (line_end(chars, at), false),
        '/' if next == Some('*') => (block_comment_end(chars, at), false),
        '"' => (string_end(chars, at), false),
        '\'' => quote_end(chars, at).map_or((at + 1, true), |end| (end, false)),
        c if c.is_alphanumeric() || c == '_' => word_end(chars, at),
        _ => (at + 1, true),
    }
}

/// An identifier, or the raw string that an `r`, `br` or `cr` opens.
fn word_end(chars: &[char], at: usize) -> (usize, bool) {
    let end = end_while(chars, at, |c| c.is_alphanumeric() || c == '_');
    let word: String = chars[at..end].iter().collect();
    if !matches!(word.as_str(), "r" | "br" | "cr") {
        return (end, true);
    }
    let quote = end_while(chars, end, |c| c == '#');
    if chars.get(quote) != Some(&'"') {
        return (end, true); // `r#type` is an identifier.
    }
    let hashes = quote - end;
    let mut close = quote + 1;
    while close < chars.len() {
        let after = end_while(chars, close + 1, |c| c == '#');
        if chars[close] == '"' && after - close > hashes {
            return (close + 1 + hashes, false);
        }
        close += 1;
    }
    (chars.len(), false)
}

fn line_end(chars: &[char], at: usize) -> usize {
    end_while(chars, at, |c| c != '\n')
}

fn end_while(chars: &[char], at: usize, accept: impl Fn(char) -> bool) -> usize {
    at + chars.iter().skip(at).take_while(|&&c| accept(c)).count()
}

/// Block comments nest in Rust.
fn block_comment_end(chars: &[char], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut i = at;
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                i += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                i += 2;
                if depth == 0 {
                    return i;
                }
            }
            _ => i += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut i = at + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// The end of a character literal; `None` for a lifetime.
fn quote_end(chars: &[char], at: usize) -> Option<usize> {
    match (chars.get(at + 1)?, chars.get(at + 2)) {
        // `'\''` and `'\u{1f600}'`: the escaped character itself is never the end.
        ('\\', _) => {
            Some(end_while(chars, at + 3, |c| c != '\'') + 1).filter(|&e| e <= chars.len())
        }
        (_, Some('\'')) => Some(at + 3),
        _ => None,
    }
}

/// The bytes from the first `{` at or after `from` to the `}` that closes it, both included.
///
/// `code` must come from [`code_only`]. `None` if a `;` comes first (a declaration without a
/// body) or the braces do not match.
#[must_use]
pub fn block(code: &str, from: usize) -> Option<Range<usize>> {
    let mut depth = 0_usize;
    let mut nested = 0_usize;
    let mut open = None;
    for (offset, c) in code.get(from..)?.char_indices() {
        match c {
            // The `;` of `[u8; 4]` in a signature declares nothing.
            '(' | '[' => nested += 1,
            ')' | ']' => nested = nested.saturating_sub(1),
            ';' if open.is_none() && nested == 0 => return None,
            '{' => {
                open.get_or_insert(from + offset);
                depth += 1;
            }
            '}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(open?..from + offset + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// The line, counted from one, that holds the byte at `offset`.
#[must_use]
pub fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|&&b| b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(code_only(text), expected, "from {text:?}");
    }

    #[test]
    fn comments_become_blanks() {
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d */ e", "a                   e");
        check("/// x\n//! y\nz", "     \n     \nz");
    }

    #[test]
    fn literals_become_blanks() {
        check(r#"f("a}b")"#, "f(     )");
        check(r#"f("a\"}")"#, "f(      )");
        check("r#\"a\"b\"# c", "         c");
        check("'{' '\\'' '\\n' x", "              x");
        check("b\"}\" x", "b    x");
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        check("fn f<'a>(x: &'a str, y: &'a u8) {}", "fn f<'a>(x: &'a str, y: &'a u8) {}");
        check("r#type = r", "r#type = r");
        check("x / y", "x / y");
    }

    #[test]
    fn unclosed_tokens_end_with_the_text() {
        check("/* a", "    ");
        check("\"a", "  ");
        check("r\"a", "   ");
        check("'", "'");
    }

    #[test]
    fn line_breaks_survive_inside_literals_and_comments() {
        check("\"a\nb\" /*\n*/ x", "  \n     \n   x");
    }

    #[test]
    fn a_block_ends_at_its_own_brace() {
        let code = "fn a() { if b { c } } fn d() {}";
        assert_eq!(block(code, 0).map(|r| &code[r]), Some("{ if b { c } }"));
        assert_eq!(block("fn a(x: [u8; 2]) { x }", 0), Some(17..22));
        assert_eq!(block("fn a();\nfn b() {}", 0), None);
        assert_eq!(block("fn a() {", 0), None);
        assert_eq!(block("", 0), None);
    }

    #[test]
    fn lines_count_from_one() {
        assert_eq!(line_of("a\nb\nc", 0), 1);
        assert_eq!(line_of("a\nb\nc", 4), 3);
    }
}
