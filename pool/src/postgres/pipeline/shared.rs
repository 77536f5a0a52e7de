//! The connection of a pipeline: a lease whose session refuses writes.

use std::ops::Deref;
use std::sync::{Arc, Weak};

use tokio::time::{Instant, timeout};

use super::super::connection::PgConnection;
use super::super::error::BoxError;
use super::super::manager::PgManager;
use super::super::recovery;
use super::schedule::Look;
use super::{Pipelines, watch};
use crate::lease::Lease;
use crate::stats::CloseReason;

/// Given back when its last user is gone.
#[derive(Debug)]
pub(super) struct SharedConnection {
    /// `Some` until the drop.
    lease: Option<Lease<PgManager>>,
    expires: Instant,
}

impl SharedConnection {
    async fn new(mut lease: Lease<PgManager>) -> Result<Self, BoxError> {
        let shared = Arc::clone(lease.shared());
        let expires = lease.expires();
        lease.unwatch();
        // Made first, so that the drop takes it back wherever this ends.
        let conn = Self { lease: Some(lease), expires };
        conn.interrupt();
        let refuse = conn.client.batch_execute("SET default_transaction_read_only = on");
        timeout(shared.config.recovery_timeout, refuse).await??;
        conn.settled();
        Ok(conn)
    }

    pub(super) fn look(&self, now: Instant, wanted: bool) -> Look {
        let state = self.wire.state();
        Look {
            answered: self.wire.answered(),
            busy: state.is_busy(),
            // A function of the user can switch writes on again, and the server says so.
            unfit: self.is_broken()
                || state.default_read_only == Some(false)
                || now >= self.expires,
            wanted,
        }
    }
}

impl Deref for SharedConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.lease.as_ref().expect("the lease is there until the drop")
    }
}

impl Drop for SharedConnection {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take()
            && !lease.is_broken()
        {
            give_back(lease);
        }
    }
}

/// Cancels what nobody waits for and allows writes again, in a task that keeps the lease. If that
/// fails or takes longer than `recovery_timeout`, the connection is closed.
fn give_back(mut lease: Lease<PgManager>) {
    // Should the runtime stop, the task is dropped and the connection closed.
    lease.doom(CloseReason::Dirty);
    let shared = Arc::clone(lease.shared());
    let runtime = shared.runtime.clone();
    runtime.spawn(async move {
        let began = Instant::now();
        let dirty = lease.is_dirty();
        let made_fit = async {
            if dirty {
                recovery::repair(&lease).await?;
            }
            lease.client.batch_execute("RESET default_transaction_read_only").await?;
            Ok::<(), BoxError>(())
        };
        let made_fit = timeout(shared.config.recovery_timeout, made_fit).await;
        let fit = matches!(made_fit, Ok(Ok(())));
        if fit {
            lease.spare();
        }
        if dirty || !fit {
            shared.recovered(fit, began.elapsed());
        }
    });
}

/// Opens one pipeline more in the background, in its turn among all who want a connection.
pub(super) fn open(pipelines: &Arc<Pipelines>) {
    let pool = pipelines.pool.clone();
    let opening = Opening(Arc::downgrade(pipelines));
    pool.runtime().clone().spawn(async move {
        // Why it failed is told to those who want a connection of their own.
        if let Ok(lease) = pool.acquire().await
            && let Ok(conn) = SharedConnection::new(lease.unwatched()).await
        {
            opening.opened(conn);
        }
    });
}

/// Tells the schedule that nothing came, unless something did.
struct Opening(Weak<Pipelines>);

impl Opening {
    fn opened(self, conn: SharedConnection) {
        let Some(pipelines) = self.0.upgrade() else { return };
        let answered = conn.wire.answered();
        let (refused, unwatched) = {
            let mut state = pipelines.state.lock();
            let refused = state.schedule.opened(Arc::new(conn), answered);
            let unwatched = refused.is_none() && !std::mem::replace(&mut state.watched, true);
            (refused, unwatched)
        };
        if unwatched {
            watch::spawn(&pipelines);
        }
        drop(refused);
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(pipelines) = self.0.upgrade() {
            pipelines.state.lock().schedule.opening_ended();
        }
    }
}
