//! What the gate and the tally are made of. The loom tests put their own in its place, which try every order in
//! which threads may meet.

pub(crate) use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

pub(crate) use tokio::sync::{Notify, Semaphore};
pub(crate) use tokio::time::timeout_at;
