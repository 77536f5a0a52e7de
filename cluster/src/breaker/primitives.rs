//! What a breaker's shared parts are made of. The loom tests put their own in its place, which try
//! every order in which threads may meet.

use std::cell::Cell;
use std::sync::atomic::AtomicUsize;

pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

pub(super) use parking_lot::Mutex;
pub(super) use tokio::time::Instant;

thread_local! {
    static THREAD: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// A number of the calling thread: those that use breakers are numbered as they first do.
#[inline]
pub(super) fn thread() -> usize {
    // A thread that is being torn down may have lost its number; any will do.
    THREAD
        .try_with(|number| if number.get() == usize::MAX { enrol(number) } else { number.get() })
        .unwrap_or(0)
}

#[cold]
fn enrol(number: &Cell<usize>) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    number.set(NEXT.fetch_add(1, Relaxed));
    number.get()
}
