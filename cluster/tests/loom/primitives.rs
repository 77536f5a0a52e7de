//! loom's primitives in the forms that a breaker uses.

use std::cell::Cell;
use std::time::Duration;

pub(crate) use loom::sync::Arc;
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().expect("nobody has panicked")
    }

    pub(crate) fn try_lock(&self) -> Option<loom::sync::MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }
}

thread_local! {
    /// loom runs all its threads in turn on one of the system.
    static NOW: Cell<u64> = const { Cell::new(0) };
}

loom::thread_local! {
    static THREAD: Cell<usize> = Cell::new(0);
}

/// The time is what a test says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Instant;

impl Instant {
    pub(crate) fn now() -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "as the real one is called")]
    pub(crate) fn elapsed(self) -> Duration {
        Duration::from_nanos(NOW.get())
    }
}

/// Sets the time for all threads: not while they race.
pub(crate) fn set_time(time: Duration) {
    NOW.set(time.as_nanos().try_into().expect("small"));
}

pub(crate) fn thread() -> usize {
    THREAD.with(Cell::get)
}

/// The calling thread counts in a shard of its own.
pub(crate) fn set_thread(number: usize) {
    THREAD.with(|thread| thread.set(number));
}
