//! Connects, each in a task of its own: a caller who leaves takes nobody's connection along.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use crate::event::PoolEvent;
use crate::gate::{Connecting, Failure, Plan};
use crate::manager::{Manager, Member, Slot};
use crate::shared::Shared;

impl<M: Manager> Shared<M> {
    /// Starts the connects that are due, and sees to it that those are not forgotten that the
    /// backoff puts off.
    pub(crate) fn connect_if_due(self: &Arc<Self>) {
        loop {
            match self.gate.plan(Instant::now()) {
                Plan::Nothing => return,
                Plan::Connect(connecting) => {
                    let this = Arc::clone(self);
                    // In a runtime that has ended this drops the connect at once, and with it the
                    // wishes of all who wait: so the next plan is another one.
                    self.runtime.spawn(async move { this.connect(connecting).await });
                }
                Plan::At(until) => return self.connect_at(until),
            }
        }
    }

    /// Asks for the plan again when the backoff ends. A pool that is dropped meanwhile is let go.
    pub(crate) fn connect_at(self: &Arc<Self>, until: Instant) {
        let this = Arc::downgrade(self);
        self.runtime.spawn(async move {
            sleep_until(until).await;
            if let Some(this) = this.upgrade() {
                this.gate.paced();
                this.connect_if_due();
                // What is opened for callers may not be all.
                this.books.upkeep.notify_one();
            }
        });
    }

    pub(crate) async fn connect(self: &Arc<Self>, connecting: Connecting) {
        let began = Instant::now();
        let result = self.manager.handshake().await;
        let now = Instant::now();
        let took = now - began;
        match result {
            Ok(conn) => {
                let slot = self.slot(conn, connecting, began, now);
                self.tell(&PoolEvent::Connected { took });
                // It always fits: bb8 has no bound that the gate could reach.
                if self.store.add(Box::new(slot)).is_ok() {
                    self.gate.put();
                }
            }
            Err(cause) => {
                let chance = fastrand::f64();
                let until = connecting.failed(Failure { began, now, chance, cause: &cause });
                let backoff = until.saturating_duration_since(now);
                self.tell(&PoolEvent::ConnectFailed { took, error: &*cause, backoff });
            }
        }
        self.settle();
        if self.gate.lacks() {
            self.books.upkeep.notify_one();
        }
    }

    fn slot(
        &self,
        conn: M::Connection,
        connecting: Connecting,
        began: Instant,
        now: Instant,
    ) -> Slot<M::Connection> {
        connecting.made(now - began);
        let member = Member::new(Arc::clone(&self.books), now);
        let lifetime = self.config.max_lifetime.mul_f64(less_a_tenth());
        let (expires, stagger) = (now + lifetime, less_a_tenth());
        Slot { conn, fit: true, used: now, alive: now, expires, stagger, member }
    }
}

/// From 0.9 to 1, by chance: what was opened together shall not end together.
fn less_a_tenth() -> f64 {
    1.0 - fastrand::f64() / 10.0
}
