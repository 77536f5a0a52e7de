//! Changes that did not reach the store are repeated until they have; until then the store is
//! not believed, since what they should have taken away may stand there still.

use std::sync::{Arc, Weak};
use std::time::Duration;

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
    pending: Pending,
    /// Changes taken out of `pending` and being tried.
    trying: usize,
    /// A task is at work.
    running: bool,
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
        let mut recovery = self.recovery.lock();
        recovery.pending.add(change);
        if !recovery.running {
            recovery.running = true;
            load::spawn(replay(Running { shared: Arc::downgrade(self), done: false }, source));
        }
    }

    /// Tries all that is pending once; whether nothing is left.
    async fn try_pending(&self, source: u64) -> bool {
        let changes = {
            let mut recovery = self.recovery.lock();
            let changes = recovery.pending.take();
            recovery.trying = changes.len();
            changes
        };
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
        let recovery = self.recovery.lock();
        recovery.pending.is_empty() && recovery.trying == 0
    }

    pub(crate) fn stats(&self) -> SharedLayerStats {
        let pending = {
            let recovery = self.recovery.lock();
            recovery.pending.len() + recovery.trying
        };
        self.counts.stats(pending)
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
        let mut recovery = shared.recovery.lock();
        self.done = recovery.pending.is_empty();
        recovery.running = !self.done;
        self.done
    }
}

impl<V> Drop for Running<V> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade().filter(|_| !self.done) {
            shared.recovery.lock().running = false;
        }
    }
}

struct Trying<'a, V> {
    shared: &'a Shared<V>,
    changes: Vec<Change>,
}

impl<V> Drop for Trying<'_, V> {
    fn drop(&mut self) {
        let mut recovery = self.shared.recovery.lock();
        recovery.trying = 0;
        for change in self.changes.drain(..) {
            recovery.pending.add(change);
        }
    }
}
