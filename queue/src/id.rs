//! The name of a job: unique without asking anybody, and ordered by time of creation.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Identifies a job. A UUID of version 7, written in the usual hyphenated form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(u128);

impl JobId {
    /// A new id from the wall clock and the thread's random generator.
    pub(crate) fn generate() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_parts(since_epoch.as_millis(), fastrand::u128(..))
    }

    /// RFC 9562 section 5.7: 48 bits of milliseconds, version, 12 random bits, variant, 62 more.
    const fn from_parts(milliseconds: u128, random: u128) -> Self {
        const VERSION: u128 = 0x7 << 76;
        const VARIANT: u128 = 0b10 << 62;
        const RANDOM: u128 = !((u128::MAX << 80) | (0xf << 76) | (0b11 << 62));
        Self((milliseconds << 80) | VERSION | VARIANT | (random & RANDOM))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.0;
        let group = |shift: u32, digits: u32| (id >> shift) & ((1 << (digits * 4)) - 1);
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            group(96, 8),
            group(80, 4),
            group(64, 4),
            group(48, 4),
            group(0, 12)
        )
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for JobId {
    type Err = ParseJobIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        let mut id = 0_u128;
        if bytes.len() != 36 {
            return Err(ParseJobIdError(()));
        }
        for (position, byte) in bytes.iter().enumerate() {
            if matches!(position, 8 | 13 | 18 | 23) {
                if *byte != b'-' {
                    return Err(ParseJobIdError(()));
                }
            } else {
                let digit = char::from(*byte).to_digit(16).ok_or(ParseJobIdError(()))?;
                id = (id << 4) | u128::from(digit);
            }
        }
        Ok(Self(id))
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// The text is not a job id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a job id: expected 32 hexadecimal digits in groups of 8-4-4-4-12")]
pub struct ParseJobIdError(());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_version_seven_uuid_and_reads_back() {
        let id = JobId::from_parts(0x0123_4567_89ab, u128::MAX);
        assert_eq!(id.to_string(), "01234567-89ab-7fff-bfff-ffffffffffff");
        assert_eq!(id.to_string().parse(), Ok(id));
        let zero = JobId::from_parts(0, 0);
        assert_eq!(zero.to_string(), "00000000-0000-7000-8000-000000000000");
    }

    #[test]
    fn ids_differ_and_other_texts_are_refused() {
        assert_ne!(JobId::generate(), JobId::generate());
        let id = JobId::generate().to_string();
        for wrong in ["", "7", &id[1..], &id.replace('-', "x"), &id.replace(&id[..1], "g")] {
            assert!(wrong.parse::<JobId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_later_id_sorts_after_an_earlier_one() {
        assert!(JobId::from_parts(1, u128::MAX) < JobId::from_parts(2, 0));
    }
}
