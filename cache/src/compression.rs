//! Makes long values shorter for the shared layer.

use std::borrow::Cow;

use crate::config::ConfigError;
#[cfg(feature = "zstd")]
use crate::config::check;

/// Whether and how long values are compressed for the shared layer.
///
/// Changing it on a running system costs nothing: values are read however they were compressed,
/// as long as this build knows the algorithm. A value that compression would not shorten is
/// stored as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Compression {
    /// Not at all. The default: most values are short, and a short one takes longer to compress
    /// than the bytes saved take to travel.
    #[default]
    None,
    /// LZ4: fast. Five kilobytes of JSON shrink to 1.4 in 4 microseconds and grow back in 1.3.
    #[cfg(feature = "lz4")]
    Lz4 {
        /// Values longer than this are compressed, in encoded bytes.
        above: usize,
    },
    /// Zstandard: small. Five kilobytes of JSON shrink to 0.65 in 12 microseconds and grow back
    /// in 8.
    #[cfg(feature = "zstd")]
    Zstd {
        /// Values longer than this are compressed, in encoded bytes.
        above: usize,
        /// From 1, fast, to 22, small. Past 9 each write takes milliseconds.
        level: i32,
    },
}

impl Compression {
    /// LZ4 for values longer than 1 KiB. Below that, the answer of a shared store fits one
    /// packet as it is, and nothing is won.
    #[cfg(feature = "lz4")]
    #[must_use]
    pub const fn lz4() -> Self {
        Self::Lz4 { above: 1024 }
    }

    /// Zstandard at level 1 for values longer than 8 KiB. Higher levels won 4 % on JSON; and on
    /// a shorter value the time costs more than the bytes that it saves over LZ4.
    #[cfg(feature = "zstd")]
    #[must_use]
    pub const fn zstd() -> Self {
        Self::Zstd { above: 8 * 1024, level: 1 }
    }

    pub(crate) fn validate(self) -> Result<(), ConfigError> {
        match self {
            Self::None => Ok(()),
            #[cfg(feature = "lz4")]
            Self::Lz4 { .. } => Ok(()),
            #[cfg(feature = "zstd")]
            Self::Zstd { level, .. } => {
                let keeps = (1..=22).contains(&level);
                check("compression.level", level, keeps, "must be from 1 to 22")
            }
        }
    }

    /// Compresses what stands in `out` from `start`, if that makes it shorter, and says how.
    pub(crate) fn shrink(self, out: &mut Vec<u8>, start: usize) -> Algorithm {
        let plain = out.get(start..).unwrap_or_default();
        let packed: Option<(Algorithm, Vec<u8>)> = match self {
            Self::None => None,
            #[cfg(feature = "lz4")]
            Self::Lz4 { above } => {
                (plain.len() > above).then(|| (Algorithm::Lz4, lz4_flex::block::compress(plain)))
            }
            // A context per value, not one kept per thread: at a known length it is as small as
            // the value allows, and a kept one would hold megabytes on every thread for good.
            #[cfg(feature = "zstd")]
            Self::Zstd { above, level } => (plain.len() > above)
                .then(|| zstd::bulk::compress(plain, level).ok())
                .flatten()
                .map(|packed| (Algorithm::Zstd, packed)),
        };
        let Some((algorithm, packed)) = packed.filter(|(_, packed)| packed.len() < plain.len())
        else {
            return Algorithm::None;
        };
        out.truncate(start);
        out.extend_from_slice(&packed);
        algorithm
    }
}

/// How the bytes of one value were compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    None,
    #[cfg(feature = "lz4")]
    Lz4,
    #[cfg(feature = "zstd")]
    Zstd,
}

impl Algorithm {
    /// The number that stands in every frame.
    pub(crate) const fn id(self) -> u8 {
        match self {
            Self::None => 0,
            #[cfg(feature = "lz4")]
            Self::Lz4 => 1,
            #[cfg(feature = "zstd")]
            Self::Zstd => 2,
        }
    }

