//! How a value becomes bytes for the shared layer.

use std::any::type_name;

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Encoding and decoding of one value type.
///
/// Two plain functions, taken where the type is known to be serialisable: only
/// [`CacheBuilder::shared`](crate::CacheBuilder::shared) asks `V` for serde, so a cache of
/// memory alone holds any type.
pub(crate) struct Codec<V> {
    /// Stands in every frame.
    pub(crate) id: u8,
    pub(crate) encode: fn(&V) -> Option<Vec<u8>>,
    pub(crate) decode: fn(&[u8]) -> Option<V>,
}

impl<V: Serialize + DeserializeOwned> Codec<V> {
    /// postcard: half the size of JSON and the fastest to read, but not self-describing.
    pub(crate) fn postcard() -> Self {
        Self {
            id: 1,
            encode: |value| postcard::to_stdvec(value).ok(),
            // Bytes left over mean another shape of value, whatever the first bytes say.
            decode: |bytes| match postcard::take_from_bytes(bytes) {
                Ok((value, [])) => Some(value),
                _ => None,
            },
        }
    }
}

/// The schema of `V` at the user's version: frames of another are refused.
///
/// The name of the type only tells types apart. That a field was added shows in the version
/// alone, since postcard writes no field names.
pub(crate) fn schema<V>(version: u32) -> u64 {
    xxh3_64_with_seed(type_name::<V>().as_bytes(), u64::from(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_and_left_over_bytes_are_refused() {
        let codec = Codec::<(u32, String)>::postcard();
        let value = (7, "seven".to_owned());
        let mut bytes = (codec.encode)(&value).unwrap();
        assert_eq!((codec.decode)(&bytes), Some(value));
        bytes.push(0);
        assert_eq!((codec.decode)(&bytes), None);
        assert_eq!((codec.decode)(&[]), None);
    }

    #[test]
    fn schemas_differ_by_type_and_by_version() {
        assert_ne!(schema::<u32>(0), schema::<u64>(0));
        assert_ne!(schema::<u32>(0), schema::<u32>(1));
    }
}
