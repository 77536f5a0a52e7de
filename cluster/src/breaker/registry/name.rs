//! What the circuit of a key is called.

use std::fmt::{self, Display, Write as _};
use std::sync::Arc;

/// Bytes of a key that names and labels show. Keys may come from clients.
const LABEL_BYTES: usize = 128;

/// `registry/key`, the key cut where it is too long.
pub(super) fn name_of(registry: &str, key: &dyn Display) -> Arc<str> {
    let mut name = Cut { text: format!("{registry}/"), room: LABEL_BYTES };
    if write!(name, "{key}").is_err() {
        name.text.push('…');
    }
    name.text.into()
}

/// Takes what there is room for.
struct Cut {
    text: String,
    room: usize,
}

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = text.floor_char_boundary(self.room);
        self.text.push_str(&text[..end]);
        self.room -= end;
        if end < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}
