//! How a value becomes bytes for the shared layer, and back.

use std::any::type_name;
use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How values are encoded for the shared layer.
///
/// Changing it on a running system costs nothing: values are read in whatever encoding they were
/// written, as long as this build knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Encoding {
    /// postcard. The default: half the size of JSON and the fastest to read. It writes no field
    /// names, so raise [`schema_version`](crate::CacheConfig::schema_version) with every change
    /// of the type's shape; values of another shape are then loaded anew.
    #[default]
    Postcard,
    /// JSON, which people and other programs can read. A field added with `#[serde(default)]`,
    /// or one that is gone, needs no new schema version. Choose it while the type still changes;
    /// it costs twice the bytes and twice the time.
    #[cfg(feature = "json")]
    Json,
    /// MessagePack with field names: as tolerant of added fields as JSON, a quarter shorter,
    /// faster to read.
    #[cfg(feature = "msgpack")]
    MessagePack,
}

impl Encoding {
    /// The number that stands in every frame.
    pub(crate) const fn id(self) -> u8 {
        match self {
            Self::Postcard => 1,
            #[cfg(feature = "json")]
            Self::Json => 2,
            #[cfg(feature = "msgpack")]
            Self::MessagePack => 3,
        }
    }

    /// The encoding of that number, if this build knows it.
    pub(crate) const fn from_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(Self::Postcard),
            #[cfg(feature = "json")]
            2 => Some(Self::Json),
            #[cfg(feature = "msgpack")]
            3 => Some(Self::MessagePack),
            _ => None,
        }
    }
}

/// Encoding and decoding of one value type.
///
/// Two plain functions, taken where the type is known to be serialisable: only
/// [`CacheBuilder::shared`](crate::CacheBuilder::shared) asks `V` for serde, so a cache of
/// memory alone holds any type.
pub(crate) struct Codec<V> {
    /// How values are written; they are read in every encoding this build knows.
    pub(crate) encoding: Encoding,
    encode: fn(Encoding, &V, &mut Limited<'_>) -> bool,
    decode: fn(Encoding, &[u8]) -> Option<V>,
}

impl<V: Serialize + DeserializeOwned> Codec<V> {
    pub(crate) fn new() -> Self {
        Self { encoding: Encoding::default(), encode, decode }
    }
}

impl<V> Codec<V> {
    pub(crate) fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Appends the bytes of `value`. False if they would be more than `limit`, or if the value
    /// cannot be encoded; `out` then holds a part of them.
    pub(crate) fn encode(&self, value: &V, limit: usize, out: &mut Vec<u8>) -> bool {
        (self.encode)(self.encoding, value, &mut Limited { out, left: limit })
    }

    /// The value that exactly these bytes stand for.
    pub(crate) fn decode(&self, encoding: Encoding, bytes: &[u8]) -> Option<V> {
        (self.decode)(encoding, bytes)
    }
}

/// The schema of `V` at the user's version: frames of another are refused.
///
/// The name of the type only tells types apart. That a field was added shows in the version
/// alone, since postcard writes no field names.
pub(crate) fn schema<V>(version: u32) -> u64 {
    xxh3_64_with_seed(type_name::<V>().as_bytes(), u64::from(version))
}

fn encode<V: Serialize>(encoding: Encoding, value: &V, out: &mut Limited<'_>) -> bool {
    match encoding {
        Encoding::Postcard => postcard::to_io(value, out).is_ok(),
        #[cfg(feature = "json")]
        Encoding::Json => serde_json::to_writer(out, value).is_ok(),
        #[cfg(feature = "msgpack")]
        Encoding::MessagePack => rmp_serde::encode::write_named(out, value).is_ok(),
    }
}

/// Bytes left over mean another shape of value, whatever the first bytes say.
fn decode<V: DeserializeOwned>(encoding: Encoding, bytes: &[u8]) -> Option<V> {
    match encoding {
        Encoding::Postcard => match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Some(value),
            _ => None,
        },
        #[cfg(feature = "json")]
        Encoding::Json => serde_json::from_slice(bytes).ok(),
        #[cfg(feature = "msgpack")]
        Encoding::MessagePack => {
            let mut decoder = rmp_serde::Deserializer::new(bytes);
            let value = V::deserialize(&mut decoder).ok()?;
            decoder.get_ref().is_empty().then_some(value)
        }
    }
}

