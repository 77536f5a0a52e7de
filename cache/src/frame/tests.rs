//! Golden bytes, refusals, and properties of reading.

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 4_096;
const KEY: &str = "2:quotes:BTC";

fn format() -> Format<String> {
    with(Encoding::Postcard, Compression::None)
}

fn with(encoding: Encoding, compression: Compression) -> Format<String> {
    Format::new(Codec::new().encoding(encoding), 7, compression, LIMIT)
}

fn every_format() -> Vec<Format<String>> {
    let encodings = [
        Encoding::Postcard,
        #[cfg(feature = "json")]
        Encoding::Json,
        #[cfg(feature = "msgpack")]
        Encoding::MessagePack,
    ];
    let compressions = [
        Compression::None,
        #[cfg(feature = "lz4")]
        Compression::Lz4 { above: 10 },
        #[cfg(feature = "zstd")]
        Compression::Zstd { above: 10, level: 1 },
    ];
    let pairs = encodings.into_iter().flat_map(|e| compressions.map(|c| (e, c)));
    pairs.map(|(encoding, compression)| with(encoding, compression)).collect()
}

fn bare() -> Meta {
    Meta {
        incarnation: 0x0102_0304_0506_0708,
        clock: 9,
        created_ms: 1_000,
        fresh_until_ms: 2_000,
        stale_until_ms: 3_000,
        load_ms: 12,
        ..Meta::default()
    }
}

fn full() -> Meta {
    Meta { tags: vec![1, u64::MAX], validator: Some("\"v1\"".into()), ..bare() }
}

fn sealed() -> Vec<u8> {
    format().seal(KEY, &full(), Some(&"value".to_owned())).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(feature = "lz4")]
fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

/// A frame with a right checksum whatever its fields say.
fn forged(change: impl FnOnce(&mut Header), rest: &[u8]) -> Result<Opened<String>, Mismatch> {
    let mut header = Header {
        kind: VALUE,
        encoding: 1,
        schema: codec::schema::<String>(7),
        stored: u32::try_from(rest.len()).unwrap(),
        plain: u32::try_from(rest.len()).unwrap(),
        ..Header::default()
    };
    change(&mut header);
    let mut bytes = header.write(KEY, rest).to_vec();
    bytes.extend_from_slice(rest);
    format().open(KEY, &bytes)
}

// Whoever changes one of these has changed the layout, and must raise the version.
const GOLDEN_VALUE: &str = "6573634302000100dd7494c0eb7c878608070605040302010900000000000000\
     e803000000000000d007000000000000b80b0000000000000c00000006000000\
     0600000000000000ffbcbb1cb0fe6c150576616c7565";
const GOLDEN_FULL: &str = "6573634302000100dd7494c0eb7c878608070605040302010900000000000000\
     e803000000000000d007000000000000b80b0000000000000c00000006000000\
     060000000400020169fbde200c85484e0100000000000000ffffffffffffffff\
     227631220576616c7565";
const GOLDEN_ABSENT: &str = "6573634302010000dd7494c0eb7c878608070605040302010900000000000000\
     e803000000000000d007000000000000b80b0000000000000c00000000000000\
     00000000000000005e0dd9eed58c9786";
const GOLDEN_TOMBSTONE: &str = "6573634302020000000000000000000000000000000000000500000000000000\
     0000000000000000000000000000000000000000000000000000000000000000\
     0000000000000000c298b52766576eb4";

#[test]
fn the_layout_of_version_two_never_changes() {
    let value = "value".to_owned();
    assert_eq!(hex(&format().seal(KEY, &bare(), Some(&value)).unwrap()), GOLDEN_VALUE);
    assert_eq!(hex(&format().seal(KEY, &full(), Some(&value)).unwrap()), GOLDEN_FULL);
    assert_eq!(hex(&format().seal(KEY, &bare(), None).unwrap()), GOLDEN_ABSENT);
    assert_eq!(hex(&tombstone(KEY, 5)), GOLDEN_TOMBSTONE);
}

/// Read only: what the library writes may change with its version, and stay LZ4.
#[cfg(feature = "lz4")]
#[test]
fn a_compressed_frame_of_version_two_is_read_for_ever() {
    let opened = format().open(KEY, &from_hex(GOLDEN_LZ4)).unwrap();
    assert_eq!(opened, Opened { meta: bare(), content: Stored::Value("value".repeat(100)) });
}

