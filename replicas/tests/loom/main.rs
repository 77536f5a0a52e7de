//! The gate and the tally under every order in which their callers may meet: the files themselves, with
//! loom's atomics and locks in the place of their own.

#![expect(dead_code, reason = "they offer more than their races need")]
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

#[path = "../../src/gate.rs"]
mod gate;
mod primitives;
mod races;
#[path = "../../src/tally.rs"]
mod tally;

/// Stands for the library's own; one will do.
#[derive(Debug, Clone, Copy)]
enum Reason {
    Any,
}

impl Reason {
    const ALL: &'static [Self] = &[Self::Any];
}
