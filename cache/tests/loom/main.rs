//! The map of flights under every order in which its callers may meet: the file itself, with loom's
//! locks and atomics in the place of its own.

#![expect(dead_code, reason = "the map offers more than its races need")]
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

#[path = "../../src/flight/map.rs"]
mod map;
mod primitives;
mod races;

mod error {
    //! What a flight that fails brings.

    /// Stands for the library's own.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) enum Failure {
        Aborted,
    }
}