/// A writer that gives up at a limit, so that a value far too long is not encoded whole to find
/// out.
struct Limited<'a> {
    out: &'a mut Vec<u8>,
    left: usize,
}

impl io::Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len());
        self.left = left.ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;
    use std::path::PathBuf;

    use serde::Deserialize;

    use super::*;

    fn every_encoding() -> Vec<Encoding> {
        (0..=u8::MAX).filter_map(Encoding::from_id).collect()
    }

    fn encoded<V: Serialize + DeserializeOwned>(encoding: Encoding, value: &V) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(Codec::new().encoding(encoding).encode(value, usize::MAX, &mut out));
        out
    }

    #[test]
    fn the_number_of_an_encoding_leads_back_to_it() {
        let compiled =
            1 + usize::from(cfg!(feature = "json")) + usize::from(cfg!(feature = "msgpack"));
        assert_eq!(every_encoding().len(), compiled);
        for encoding in every_encoding() {
            assert_eq!(Encoding::from_id(encoding.id()), Some(encoding));
        }
        assert_eq!(Encoding::default().id(), 1);
    }

    #[test]
    fn values_survive_and_left_over_bytes_are_refused() {
        let codec = Codec::<(u32, Option<String>)>::new();
        for encoding in every_encoding() {
            for value in [(7, Some("seven".to_owned())), (0, None)] {
                let mut bytes = encoded(encoding, &value);
                assert_eq!(codec.decode(encoding, &bytes), Some(value));
                bytes.push(0);
                assert_eq!(codec.decode(encoding, &bytes), None, "{encoding:?}");
            }
            assert_eq!(codec.decode(encoding, &[]), None, "{encoding:?}");
        }
    }

    #[test]
    fn a_value_over_the_limit_is_given_up_at_the_limit() {
        let value = vec!["0123456789".to_owned(); 1_000];
        for encoding in every_encoding() {
            let length = encoded(encoding, &value).len();
            for (limit, fits) in [(length, true), (length - 1, false), (0, false), (99, false)] {
                let mut out = b"before".to_vec();
                let codec = Codec::new().encoding(encoding);
                assert_eq!(codec.encode(&value, limit, &mut out), fits);
                assert!(out.len() <= 6 + limit, "{encoding:?}: {}", out.len());
            }
        }
    }

    #[test]
    fn what_cannot_be_encoded_is_refused() {
        // serde itself refuses a path that is no UTF-8.
        let path = PathBuf::from(OsString::from_vec(vec![0xff]));
        for encoding in every_encoding() {
            let codec = Codec::new().encoding(encoding);
            assert!(!codec.encode(&path, 1_000, &mut Vec::new()), "{encoding:?}");
        }
    }

    #[test]
    fn json_and_message_pack_tolerate_an_added_field_and_postcard_does_not() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Old {
            price: u64,
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct New {
            price: u64,
            #[serde(default)]
            volume: u64,
        }
        for encoding in every_encoding() {
            let old = Codec::<Old>::new()
                .decode(encoding, &encoded(encoding, &New { price: 7, volume: 9 }));
            let new = Codec::<New>::new().decode(encoding, &encoded(encoding, &Old { price: 7 }));
            let tolerant = encoding != Encoding::Postcard;
            assert_eq!(old, tolerant.then_some(Old { price: 7 }), "{encoding:?}");
            assert_eq!(new, tolerant.then_some(New { price: 7, volume: 0 }), "{encoding:?}");
        }
    }

    #[test]
    fn schemas_differ_by_type_and_by_version() {
        assert_ne!(schema::<u32>(0), schema::<u64>(0));
        assert_ne!(schema::<u32>(0), schema::<u32>(1));
    }
}
