//! The state that a queue's handles and workers share, and the one way to change it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::config::QueueConfig;
use crate::engine::Store;
use crate::lane::{Lane, PerLane};
use crate::schedule::{Scheduler, WorkerId};

/// Delayed jobs made ready under one hold of the lock, so that ten thousand jobs due at once do
/// not hold up an enqueue.
const PROMOTED_AT_ONCE: usize = 256;

pub(crate) struct Shared {
    pub(crate) config: QueueConfig,
    /// Free places of each lane. A job holds one from its enqueue until it has left the lane, so
    /// a retry always has its place. Closed when the queue is.
    pub(crate) places: PerLane<Semaphore>,
    core: Mutex<Core>,
    /// Rung when a delayed job is due sooner than any before.
    sooner: Notify,
    idle: Notify,
    drained: Notify,
}

/// What is under the lock. Nothing here waits, and nothing of the caller's runs under it.
pub(crate) struct Core {
    pub(crate) store: Store,
    pub(crate) scheduler: Scheduler,
    /// Indexed by worker. A bell keeps one ring, so a call cannot be missed.
    bells: Vec<Arc<Notify>>,
    pub(crate) service_errors: u64,
    pub(crate) closed: bool,
}

impl Core {
    pub(crate) fn join(&mut self, home: Lane) -> (WorkerId, Arc<Notify>) {
        let bell = Arc::new(Notify::new());
        let id = self.scheduler.join(home);
        if id == self.bells.len() {
            self.bells.push(Arc::clone(&bell));
        } else {
            self.bells[id] = Arc::clone(&bell);
        }
        (id, bell)
    }
}

impl Shared {
    pub(crate) fn new(config: QueueConfig, store: Store) -> Self {
        let places = PerLane::from_fn(|lane| Semaphore::new(config.lane(lane).capacity));
        let core = Core {
            store,
            scheduler: Scheduler::default(),
            bells: Vec::new(),
            service_errors: 0,
            closed: false,
        };
        Self {
            config,
            places,
            core: Mutex::new(core),
            sooner: Notify::new(),
            idle: Notify::new(),
            drained: Notify::new(),
        }
    }

    /// Looks at the state without changing what the scheduler decides by.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&Core) -> R) -> R {
        look(&self.core.lock())
    }

    /// Changes the state, then calls the workers and waiters whom the change concerns, with the
    /// lock already released.
    pub(crate) fn change<R>(&self, act: impl FnOnce(&mut Core) -> R) -> R {
        let mut core = self.core.lock();
        let due = core.store.next_due();
        let was_idle = core.store.is_idle();
        let result = act(&mut core);

        // Mostly empty, and then without an allocation.
        let mut called = Vec::new();
        let ready = core.store.ready();
        while let Some(worker) = core.scheduler.next(&ready) {
            called.push(Arc::clone(&core.bells[worker]));
        }
        let sooner = core.store.next_due().is_some_and(|new| due.is_none_or(|old| new < old));
        let is_idle = core.store.is_idle();
        let closed = core.closed;
        drop(core);

        for bell in called {
            bell.notify_one();
        }
        if sooner {
            self.sooner.notify_waiters();
        }
        if is_idle && !was_idle {
            self.idle.notify_waiters();
        }
        if is_idle && closed {
            self.drained.notify_waiters();
        }
        result
    }

    pub(crate) fn close(&self) {
        for lane in Lane::ALL {
            self.places[lane].close();
        }
        self.change(|core| core.closed = true);
    }

    /// Resolves when no job is ready, delayed or running.
    pub(crate) async fn until_idle(&self) {
        until(&self.idle, || self.read(|core| core.store.is_idle())).await;
    }

    /// Resolves when the queue is closed and holds no job.
    pub(crate) async fn until_drained(&self) {
        until(&self.drained, || self.read(|core| core.closed && core.store.is_idle())).await;
    }

    /// Makes delayed jobs ready when their time has come; never ends.
    pub(crate) async fn keep_time(&self) {
        loop {
            let sooner = self.sooner.notified();
            tokio::pin!(sooner);
            sooner.as_mut().enable();
            let (promoted, due) = self.change(|core| {
                let promoted = core.store.promote(Instant::now(), PROMOTED_AT_ONCE);
                (promoted, core.store.next_due())
            });
            if promoted == PROMOTED_AT_ONCE {
                tokio::task::yield_now().await;
                continue;
            }
            match due {
                Some(due) => tokio::select! {
                    () = sooner => {}
                    () = sleep_until(due) => {}
                },
                None => sooner.await,
            }
        }
    }
}

/// Waits until the condition holds; whoever makes it true rings. Listens before it looks, so that
/// a ring in between is not missed.
async fn until(bell: &Notify, condition: impl Fn() -> bool) {
    loop {
        let rung = bell.notified();
        tokio::pin!(rung);
        rung.as_mut().enable();
        if condition() {
            return;
        }
        rung.await;
    }
}
