//! Changes that did not reach the store are repeated until they have; until then the store is
//! not believed, since what they should have taken away may stand there still.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::Shared;
use super::counts::raise;
use super::pending::Pending;
use crate::change::Change;
use crate::error::StoreError;
use crate::load;
use crate::stats::SharedLayerStats;

/// Between two tries: long against an operation, short against the pause of a breaker.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub(super) struct Recovery {
    owed: Mutex<Owed>,
    /// Whether there are any, for those who only read the store.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct Owed {
    pending: Pending,
    /// Changes taken out of `pending` and being tried.
    trying: usize,
    /// A task is at work.
    running: bool,
}

impl Recovery {
    fn with<T>(&self, work: impl FnOnce(&mut Owed) -> T) -> T {
        let mut owed = self.owed.lock();
        let done = work(&mut owed);
        // Under the lock, so that the last to store it has seen the last state. Whoever reads the
        // store after a removal has returned finds it, if the removal is owed.
        self.any.store(owed.len() > 0, Ordering::Release);
        done
    }
}

impl Owed {
    fn len(&self) -> usize {
        self.pending.len() + self.trying
    }
}

impl<V: Send + Sync + 'static> Shared<V> {
    /// Carries out `change` in the store and tells other processes.
    ///
    /// # Errors
    /// When it did not reach the store. It is repeated until it does, and this process does not
    /// believe the store before.
    pub(crate) async fn change(
        self: &Arc<Self>,
        source: u64,
        change: Change,
    ) -> Result<(), StoreError> {
        let outcome = self.apply(source, &change).await;
        if let Err(error) = &outcome {
            self.note(error);
            self.repeat(source, change);
        }
        outcome
    }

    /// Repeats `change` in the background until it has reached the store.
    pub(crate) fn repeat(self: &Arc<Self>, source: u64, change: Change) {
        self.recovery.with(|owed| {
            owed.pending.add(change);
            if !owed.running {
                owed.running = true;
                load::spawn(replay(Running { shared: Arc::downgrade(self), done: false }, source));
            }
        });
    }

    /// Tries all that is pending once; whether nothing is left.
    async fn try_pending(&self, source: u64) -> bool {
        let changes = self.recovery.with(|owed| {
            let changes = owed.pending.take();
            owed.trying = changes.len();
            changes
        });
        // Owned by a guard, so that a task that is dropped gives them back.
        let mut trying = Trying { shared: self, changes };
        while let Some(change) = trying.changes.last() {
            if let Err(error) = self.apply(source, change).await {
                self.note(&error);
                return false;
            }
            raise(&self.counts.replayed);
            trying.changes.pop();
        }
        true
    }
}

impl<V> Shared<V> {
    /// Whether every change of this process has reached the store.
    pub(super) fn is_trusted(&self) -> bool {
        !self.recovery.any.load(Ordering::Acquire)
    }

    pub(crate) fn stats(&self) -> SharedLayerStats {
        self.counts.stats(self.recovery.owed.lock().len())
    }
}

async fn replay<V: Send + Sync + 'static>(mut running: Running<V>, source: u64) {
    loop {
        tokio::time::sleep(PAUSE.mul_f64(1.0 + fastrand::f64())).await;
        let Some(shared) = running.shared.upgrade() else { return };
        if shared.try_pending(source).await && running.end_if_done(&shared) {
            return;
        }
    }
}

/// The task that repeats; dropped with its runtime, it leaves its place to another.
struct Running<V> {
    shared: Weak<Shared<V>>,
    done: bool,
}

impl<V> Running<V> {
    /// Gives the place up if nothing came meanwhile, in one step with the look.
    fn end_if_done(&mut self, shared: &Shared<V>) -> bool {
        shared.recovery.with(|owed| {
            self.done = owed.pending.is_empty();
            owed.running = !self.done;
            self.done
        })
    }
}

impl<V> Drop for Running<V> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade().filter(|_| !self.done) {
            shared.recovery.with(|owed| owed.running = false);
        }
    }
}

struct Trying<'a, V> {
    shared: &'a Shared<V>,
    changes: Vec<Change>,
}

impl<V> Drop for Trying<'_, V> {
    fn drop(&mut self) {
        self.shared.recovery.with(|owed| {
            owed.trying = 0;
            for change in self.changes.drain(..) {
                owed.pending.add(change);
            }
        });
    }
}
