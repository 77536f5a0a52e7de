//! What the slots are made of. The loom tests put their own in its place, which try every order in
//! which threads may meet.

pub(crate) use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

pub(crate) use parking_lot::Mutex;