#[cfg(feature = "lz4")]
const GOLDEN_LZ4: &str = "6573634302000101dd7494c0eb7c878608070605040302010900000000000000\
     e803000000000000d007000000000000b80b0000000000000c00000013000000\
     f601000000000000b1925c62f7ced3397ff40376616c75650500ffd760657661\
     6c7565";

#[test]
fn a_frame_comes_back_as_it_was_written() {
    for value in ["", "value", &"value".repeat(500)] {
        for format in every_format() {
            for meta in [Meta::default(), bare(), full()] {
                let value = value.to_owned();
                let frame = format.seal(KEY, &meta, Some(&value)).unwrap();
                let expected = Opened { meta: meta.clone(), content: Stored::Value(value) };
                // By every other format too: a deployment may change encoding and compression.
                for reader in every_format() {
                    assert_eq!(reader.open(KEY, &frame).as_ref(), Ok(&expected));
                }
                let absent = format.seal(KEY, &meta, None).unwrap();
                let expected = Opened { meta, content: Stored::Absent };
                assert_eq!(format.open(KEY, &absent), Ok(expected));
            }
        }
    }
}

#[test]
fn a_tombstone_opens_whatever_it_took_away() {
    let frame = tombstone(KEY, 5);
    let removed = Opened { meta: Meta::default(), content: Stored::Removed };
    assert_eq!(format().open(KEY, &frame), Ok(removed));
    let other = Format::<u8>::new(Codec::new(), 0, Compression::None, 1);
    assert_eq!(other.open(KEY, &frame).unwrap().content, Stored::Removed);
    assert_eq!(format().open("other", &frame), Err(Mismatch::Checksum));
    assert_ne!(tombstone(KEY, 6), frame);
}

#[test]
fn fingerprints_tell_frames_of_one_key_apart() {
    let value = |text: &str| format().seal(KEY, &full(), Some(&text.to_owned())).unwrap();
    let frames = [
        value("value"),
        value("Value"),
        format().seal(KEY, &bare(), None).unwrap(),
        tombstone(KEY, 1),
        tombstone(KEY, 2),
        b"no frame".to_vec(),
        Vec::new(),
    ];
    for (index, frame) in frames.iter().enumerate() {
        assert!(frame.starts_with(Fingerprint::of(frame).bytes()));
        assert!(Fingerprint::of(frame).bytes().len() <= HEADER);
        for other in frames.iter().skip(index + 1) {
            assert_ne!(Fingerprint::of(frame).bytes(), Fingerprint::of(other).bytes());
        }
    }
}

#[test]
fn what_does_not_fit_is_not_sealed() {
    let seal = |meta: &Meta, length: usize| format().seal(KEY, meta, Some(&"v".repeat(length)));
    // postcard adds the length in two bytes.
    assert!(seal(&bare(), LIMIT - 2).is_some());
    assert!(seal(&bare(), LIMIT - 1).is_none());
    let tagged = |count: u64| Meta { tags: (0..count).collect(), ..bare() };
    assert!(seal(&tagged(64), 1).is_some());
    assert!(seal(&tagged(65), 1).is_none());
    assert!(seal(&tagged(256), 1).is_none(), "the number of tags has one byte");
}

#[test]
fn a_validator_that_is_too_long_is_left_out() {
    for (length, kept) in [(0, true), (1_024, true), (1_025, false), (70_000, false)] {
        let validator: Box<str> = "v".repeat(length).into();
        let meta = Meta { validator: Some(validator.clone()), ..full() };
        let frame = format().seal(KEY, &meta, None).unwrap();
        let read = format().open(KEY, &frame).unwrap().meta;
        assert_eq!(read, Meta { validator: kept.then_some(validator), ..full() });
    }
}

#[test]
fn stale_never_ends_before_fresh() {
    let meta = Meta { stale_until_ms: 0, ..bare() };
    let frame = format().seal(KEY, &meta, None).unwrap();
    let read = format().open(KEY, &frame).unwrap().meta;
    assert_eq!(read, Meta { stale_until_ms: 2_000, ..bare() });
}

