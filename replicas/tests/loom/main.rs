//! The gate under every order in which its callers may meet: the file itself, with loom's atomics and
//! locks in the place of its own.

#![expect(dead_code, reason = "the gate offers more than its races need")]
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

#[path = "../../src/gate.rs"]
mod gate;
mod primitives;
mod races;
