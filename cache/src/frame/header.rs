//! The fixed part of a frame, field by field.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Mismatch;

/// Raised with every change of the layout; it also stands in every key, so that old and new
/// processes of a rolling deployment never read each other's frames.
pub(crate) const VERSION: u8 = 2;

const MAGIC: [u8; 4] = *b"escC";
const CHECKED: usize = 72;
/// Bytes of the fixed part.
pub(super) const HEADER: usize = CHECKED + 8;

/// What the fixed part says, checked only as far as that it is intact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) encoding: u8,
    pub(super) compression: u8,
    pub(super) schema: u64,
    pub(super) incarnation: u64,
    pub(super) clock: u64,
    pub(super) created_ms: u64,
    pub(super) fresh_until_ms: u64,
    pub(super) stale_until_ms: u64,
    pub(super) load_ms: u32,
    /// Bytes of the value as they stand in the frame.
    pub(super) stored: u32,
    /// Bytes of the value once decompressed.
    pub(super) plain: u32,
    pub(super) validator: u16,
    pub(super) tags: u8,
    pub(super) flags: u8,
}

impl Header {
    /// The bytes of the header of a frame for `key` that goes on with `rest`.
    pub(super) fn write(&self, key: &str, rest: &[u8]) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&MAGIC);
        put(&[VERSION, self.kind, self.encoding, self.compression]);
        put(&self.schema.to_le_bytes());
        put(&self.incarnation.to_le_bytes());
        put(&self.clock.to_le_bytes());
        put(&self.created_ms.to_le_bytes());
        put(&self.fresh_until_ms.to_le_bytes());
        put(&self.stale_until_ms.to_le_bytes());
        put(&self.load_ms.to_le_bytes());
        put(&self.stored.to_le_bytes());
        put(&self.plain.to_le_bytes());
        put(&self.validator.to_le_bytes());
        put(&[self.tags, self.flags]);
        let sum = checksum(key, &out[..CHECKED], rest);
        out[CHECKED..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// The header of a whole frame, and the bytes after it.
    ///
    /// Nothing is interpreted before the checksum holds. What is odd after that was written so,
    /// by another build or on purpose.
    pub(super) fn read<'a>(key: &str, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Mismatch> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or(Mismatch::Short)?;
        let (checked, sum) = header.split_at(CHECKED);
        if checked[..4] != MAGIC {
            return Err(Mismatch::Magic);
        }
        if checked[4] != VERSION {
            return Err(Mismatch::Version);
        }
        let read = Self {
            kind: checked[5],
            encoding: checked[6],
            compression: checked[7],
            schema: number(&checked[8..16]),
            incarnation: number(&checked[16..24]),
            clock: number(&checked[24..32]),
            created_ms: number(&checked[32..40]),
            fresh_until_ms: number(&checked[40..48]),
            stale_until_ms: number(&checked[48..56]),
            load_ms: number(&checked[56..60]) as u32,
            stored: number(&checked[60..64]) as u32,
            plain: number(&checked[64..68]) as u32,
            validator: number(&checked[68..70]) as u16,
            tags: checked[70],
            flags: checked[71],
        };
        if read.rest() != rest.len() as u64 {
            return Err(Mismatch::Length);
        }
        if number(sum) != checksum(key, checked, rest) {
            return Err(Mismatch::Checksum);
        }
        Ok((read, rest))
    }

    /// Makes bytes pass every check that only tells whether they are intact: what damage can
    /// hardly reach, a search for weaknesses must.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn restore(key: &str, bytes: &mut [u8]) {
        let Some((header, rest)) = bytes.split_first_chunk_mut::<HEADER>() else { return };
        header[..4].copy_from_slice(&MAGIC);
        header[4] = VERSION;
        let before = u64::from(header[70]) * 8 + number(&header[68..70]);
        let stored = u32::try_from((rest.len() as u64).saturating_sub(before)).unwrap_or(u32::MAX);
        header[60..64].copy_from_slice(&stored.to_le_bytes());
        let sum = checksum(key, &header[..CHECKED], rest);
        header[CHECKED..].copy_from_slice(&sum.to_le_bytes());
    }

    /// How many bytes follow.
    fn rest(&self) -> u64 {
        u64::from(self.tags) * 8 + u64::from(self.validator) + u64::from(self.stored)
    }
}

/// The key takes part, so that a frame copied to another key is refused there.
fn checksum(key: &str, header: &[u8], rest: &[u8]) -> u64 {
    let seed = xxh3_64_with_seed(header, xxh3_64(key.as_bytes()));
    xxh3_64_with_seed(rest, seed)
}

/// A little-endian number of at most eight bytes.
pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}