#[test]
fn a_foreign_frame_is_named_and_refused() {
    let changed = |at: usize, byte: u8| {
        let mut bytes = sealed();
        bytes[at] = byte;
        format().open(KEY, &bytes).unwrap_err()
    };
    assert_eq!(format().open(KEY, b""), Err(Mismatch::Short));
    assert_eq!(format().open(KEY, &[0; HEADER]), Err(Mismatch::Magic));
    assert_eq!(changed(0, b'x'), Mismatch::Magic);
    assert_eq!(changed(4, VERSION + 1), Mismatch::Version);
    assert_eq!(changed(4, VERSION - 1), Mismatch::Version);
    assert_eq!(changed(60, 0), Mismatch::Length);
    assert_eq!(changed(HEADER, 9), Mismatch::Checksum);
    assert_eq!(format().open("other", &sealed()), Err(Mismatch::Checksum));
    let of = |schema_version: u32, limit: usize| {
        let format = Format::<String>::new(Codec::new(), schema_version, Compression::None, limit);
        format.open(KEY, &sealed()).map(drop)
    };
    assert_eq!(of(8, LIMIT), Err(Mismatch::Schema));
    assert_eq!(of(7, 6), Ok(()));
    assert_eq!(of(7, 5), Err(Mismatch::TooLong));
    let other = Format::<Vec<u8>>::new(Codec::new(), 7, Compression::None, LIMIT);
    assert_eq!(other.open(KEY, &sealed()), Err(Mismatch::Schema));
}

#[test]
fn an_intact_frame_that_makes_no_sense_is_named_and_refused() {
    let value = b"\x05value";
    assert_eq!(forged(|_| {}, value).unwrap().content, Stored::Value("value".to_owned()));
    assert_eq!(forged(|h| h.kind = 3, value), Err(Mismatch::Kind));
    assert_eq!(forged(|h| h.kind = ABSENT, value), Err(Mismatch::Flags));
    assert_eq!(
        forged(|h| (h.kind, h.encoding, h.plain) = (ABSENT, 0, 0), value),
        Err(Mismatch::Length)
    );
    assert_eq!(forged(|h| h.kind = REMOVED, value), Err(Mismatch::Flags));
    assert_eq!(forged(|h| h.flags = 2, value), Err(Mismatch::Flags));
    assert_eq!(forged(|h| h.encoding = 0, value), Err(Mismatch::Encoding));
    assert_eq!(forged(|h| h.encoding = 200, value), Err(Mismatch::Encoding));
    assert_eq!(forged(|h| h.compression = 200, value), Err(Mismatch::Compression));
    assert_eq!(forged(|h| h.plain = 5, value), Err(Mismatch::Compression));
    assert_eq!(forged(|h| h.fresh_until_ms = 1, value), Err(Mismatch::Times));
    assert_eq!(forged(|h| h.schema = 0, value), Err(Mismatch::Schema));
    assert_eq!(forged(|_| {}, b"\x05val"), Err(Mismatch::Value));
    assert_eq!(forged(|_| {}, b"\x05values"), Err(Mismatch::Value));
    // Six bytes of validator without the flag; then no UTF-8.
    assert_eq!(forged(|h| (h.validator, h.stored) = (6, 0), value), Err(Mismatch::Validator));
    let not_text = |h: &mut Header| (h.validator, h.stored, h.flags) = (1, 0, HAS_VALIDATOR);
    assert_eq!(forged(not_text, &[0xff]), Err(Mismatch::Validator));
    assert_eq!(forged(|h| (h.tags, h.stored) = (65, 0), &[0; 520]), Err(Mismatch::Tags));
    let long = |h: &mut Header| (h.validator, h.stored, h.flags) = (1_025, 0, HAS_VALIDATOR);
    assert_eq!(forged(long, &[b'v'; 1_025]), Err(Mismatch::Validator));
}

#[test]
fn a_claimed_length_is_refused_before_anything_is_allocated() {
    for compression in [1, 2] {
        let bomb = |h: &mut Header| (h.compression, h.plain) = (compression, u32::MAX);
        let found = forged(bomb, b"\x05value").unwrap_err();
        let known = Algorithm::from_id(compression).is_some();
        assert_eq!(found, if known { Mismatch::TooLong } else { Mismatch::Compression });
    }
}

