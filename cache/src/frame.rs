//! The bytes of one value in the shared layer: a checked header, tags, validator and the value.
//!
//! Reading is total: whatever stands in the store, [`Format::open`] says why it cannot be used
//! and the cache treats it as absent. Little-endian throughout:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic `escC` |
//! | 1 | frame version |
//! | 1 | kind: 0 a value, 1 absent at the source, 2 removed |
//! | 1 | encoding of the value: 1 postcard, 2 JSON, 3 MessagePack |
//! | 1 | compression of the value: 0 none, 1 LZ4 (block), 2 Zstandard |
//! | 8 | schema of the value |
//! | 8 | incarnation of the shared layer's control record |
//! | 8 | logical clock of the cache when the load began |
//! | 8 | created, milliseconds since 1970: when the load began |
//! | 8 | fresh until, milliseconds since 1970 |
//! | 8 | stale until, milliseconds since 1970 |
//! | 4 | how long the load took, milliseconds |
//! | 4 | length of the value as it stands here |
//! | 4 | length of the value decompressed |
//! | 2 | length of the validator |
//! | 1 | number of tags |
//! | 1 | flags: 1 there is a validator |
//! | 8 | checksum over the key and everything but itself |
//! | 8 each | hashes of the tags |
//! | n | validator, UTF-8 |
//! | n | value |
//!
//! What a kind does not need is zero. A removed key keeps nothing but a nonce, where the clock
//! of a value stands.

mod header;
#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use header::VERSION;
use header::{HEADER, Header};

use crate::codec::{self, Codec, Encoding};
use crate::compression::{Algorithm, Compression};

/// Most tags of one value.
pub(crate) const MAX_TAGS: usize = 64;
/// Longest validator, in bytes.
pub(crate) const MAX_VALIDATOR: usize = 1024;

const VALUE: u8 = 0;
const ABSENT: u8 = 1;
const REMOVED: u8 = 2;

const HAS_VALIDATOR: u8 = 1;

/// What a frame says about its value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Meta {
    /// Random number of the shared layer's control record: a flushed store starts a new one.
    pub(crate) incarnation: u64,
    /// Logical clock of the cache when the load began.
    pub(crate) clock: u64,
    /// Wall clock when the load began, milliseconds since 1970.
    pub(crate) created_ms: u64,
    pub(crate) fresh_until_ms: u64,
    /// Never before `fresh_until_ms`.
    pub(crate) stale_until_ms: u64,
    /// How long the load took, for early refresh.
    pub(crate) load_ms: u32,
    /// Hashes of the tags, at most [`MAX_TAGS`].
    pub(crate) tags: Vec<u64>,
    /// At most [`MAX_VALIDATOR`] bytes.
    pub(crate) validator: Option<Box<str>>,
}

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored<V> {
    Value(V),
    /// The source says that there is nothing.
    Absent,
    /// A tombstone: the key was removed, and a load that began before must not fill it.
    Removed,
}

/// A frame that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened<V> {
    /// All zero for a tombstone.
    pub(crate) meta: Meta,
    pub(crate) content: Stored<V>,
}

/// Why bytes are no frame of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    Short,
    Magic,
    Version,
    Length,
    Checksum,
    Kind,
    Flags,
    /// Stale before it is no longer fresh.
    Times,
    Tags,
    Validator,
    Schema,
    /// Encoded in a way this build does not know.
    Encoding,
    /// Compressed in a way this build does not know, or not what its length says.
    Compression,
    /// Longer than this cache takes.
    TooLong,
    /// The bytes are intact, and no value of this type.
    Value,
}

/// How values of one cache become frames and back.
pub(crate) struct Format<V> {
    codec: Codec<V>,
    /// How values are written; they are read however this build can.
    compression: Compression,
    schema: u64,
    max_value_bytes: u32,
}

impl<V> Format<V> {
    /// `max_value_bytes` bounds the encoded value before compression and after decompression.
    pub(crate) fn new(
        codec: Codec<V>,
        schema_version: u32,
        compression: Compression,
        max_value_bytes: usize,
    ) -> Self {
        let schema = codec::schema::<V>(schema_version);
        // A frame cannot say more.
        let max_value_bytes = u32::try_from(max_value_bytes).unwrap_or(u32::MAX);
        Self { codec, compression, schema, max_value_bytes }
    }

    /// The frame of `value` for `key`, or of its absence.
    ///
    /// `None` if the value is longer than `max_value_bytes` or cannot be encoded, or if there
    /// are too many tags: without one of them it would be out of reach. A validator that is too
    /// long is left out: it saves a transfer, no more.
    pub(crate) fn seal(&self, key: &str, meta: &Meta, value: Option<&V>) -> Option<Vec<u8>> {
        let tags = u8::try_from(meta.tags.len()).ok().filter(|n| usize::from(*n) <= MAX_TAGS)?;
        let validator = meta.validator.as_deref().filter(|text| text.len() <= MAX_VALIDATOR);
        let mut header = Header {
            kind: ABSENT,
            schema: self.schema,
            incarnation: meta.incarnation,
            clock: meta.clock,
            created_ms: meta.created_ms,
            fresh_until_ms: meta.fresh_until_ms,
            stale_until_ms: meta.stale_until_ms.max(meta.fresh_until_ms),
            load_ms: meta.load_ms,
            validator: u16::try_from(validator.map_or(0, str::len)).ok()?,
            tags,
            flags: if validator.is_some() { HAS_VALIDATOR } else { 0 },
            ..Header::default()
        };
        let mut out = vec![0; HEADER];
        out.extend(meta.tags.iter().flat_map(|tag| tag.to_le_bytes()));
        out.extend_from_slice(validator.unwrap_or_default().as_bytes());
        if let Some(value) = value {
            self.put(value, &mut header, &mut out)?;
        }
        Some(finish(&header, key, out))
    }

