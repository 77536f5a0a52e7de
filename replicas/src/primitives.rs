//! What the gate is made of. The loom tests put their own in its place, which try every order in
//! which threads may meet.

pub(crate) use std::sync::atomic::{AtomicUsize, Ordering::SeqCst, fence};

pub(crate) use tokio::sync::{Notify, Semaphore};
pub(crate) use tokio::time::timeout_at;
