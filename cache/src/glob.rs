//! Patterns over key texts, with the meaning Redis gives them, so that both layers agree.

use std::borrow::Cow;

use crate::key::{CacheKey, push_part};

/// A glob over the text of keys.
///
/// `*` stands for any text, `?` for any one byte, `[abc]` and `[a-z]` for one byte of a set,
/// `[^abc]` for one byte outside it, and `\` takes the next byte as it is. This is what Redis
/// understands; ranges go by byte value, so keep them to ASCII. Matching costs at most
/// pattern length times key length, however hostile the pattern.
///
/// ```
/// use escala_cache::Pattern;
///
/// let pattern = Pattern::new("user:42:*");
/// assert!(pattern.matches("user:42:orders"));
/// assert!(!pattern.matches("user:421:orders"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// As it was written, for other processes.
    text: Box<str>,
    tokens: Vec<Token>,
}

impl Pattern {
    /// Reads a pattern. Every text is one: an unclosed set ends with the pattern, and a `\` at
    /// the very end is itself.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        let mut rest = pattern.as_bytes();
        let mut tokens = Vec::new();
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            match first {
                // Two stars say no more than one.
                b'*' if tokens.last() == Some(&Token::Star) => {}
                b'*' => tokens.push(Token::Star),
                b'?' => tokens.push(Token::Any),
                b'[' => {
                    let (set, tail) = Set::parse(rest);
                    rest = tail;
                    tokens.push(Token::Set(set));
                }
                b'\\' if !rest.is_empty() => {
                    tokens.push(Token::Byte(rest[0]));
                    rest = &rest[1..];
                }
                other => tokens.push(Token::Byte(other)),
            }
        }
        Self { text: pattern.into(), tokens }
    }

    /// The pattern as it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// `text` with every byte that means something to a pattern escaped.
    ///
    /// Use it for each part that comes from outside: a user named `*` must not empty the cache.
    ///
    /// ```
    /// use escala_cache::Pattern;
    ///
    /// let user = "*";
    /// let pattern = Pattern::new(&format!("user:{}:*", Pattern::escape(user)));
    /// assert!(!pattern.matches("user:42:orders"));
    /// ```
    #[must_use]
    pub fn escape(text: &str) -> Cow<'_, str> {
        let special = |c: char| c.is_ascii() && is_special(c as u8);
        if !text.contains(special) {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len() + 8);
        for character in text.chars() {
            if special(character) {
                out.push('\\');
            }
            out.push(character);
        }
        Cow::Owned(out)
    }

    /// The pattern of all keys that belong to `tenant`: the tuples whose first part it is, see
    /// [`CacheKey`].
    ///
    /// The name may come from outside and hold anything; it stands for itself alone.
    ///
    /// ```
    /// use escala_cache::{CacheKey, Pattern};
    ///
    /// let shop = Pattern::tenant("a:*");
    /// assert!(shop.matches(&("a:*", "orders", 42).text()));
    /// assert!(!shop.matches(&("a:b", "orders", 42).text()));
    /// assert!(!shop.matches(&("a", "*", 42).text()));
    /// ```
    #[must_use]
    pub fn tenant(tenant: &(impl CacheKey + ?Sized)) -> Self {
        let mut prefix = String::new();
        push_part(tenant, &mut prefix);
        prefix.push(':');
        Self::new(&[&*Self::escape(&prefix), "*"].concat())
    }

    /// Whether the whole of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (tokens, text) = (&self.tokens, text.as_bytes());
        let (mut token, mut byte) = (0, 0);
        // Where the last star stands and how much it has taken so far. Going back to it alone
        // is enough: an earlier star could only give what this one can take itself.
        let mut star: Option<(usize, usize)> = None;
        while byte < text.len() {
            match tokens.get(token) {
                Some(Token::Star) => {
                    star = Some((token, byte));
                    token += 1;
                }
                Some(one) if one.takes(text[byte]) => {
                    token += 1;
                    byte += 1;
                }
                _ => {
                    let Some((at, taken)) = star else { return false };
                    star = Some((at, taken + 1));
                    token = at + 1;
                    byte = taken + 1;
                }
            }
        }
        tokens[token..].iter().all(|rest| *rest == Token::Star)
    }

    /// The same pattern for Redis, behind a literal `prefix`.
    ///
    /// It may match more than [`matches`](Self::matches) does, never less: a set that Redis
    /// reads by signed bytes or by its own rules for brackets becomes `?`, and the caller
    /// checks each key once more.
    #[must_use]
    pub fn to_redis(&self, prefix: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(prefix.len() + self.tokens.len() + 8);
        prefix.bytes().for_each(|byte| push_literal(byte, &mut out));
        for token in &self.tokens {
            match token {
                Token::Star => out.push(b'*'),
                Token::Byte(byte) => push_literal(*byte, &mut out),
                Token::Set(set) if set.is_plain() => set.write(&mut out),
                Token::Any | Token::Set(_) => out.push(b'?'),
            }
        }
        out
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Star,
    Any,
    Byte(u8),
    Set(Set),
}

impl Token {
    /// Whether this token, which is no star, takes `byte`.
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Star => false,
            Self::Any => true,
            Self::Byte(own) => *own == byte,
            Self::Set(set) => set.takes(byte),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Set {
    negated: bool,
    ranges: Vec<(u8, u8)>,
}

impl Set {
    /// Reads what follows a `[` and returns the rest after the `]`.
    ///
    /// The order of the cases is Redis's: an escape first, then the closing bracket (so `[]`
    /// is the empty set), then a range (whose end may even be a bracket), then a single byte.
    fn parse(mut rest: &[u8]) -> (Self, &[u8]) {
        let negated = rest.first() == Some(&b'^');
        if negated {
            rest = &rest[1..];
        }
        let mut ranges = Vec::new();
        loop {
            match rest {
                [] => break,
                [b'\\', byte, tail @ ..] => {
                    ranges.push((*byte, *byte));
                    rest = tail;
                }
                [b']', tail @ ..] => {
                    rest = tail;
                    break;
                }
                [from, b'-', to, tail @ ..] => {
                    ranges.push((*from.min(to), *from.max(to)));
                    rest = tail;
                }
                [byte, tail @ ..] => {
                    ranges.push((*byte, *byte));
                    rest = tail;
                }
            }
        }
        (Self { negated, ranges }, rest)
    }

    fn takes(&self, byte: u8) -> bool {
        let inside = self.ranges.iter().any(|(from, to)| (*from..=*to).contains(&byte));
        inside != self.negated
    }

    /// Whether Redis reads this set, as [`write`](Self::write) spells it, exactly as we do.
    fn is_plain(&self) -> bool {
        self.ranges
            .iter()
            .all(|(from, to)| from.is_ascii_alphanumeric() && to.is_ascii_alphanumeric())
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        if self.negated {
            out.push(b'^');
        }
        for (from, to) in &self.ranges {
            out.extend_from_slice(&[*from, b'-', *to]);
        }
        out.push(b']');
    }
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[' | b']' | b'^' | b'-' | b'\\')
}

fn push_literal(byte: u8, out: &mut Vec<u8>) {
    if is_special(byte) {
        out.push(b'\\');
    }
    out.push(byte);
}

#[cfg(test)]
mod tests;