    /// The algorithm of that number, if this build knows it.
    pub(crate) const fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            #[cfg(feature = "lz4")]
            1 => Some(Self::Lz4),
            #[cfg(feature = "zstd")]
            2 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The `length` bytes that were compressed to these; nothing if they are not exactly as
    /// many. The caller has checked `length`: it is all that is ever allocated.
    pub(crate) fn grow(self, stored: &[u8], length: usize) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::None => (stored.len() == length).then_some(Cow::Borrowed(stored)),
            #[cfg(feature = "lz4")]
            Self::Lz4 => {
                // No input of LZ4 grows by more, so a larger claim is not worth the memory.
                if length / 256 > stored.len() {
                    return None;
                }
                let mut plain = vec![0; length];
                let written = lz4_flex::block::decompress_into(stored, &mut plain).ok()?;
                (written == length).then_some(Cow::Owned(plain))
            }
            #[cfg(feature = "zstd")]
            Self::Zstd => {
                let claimed = zstd::zstd_safe::get_frame_content_size(stored).ok()??;
                if claimed != length as u64 {
                    return None;
                }
                let mut plain = vec![0; length];
                let written = zstd::bulk::decompress_to_buffer(stored, &mut plain[..]).ok()?;
                (written == length).then_some(Cow::Owned(plain))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn every_algorithm() -> Vec<Algorithm> {
        (0..=u8::MAX).filter_map(Algorithm::from_id).collect()
    }

    #[cfg_attr(
        not(any(feature = "lz4", feature = "zstd")),
        expect(unused_variables, reason = "nothing is compressed in this build")
    )]
    fn every_compression(above: usize) -> Vec<Compression> {
        vec![
            Compression::None,
            #[cfg(feature = "lz4")]
            Compression::Lz4 { above },
            #[cfg(feature = "zstd")]
            Compression::Zstd { above, level: 1 },
        ]
    }

    #[test]
    fn the_number_of_an_algorithm_leads_back_to_it() {
        let compiled = 1 + usize::from(cfg!(feature = "lz4")) + usize::from(cfg!(feature = "zstd"));
        assert_eq!(every_algorithm().len(), compiled);
        for algorithm in every_algorithm() {
            assert_eq!(Algorithm::from_id(algorithm.id()), Some(algorithm));
        }
    }

    #[test]
    fn only_a_value_longer_than_the_bound_is_compressed() {
        for compression in every_compression(1_000) {
            for (length, expected) in [(0, false), (1_000, false), (1_001, true)] {
                let mut out = vec![b'a'; 10 + length];
                let algorithm = compression.shrink(&mut out, 10);
                let shrunk = expected && compression != Compression::None;
                assert_eq!(algorithm != Algorithm::None, shrunk, "{compression:?} {length}");
                assert_eq!(out.len() < 10 + length, shrunk);
                assert!(out.starts_with(&[b'a'; 10]));
                assert_eq!(
                    algorithm.grow(&out[10..], length).as_deref(),
                    Some(&*vec![b'a'; length])
                );
            }
        }
    }

    #[test]
    fn noise_is_stored_as_it_is() {
        let mut chance = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = std::iter::repeat_with(|| chance.u8(..)).take(5_000).collect();
        for compression in every_compression(0) {
            let mut out = noise.clone();
            assert_eq!(compression.shrink(&mut out, 0), Algorithm::None);
            assert_eq!(out, noise);
        }
    }

    #[test]
    fn a_bomb_fills_no_more_than_the_length_it_claims() {
        for compression in every_compression(0) {
            let mut bomb = vec![0; LIMIT];
            let algorithm = compression.shrink(&mut bomb, 0);
            if algorithm == Algorithm::None {
                continue;
            }
            assert!(bomb.len() < LIMIT / 100, "{algorithm:?}: {}", bomb.len());
            for claimed in [0, 1, 1_000, LIMIT - 1, LIMIT + 1] {
                assert_eq!(algorithm.grow(&bomb, claimed), None, "{algorithm:?} {claimed}");
            }
            // So much cannot be allocated at all: the claim is refused by what it stands on.
            assert_eq!(algorithm.grow(&bomb, usize::MAX), None);
            assert_eq!(algorithm.grow(b"short", usize::MAX), None);
        }
    }

    #[cfg(feature = "zstd")]
    #[test]
    fn a_level_that_does_not_exist_is_refused_by_name() {
        for (level, keeps) in [(0, false), (1, true), (22, true), (23, false), (-1, false)] {
            let checked = Compression::Zstd { above: 0, level }.validate();
            assert_eq!(checked.is_ok(), keeps, "{level}");
            assert!(checked.err().is_none_or(|error| error.field == "compression.level"));
        }
        assert!(Compression::zstd().validate().is_ok());
    }

    proptest! {
        #[test]
        fn what_was_shrunk_grows_back(
            piece in proptest::collection::vec(any::<u8>(), 1..40),
            times in 1_usize..200,
        ) {
            let plain = piece.repeat(times);
            for compression in every_compression(0) {
                let mut out = plain.clone();
                let algorithm = compression.shrink(&mut out, 0);
                prop_assert!(out.len() <= plain.len());
                let grown = algorithm.grow(&out, plain.len());
                prop_assert_eq!(grown.as_deref(), Some(&*plain));
            }
        }

        #[test]
        fn any_bytes_grow_to_the_claimed_length_or_not_at_all(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            length in 0_usize..5_000,
        ) {
            for algorithm in every_algorithm() {
                if let Some(plain) = algorithm.grow(&bytes, length) {
                    prop_assert_eq!(plain.len(), length);
                }
            }
        }
    }
}
