//! Places in PostgreSQL's write-ahead log.

use std::fmt;
use std::str::FromStr;

/// A place in the write-ahead log (`pg_lsn`): how many bytes of it came before.
///
/// Two places can be compared only within one timeline; after a promotion the log of the new
/// primary and what the old one wrote since use the same numbers for different bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// The place after this many bytes.
    #[must_use]
    pub fn new(position: u64) -> Self {
        Self(position)
    }

    /// How many bytes came before.
    #[must_use]
    pub fn position(self) -> u64 {
        self.0
    }

    /// How many bytes this place is ahead of another; 0 if it is behind it.
    #[must_use]
    pub fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    /// Reads what the server writes: two hexadecimal numbers of one to eight digits and a slash.
    fn from_str(text: &str) -> Result<Self, ParseLsnError> {
        let (high, low) = text.split_once('/').ok_or(ParseLsnError)?;
        Ok(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

/// A text that is not a place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not two hexadecimal numbers of at most eight digits with a slash between them")]
pub struct ParseLsnError;

fn half(digits: &str) -> Result<u32, ParseLsnError> {
    // `from_str_radix` alone would take a sign and any number of leading zeros.
    let well_formed =
        (1..=8).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !well_formed {
        return Err(ParseLsnError);
    }
    u32::from_str_radix(digits, 16).map_err(|_| ParseLsnError)
}

#[cfg(test)]
mod tests;
