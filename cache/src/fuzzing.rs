//! What the fuzzers call, each with bytes that mean anything: they must return, whatever these
//! are, and panic only where a promise is broken.
//!
//! `cargo fuzz` runs them for as long as one likes (`fuzz/`), a test runs them over the corpus.

mod http;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codec::{Codec, Encoding};
use crate::compression::Compression;
use crate::frame::{self, Format, Opened, Stored};
pub use http::{cache_control, structured_fields, vary};

const KEY: &str = "2:fuzz:key";
const LIMIT: usize = 64 * 1024;

/// A value with something of everything that encodings treat differently.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Sample {
    number: u64,
    text: String,
    maybe: Option<Box<str>>,
    bytes: Vec<u8>,
    by_name: BTreeMap<String, i64>,
    #[serde(default)]
    added: Vec<Option<bool>>,
}

/// The bytes of a frame in the shared store, as they are, and with checksum and lengths put
/// right: what opens must survive being sealed again, in every way of writing it.
pub fn frame(bytes: &[u8]) {
    let reader = format(Encoding::Postcard, Compression::None);
    let as_it_is = reader.open(KEY, bytes);
    assert!(frame::Fingerprint::of(bytes).bytes().len() <= bytes.len());
    let mut restored = bytes.to_vec();
    frame::restore(KEY, &mut restored);
    for opened in [as_it_is, reader.open(KEY, &restored)].into_iter().flatten() {
        seals_again(&opened);
    }
}

fn seals_again(opened: &Opened<Sample>) {
    let value = match &opened.content {
        Stored::Value(value) => Some(value),
        Stored::Absent => None,
        Stored::Removed => return,
    };
    for encoding in [Encoding::Postcard, Encoding::Json, Encoding::MessagePack] {
        for compression in [
            Compression::None,
            Compression::Lz4 { above: 0 },
            Compression::Zstd { above: 0, level: 1 },
        ] {
            let format = format(encoding, compression);
            // Another encoding may be longer than the limit.
            let Some(sealed) = format.seal(KEY, &opened.meta, value) else { continue };
            let again = format.open(KEY, &sealed);
            assert_eq!(again.as_ref(), Ok(opened), "{encoding:?} {compression:?}");
        }
    }
}

fn format(encoding: Encoding, compression: Compression) -> Format<Sample> {
    Format::new(Codec::new().encoding(encoding), 0, compression, LIMIT)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// A corpus that is refused at the door tests the door alone.
    #[test]
    fn every_frame_of_the_corpus_but_the_old_one_opens() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/frame");
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let opened =
                format(Encoding::default(), Compression::None).open(KEY, &fs::read(&path).unwrap());
            assert_eq!(opened.is_err(), path.ends_with("version_one"), "{path:?}: {opened:?}");
        }
    }
}
