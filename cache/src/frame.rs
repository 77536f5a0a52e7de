//! The bytes of one value in the shared layer: a checked header and the encoded value.
//!
//! Reading is total: whatever stands in the store, [`decode`] says why it cannot be used and the
//! cache treats it as absent. Little-endian throughout:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic `escC` |
//! | 1 | frame version |
//! | 1 | codec |
//! | 2 | flags, zero |
//! | 8 | schema of the value |
//! | 8 | created, milliseconds since 1970: when the load began |
//! | 8 | expires, milliseconds since 1970 |
//! | 4 | length of the value |
//! | 8 | checksum over the key, everything above and the value |
//! | n | value |

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Raised with every change of the layout; it also stands in every key, so that old and new
/// processes of a rolling deployment never read each other's frames.
pub(crate) const VERSION: u8 = 1;

const MAGIC: [u8; 4] = *b"escC";
const CHECKED: usize = 36;
/// Bytes before the value.
pub(crate) const HEADER: usize = CHECKED + 8;

/// What a frame says about its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) codec: u8,
    pub(crate) schema: u64,
    pub(crate) created_ms: u64,
    pub(crate) expires_ms: u64,
}

/// Why bytes are no frame of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    Short,
    Magic,
    Version,
    Codec,
    Schema,
    Flags,
    Length,
    Checksum,
}

/// Builds the frame of `value`; `None` when it is longer than a frame can say.
pub(crate) fn encode(key: &str, meta: Meta, value: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(value.len()).ok()?;
    let mut out = Vec::with_capacity(HEADER + value.len());
    out.extend_from_slice(&MAGIC);
    out.push(VERSION);
    out.push(meta.codec);
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&meta.schema.to_le_bytes());
    out.extend_from_slice(&meta.created_ms.to_le_bytes());
    out.extend_from_slice(&meta.expires_ms.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    let sum = checksum(key, &out, value);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(value);
    Some(out)
}

/// Reads a frame that was written for `key` with this codec and schema.
pub(crate) fn decode<'a>(
    key: &str,
    codec: u8,
    schema: u64,
    bytes: &'a [u8],
) -> Result<(Meta, &'a [u8]), Mismatch> {
    let (header, value) = bytes.split_at_checked(HEADER).ok_or(Mismatch::Short)?;
    let (checked, sum) = header.split_at(CHECKED);
    if checked[..4] != MAGIC {
        return Err(Mismatch::Magic);
    }
    if checked[4] != VERSION {
        return Err(Mismatch::Version);
    }
    if checked[5] != codec {
        return Err(Mismatch::Codec);
    }
    if checked[6..8] != [0, 0] {
        return Err(Mismatch::Flags);
    }
    let meta = Meta {
        codec,
        schema: number(&checked[8..16]),
        created_ms: number(&checked[16..24]),
        expires_ms: number(&checked[24..32]),
    };
    if meta.schema != schema {
        return Err(Mismatch::Schema);
    }
    if number(&checked[32..36]) != value.len() as u64 {
        return Err(Mismatch::Length);
    }
    if number(sum) != checksum(key, checked, value) {
        return Err(Mismatch::Checksum);
    }
    Ok((meta, value))
}

/// The key takes part, so that a frame copied to another key is refused there.
fn checksum(key: &str, header: &[u8], value: &[u8]) -> u64 {
    let seed = xxh3_64_with_seed(header, xxh3_64(key.as_bytes()));
    xxh3_64_with_seed(value, seed)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const META: Meta = Meta { codec: 1, schema: 7, created_ms: 1_000, expires_ms: 2_000 };

    fn frame() -> Vec<u8> {
        encode("key", META, b"value").unwrap()
    }

    #[test]
    fn the_layout_of_version_one_never_changes() {
        let golden = "65736343010100000700000000000000\
                      e803000000000000d007000000000000\
                      05000000caa1b0d4bae8692b76616c7565";
        let hex: String = frame().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
    }

    #[test]
    fn a_frame_comes_back_as_it_was_written() {
        assert_eq!(decode("key", 1, 7, &frame()), Ok((META, &b"value"[..])));
    }

    #[test]
    fn a_foreign_frame_is_named_and_refused() {
        let with = |at: usize, byte: u8| {
            let mut bytes = frame();
            bytes[at] = byte;
            decode("key", 1, 7, &bytes).unwrap_err()
        };
        assert_eq!(decode("key", 1, 7, b""), Err(Mismatch::Short));
        assert_eq!(with(0, b'x'), Mismatch::Magic);
        assert_eq!(with(4, VERSION + 1), Mismatch::Version);
        assert_eq!(with(5, 9), Mismatch::Codec);
        assert_eq!(with(6, 1), Mismatch::Flags);
        assert_eq!(with(8, 8), Mismatch::Schema);
        assert_eq!(with(24, 0), Mismatch::Checksum);
        assert_eq!(with(32, 4), Mismatch::Length);
        assert_eq!(with(HEADER, b'V'), Mismatch::Checksum);
        assert_eq!(decode("other", 1, 7, &frame()), Err(Mismatch::Checksum));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode("key", 1, 7, &bytes).is_err());
        }

        #[test]
        fn no_single_changed_byte_goes_unnoticed(at in 0_usize..49, flip in 1_u8..) {
            let mut bytes = frame();
            prop_assert_eq!(bytes.len(), 49);
            bytes[at] ^= flip;
            prop_assert!(decode("key", 1, 7, &bytes).is_err());
        }

        #[test]
        fn a_truncated_or_grown_frame_is_refused(length in 0_usize..49, extra in any::<u8>()) {
            prop_assert!(decode("key", 1, 7, &frame()[..length]).is_err());
            let mut grown = frame();
            grown.push(extra);
            prop_assert_eq!(decode("key", 1, 7, &grown), Err(Mismatch::Length));
        }
    }
}
