//! A key as text for a store that others share: readable, without secrets, of bounded length.

use std::fmt::{Display, Write as _};

use sha2::{Digest, Sha256};

/// Text longer than this is replaced by its digest. Names of tenants and templates of routes are
/// shorter.
const LONGEST_TEXT: usize = 128;

/// Parts in a row, each `:`, a letter for its kind, `=` and its text. No text holds a `:`, so two
/// different rows never read the same.
#[derive(Debug)]
pub(super) struct Spelling {
    text: String,
}

impl Spelling {
    /// Begins with the name of the limit.
    pub(super) fn new(limit: &str) -> Self {
        let mut spelling = Self { text: String::with_capacity(64) };
        escape(&mut spelling.text, limit.as_bytes());
        spelling
    }

    pub(super) fn take_text(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// A number or an address. The colons of IPv6 become dashes, which no address has.
    pub(super) fn plain(&mut self, kind: char, value: &dyn Display) {
        self.begin(kind);
        for sign in value.to_string().chars() {
            self.text.push(if sign == ':' { '-' } else { sign });
        }
    }

    pub(super) fn escaped(&mut self, kind: char, bytes: &[u8]) {
        if bytes.len() > LONGEST_TEXT {
            return self.digest('h', bytes);
        }
        self.begin(kind);
        escape(&mut self.text, bytes);
    }

    /// The first 128 bits of SHA-256: enough that nobody finds two texts with the same.
    pub(super) fn digest(&mut self, kind: char, bytes: &[u8]) {
        self.begin(kind);
        for byte in &Sha256::digest(bytes)[..16] {
            let _ = write!(self.text, "{byte:02x}");
        }
    }

    fn begin(&mut self, kind: char) {
        self.text.push(':');
        self.text.push(kind);
        self.text.push('=');
    }
}

/// Everything but visible ASCII, and the two signs that have a meaning here, as `%XX`. Braces too:
/// they choose the slot in a Redis cluster.
fn escape(text: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        if byte.is_ascii_graphic() && !b":%{}".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
}