#[cfg(any(feature = "lz4", feature = "zstd"))]
#[test]
fn a_small_frame_of_a_huge_value_is_refused() {
    let compressions = [
        #[cfg(feature = "lz4")]
        Compression::Lz4 { above: 0 },
        #[cfg(feature = "zstd")]
        Compression::Zstd { above: 0, level: 1 },
    ];
    for compression in compressions {
        let huge = "0".repeat(100 * LIMIT);
        let writer = Format::new(Codec::new(), 7, compression, usize::MAX);
        let frame = writer.seal(KEY, &bare(), Some(&huge)).unwrap();
        assert!(frame.len() < LIMIT, "{compression:?}: {}", frame.len());
        assert_eq!(format().open(KEY, &frame), Err(Mismatch::TooLong));
        // And if it lies about the length, with everything else in order.
        let (mut header, rest) = Header::read(KEY, &frame).unwrap();
        header.plain = 1_000;
        let mut lie = header.write(KEY, rest).to_vec();
        lie.extend_from_slice(rest);
        assert_eq!(format().open(KEY, &lie), Err(Mismatch::Compression));
    }
}

fn any_meta() -> impl Strategy<Value = Meta> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>());
    let tags = proptest::collection::vec(any::<u64>(), 0..=MAX_TAGS);
    let validator = proptest::option::of("[ -~\u{e9}\u{1f600}]{0,40}");
    (numbers, any::<u32>(), tags, validator).prop_map(|(numbers, stale, tags, validator)| {
        let (incarnation, clock, created_ms, fresh_until_ms, load_ms) = numbers;
        Meta {
            incarnation,
            clock,
            created_ms,
            fresh_until_ms,
            stale_until_ms: fresh_until_ms.saturating_add(stale.into()),
            load_ms,
            tags,
            validator: validator.map(Into::into),
        }
    })
}

proptest! {
    #[test]
    fn any_frame_comes_back(
        key in ".{0,20}",
        meta in any_meta(),
        value in proptest::option::of(".{0,200}"),
    ) {
        for format in every_format() {
            let frame = format.seal(&key, &meta, value.as_ref()).unwrap();
            let opened = format.open(&key, &frame).unwrap();
            prop_assert_eq!(opened.meta, meta.clone());
            let content = value.clone().map_or(Stored::Absent, Stored::Value);
            prop_assert_eq!(opened.content, content);
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(format().open(KEY, &bytes).is_err());
    }

    #[test]
    fn any_header_with_a_right_checksum_is_read_without_a_panic(
        fields in any::<([u8; 7], [u32; 3])>(),
        schema in any::<bool>(),
        rest in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let ([kind, encoding, compression, tags, flags, long, small], [plain, stale, fresh]) = fields;
        let fill = |h: &mut Header| {
            h.kind = kind % 4;
            h.encoding = encoding % 4;
            h.compression = compression % 3;
            h.tags = tags % 66;
            h.flags = flags % 3;
            h.validator = u16::from(long) * u16::from(small % 8);
            let before = usize::from(h.tags) * 8 + usize::from(h.validator);
            h.stored = u32::try_from(rest.len().saturating_sub(before)).unwrap();
            h.plain = if small % 2 == 0 { plain % 5_000 } else { plain };
            (h.fresh_until_ms, h.stale_until_ms) = (fresh.into(), stale.into());
            if !schema {
                h.schema = 1;
            }
        };
        if let Ok(Opened { content: Stored::Value(value), .. }) = forged(fill, &rest) {
            prop_assert!(value.len() <= LIMIT);
        }
    }

    #[test]
    fn any_change_of_a_frame_whose_checksum_is_put_right_is_read_without_a_panic(
        changes in proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 1..6),
    ) {
        for format in every_format() {
            let mut frame = format.seal(KEY, &full(), Some(&"value".repeat(20))).unwrap();
            for (at, byte) in &changes {
                let at = at.index(frame.len());
                frame[at] = *byte;
            }
            Header::restore(KEY, &mut frame);
            if let Ok(Opened { content: Stored::Value(value), .. }) = format.open(KEY, &frame) {
                prop_assert!(value.len() <= LIMIT);
            }
        }
    }

    #[test]
    fn no_changed_byte_goes_unnoticed(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        for mut frame in [sealed(), tombstone(KEY, 5)] {
            let at = at.index(frame.len());
            frame[at] ^= flip;
            prop_assert!(format().open(KEY, &frame).is_err());
        }
    }

    #[test]
    fn a_truncated_or_grown_frame_is_refused(
        at in any::<prop::sample::Index>(),
        extra in proptest::collection::vec(any::<u8>(), 1..20),
    ) {
        for frame in [sealed(), tombstone(KEY, 5)] {
            prop_assert!(format().open(KEY, &frame[..at.index(frame.len())]).is_err());
            let grown = [frame, extra.clone()].concat();
            prop_assert_eq!(format().open(KEY, &grown), Err(Mismatch::Length));
        }
    }
}
