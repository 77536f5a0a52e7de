//! What the tallies are made of. The loom test puts its own in its place, which try every order in
//! which threads may meet.

pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

pub(super) use parking_lot::Mutex;