    /// Reads a frame that was written for `key`.
    ///
    /// Total, and bounded by `max_value_bytes` before anything is allocated. A tombstone opens
    /// whatever the type and encoding of the value it took away.
    pub(crate) fn open(&self, key: &str, bytes: &[u8]) -> Result<Opened<V>, Mismatch> {
        let (header, rest) = Header::read(key, bytes)?;
        if header.kind == REMOVED {
            return removed(&header);
        }
        let (meta, stored) = read_meta(&header, rest)?;
        if header.schema != self.schema {
            return Err(Mismatch::Schema);
        }
        let content = match header.kind {
            VALUE => Stored::Value(self.take(&header, stored)?),
            ABSENT if (header.encoding, header.compression, header.plain) != (0, 0, 0) => {
                return Err(Mismatch::Flags);
            }
            ABSENT if !stored.is_empty() => return Err(Mismatch::Length),
            ABSENT => Stored::Absent,
            _ => return Err(Mismatch::Kind),
        };
        Ok(Opened { meta, content })
    }

    fn put(&self, value: &V, header: &mut Header, out: &mut Vec<u8>) -> Option<()> {
        let start = out.len();
        if !self.codec.encode(value, self.max_value_bytes as usize, out) {
            return None;
        }
        header.kind = VALUE;
        header.encoding = self.codec.encoding.id();
        header.plain = u32::try_from(out.len() - start).ok()?;
        header.compression = self.compression.shrink(out, start).id();
        header.stored = u32::try_from(out.len() - start).ok()?;
        Some(())
    }

    fn take(&self, header: &Header, stored: &[u8]) -> Result<V, Mismatch> {
        let encoding = Encoding::from_id(header.encoding).ok_or(Mismatch::Encoding)?;
        let algorithm = Algorithm::from_id(header.compression).ok_or(Mismatch::Compression)?;
        if header.plain.max(header.stored) > self.max_value_bytes {
            return Err(Mismatch::TooLong);
        }
        let plain = algorithm.grow(stored, header.plain as usize).ok_or(Mismatch::Compression)?;
        self.codec.decode(encoding, &plain).ok_or(Mismatch::Value)
    }
}

/// A frame that says: removed. The nonce makes each one different, so that a compare-and-set
/// against one does not succeed over the next.
pub(crate) fn tombstone(key: &str, nonce: u64) -> Vec<u8> {
    let header = Header { kind: REMOVED, clock: nonce, ..Header::default() };
    header.write(key, &[]).to_vec()
}

/// What tells a stored value from any other under its key: the header with its checksum, or all
/// there is if that is shorter. Held in place: each look takes one, and few are ever used.
#[derive(Clone, Copy)]
pub(crate) struct Fingerprint {
    bytes: [u8; HEADER],
    length: u8,
}

impl Fingerprint {
    pub(crate) fn of(stored: &[u8]) -> Self {
        const { assert!(HEADER <= u8::MAX as usize) };
        let start = &stored[..stored.len().min(HEADER)];
        let mut bytes = [0; HEADER];
        bytes[..start.len()].copy_from_slice(start);
        Self { bytes, length: start.len() as u8 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().fmt(f)
    }
}

/// See [`Header::restore`].
#[cfg(feature = "fuzzing")]
pub(crate) fn restore(key: &str, bytes: &mut [u8]) {
    Header::restore(key, bytes);
}

fn finish(header: &Header, key: &str, mut out: Vec<u8>) -> Vec<u8> {
    if let Some((room, rest)) = out.split_first_chunk_mut::<HEADER>() {
        *room = header.write(key, rest);
    }
    out
}

fn removed<V>(header: &Header) -> Result<Opened<V>, Mismatch> {
    let Header { kind, clock, .. } = *header;
    if *header != (Header { kind, clock, ..Header::default() }) {
        return Err(Mismatch::Flags);
    }
    Ok(Opened { meta: Meta::default(), content: Stored::Removed })
}

/// Tags and validator off the front of `rest`, with what the header says; and what is left.
fn read_meta<'a>(header: &Header, rest: &'a [u8]) -> Result<(Meta, &'a [u8]), Mismatch> {
    if header.flags & !HAS_VALIDATOR != 0 {
        return Err(Mismatch::Flags);
    }
    if header.stale_until_ms < header.fresh_until_ms {
        return Err(Mismatch::Times);
    }
    let tags = usize::from(header.tags);
    if tags > MAX_TAGS {
        return Err(Mismatch::Tags);
    }
    let (tags, rest) = rest.split_at_checked(tags * 8).ok_or(Mismatch::Length)?;
    let (validator, rest) =
        rest.split_at_checked(usize::from(header.validator)).ok_or(Mismatch::Length)?;
    let validator = read_validator(header.flags & HAS_VALIDATOR != 0, validator)?;
    let meta = Meta {
        incarnation: header.incarnation,
        clock: header.clock,
        created_ms: header.created_ms,
        fresh_until_ms: header.fresh_until_ms,
        stale_until_ms: header.stale_until_ms,
        load_ms: header.load_ms,
        tags: tags.chunks_exact(8).map(header::number).collect(),
        validator,
    };
    Ok((meta, rest))
}

fn read_validator(there: bool, bytes: &[u8]) -> Result<Option<Box<str>>, Mismatch> {
    if bytes.len() > MAX_VALIDATOR || (!there && !bytes.is_empty()) {
        return Err(Mismatch::Validator);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Mismatch::Validator)?;
    Ok(there.then(|| text.into()))
}
