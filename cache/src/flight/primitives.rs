//! What the map is made of. The loom tests put their own in its place, which try every order in
//! which threads may meet.

pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ahash::RandomState;
pub(super) use parking_lot::Mutex;
pub(super) use tokio::sync::watch;

/// Enough that two misses seldom meet at one lock, few enough that a sweep visits them quickly.
pub(super) const SHARDS: usize = 32;

pub(super) fn hasher() -> RandomState {
    RandomState::new()
}
