//! What is cached: keys of 26 bytes and values of about 300.

use serde::{Deserialize, Serialize};

/// A value whose text would be found wrong if it were another key's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) number: u64,
    pub(crate) text: String,
}

impl Profile {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, text: format!("{number:0>290}") }
    }
}

/// The key of a number, 26 bytes long.
pub(crate) fn key(number: u64) -> String {
    format!("user:{number:0>8}:profile:data")
}
