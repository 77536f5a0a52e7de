//! The background work of a pool: idle connections are tested and in the end closed, `min_idle` of
//! them kept, what is missing opened, and leases watched that are held for too long.

use std::future::pending;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::config::some;
use crate::event::{self, PoolEvent};
use crate::gate::Plan;
use crate::leaks::Leaks;
use crate::lease::Stored;
use crate::manager::{Books, Manager, caught};
use crate::shared::Shared;
use crate::stats::CloseReason;

/// The longest time between two looks at the idle connections, as HikariCP's housekeeper has it.
const LONGEST_PERIOD: Duration = Duration::from_secs(30);

/// Starts the task. It ends when the pool is dropped, which drops the sender of `ended`.
pub(crate) fn spawn<M: Manager>(shared: &Arc<Shared<M>>, ended: oneshot::Receiver<()>) {
    let weak = Arc::downgrade(shared);
    let books = Arc::clone(&shared.books);
    let leaks = shared.leaks.clone();
    shared.runtime.spawn(async move {
        tokio::select! {
            _ = ended => {}
            () = tend(&weak, &books) => {}
            () = settle(&weak, &books) => {}
            () = watch(&books, leaks.as_deref()) => {}
        }
    });
}

/// Looks at the idle connections and opens what is missing, again and again.
async fn tend<M: Manager>(shared: &Weak<Shared<M>>, books: &Books) {
    loop {
        let next = {
            let Some(shared) = shared.upgrade() else { return };
            match caught(round(&shared)).await {
                Ok(next) => next,
                Err(message) => {
                    // The driver's: it goes on at the next round.
                    event::upkeep_panicked(&message);
                    Instant::now() + period(&shared)
                }
            }
        };
        tokio::select! {
            () = sleep_until(next) => {}
            () = books.upkeep.notified() => {}
        }
    }
}

/// Whatever closes a connection says so here. Apart from `tend`, which may be busy with a test.
async fn settle<M: Manager>(shared: &Weak<Shared<M>>, books: &Books) {
    loop {
        books.unsettled.notified().await;
        let Some(shared) = shared.upgrade() else { return };
        // What panics is the drop of a connection, and the next one need not.
        if let Err(message) = caught(async { shared.settle() }).await {
            event::upkeep_panicked(&message);
            books.unsettled.notify_one();
        }
        if shared.gate.lacks() {
            books.upkeep.notify_one();
        }
    }
}

async fn watch(books: &Books, leaks: Option<&Leaks>) {
    let Some(leaks) = leaks else { return pending().await };
    loop {
        let (suspects, next) = leaks.look(Instant::now());
        for suspect in suspects {
            let (held, place) = (suspect.held, suspect.place);
            books.observer.tell(&PoolEvent::LeakSuspected { held, place });
        }
        sleep_until(next).await;
    }
}

/// One round; returns when the next is due.
async fn round<M: Manager>(shared: &Arc<Shared<M>>) -> Instant {
    // One test at a time, so that at most one idle connection is away from the callers.
    let next = loop {
        let look = look(shared, Instant::now());
        // Somebody may have wanted one meanwhile, or the pool was closed.
        shared.settle();
        let Some(mut stored) = look.due else { break look.next };
        match shared.test(&mut stored).await {
            Ok(()) => shared.put(stored),
            Err(_told_already) => shared.retire(stored, CloseReason::Invalid),
        }
    };
    fill(shared).await;
    next
}

/// Opens what `min_idle` asks for, one after another, so that a server that many pools come back to
/// meets one connect of each at a time. If the server is being left alone, the end of that wakes us.
async fn fill<M: Manager>(shared: &Arc<Shared<M>>) {
    loop {
        match shared.gate.plan_upkeep(Instant::now()) {
            Plan::Nothing => return,
            Plan::Connect(connecting) => shared.connect(connecting).await,
            Plan::At(until) => return shared.connect_at(until),
        }
    }
}

/// What a look at the idle connections found.
struct Look<M: Manager> {
    /// A connection that was idle for so long that it should be tested.
    due: Option<Stored<M>>,
    next: Instant,
}

/// Takes all idle connections out for a moment, without an await in between; closes those that were
/// idle or lived for too long, and puts the others back, the one used last on top.
fn look<M: Manager>(shared: &Shared<M>, now: Instant) -> Look<M> {
    let stats = shared.gate.snapshot();
    let mut look = Look { due: None, next: now + period(shared) };
    let mut unfit = Vec::new();
    if let Some(mut sweep) = shared.gate.sweep() {
        let mut idle = Vec::with_capacity(sweep.claims());
        while sweep.claims() > 0 {
            let stored = shared.take();
            sweep.used();
            idle.extend(stored);
        }
        // The store is a stack: what came last was used first.
        idle.reverse();
        idle.sort_by_key(|stored| stored.used);
        let keep = shared.config.min_idle.min(stats.max_size);
        let mut surplus = stats.size.saturating_sub(keep);
        for mut stored in idle {
            let reason = if shared.manager.is_broken(&mut stored.conn) {
                Some(CloseReason::Broken)
            } else if now >= stored.expires {
                Some(CloseReason::Lifetime)
            } else {
                let idle = surplus > 0 && now >= stored.used + shared.config.idle_timeout;
                idle.then_some(CloseReason::Idle)
            };
            if let Some(reason) = reason {
                surplus = surplus.saturating_sub(1);
                unfit.push((stored, reason));
                continue;
            }
            match some(shared.config.keepalive) {
                Some(keepalive) if !stats.paused => {
                    let due = stored.alive + keepalive.mul_f64(stored.stagger);
                    if due <= now && look.due.is_none() {
                        look.due = Some(stored);
                        continue;
                    }
                    look.next = look.next.min(due);
                    shared.put(stored);
                }
                _ => shared.put(stored),
            }
        }
    }
    for (stored, reason) in unfit {
        shared.retire(stored, reason);
    }
    look
}

/// Often enough that a connection is closed within a third more of its idle time.
fn period<M: Manager>(shared: &Shared<M>) -> Duration {
    (shared.config.idle_timeout / 3).min(LONGEST_PERIOD).max(Duration::from_millis(1))
}
