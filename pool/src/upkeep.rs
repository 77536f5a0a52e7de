//! Keeps `min_idle` connections open and warm.
//!
//! bb8 closes every connection that was idle for too long. A test in between counts as use, so
//! those most recently used stay; it also finds the dead ones before a caller does.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::manager::Manager;
use crate::pool::Shared;

/// Starts the task. It ends when the pool is dropped, which drops the sender of `ended`.
pub(crate) fn spawn<M: Manager>(
    shared: &Arc<Shared<M>>,
    min_idle: usize,
    ended: oneshot::Receiver<()>,
) {
    if min_idle == 0 {
        return;
    }
    // Twice within the timeout, so that one round may be late.
    let period = shared.config.idle_timeout / 2;
    shared.runtime.spawn(run(Arc::downgrade(shared), min_idle, period, ended));
}

async fn run<M: Manager>(
    shared: Weak<Shared<M>>,
    min_idle: usize,
    period: Duration,
    mut ended: oneshot::Receiver<()>,
) {
    loop {
        {
            let Some(shared) = shared.upgrade() else { return };
            keep_warm(&shared, min_idle).await;
            fill(&shared, min_idle).await;
        }
        tokio::select! {
            _ = &mut ended => return,
            () = tokio::time::sleep(period) => {}
        }
    }
}

async fn keep_warm<M: Manager>(shared: &Arc<Shared<M>>, min_idle: usize) {
    let mut held = Vec::with_capacity(min_idle);
    while held.len() < min_idle {
        let Some(lease) = Shared::spare(shared).await else { break };
        held.push(lease);
    }
    // The store is a stack: the one taken last goes back first.
    while let Some(mut lease) = held.pop() {
        lease.test().await;
    }
}

/// Opens what is missing, one by one. What fails is tried again in the next round.
async fn fill<M: Manager>(shared: &Shared<M>, min_idle: usize) {
    for _ in 0..min_idle {
        if shared.size() >= min_idle || !shared.grow().await {
            return;
        }
    }
}
