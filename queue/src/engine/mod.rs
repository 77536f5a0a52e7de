//! Where jobs are kept until they are finished.

mod keys;
mod letters;
mod memory;
mod store;

pub use self::letters::DeadLetter;
pub use self::memory::MemoryEngine;
pub(crate) use self::store::{Entry, Store};

/// A place that keeps jobs. Today there is one: [`MemoryEngine`].
///
/// The trait is sealed and has no verbs of its own yet: those that a second, durable engine needs
/// (a claim that counts the attempt, a numbered lease, its renewal) would be guesses before that
/// engine exists, and can be added here without breaking anybody.
pub trait Engine: sealed::Sealed {}

pub(crate) mod sealed {
    /// Keeps [`Engine`](super::Engine) to this crate.
    pub trait Sealed {
        /// Turns the engine into the one there is.
        fn into_memory(self) -> super::MemoryEngine;
    }
}
