//! Makes a connection fit again that a lease left in the middle of something.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::error::BoxError;
use super::manager::PgManager;
use super::wire::TransactionStatus;
use crate::lease::Lease;
use crate::stats::CloseReason;

/// How long a query may end by itself before it is cancelled. Most statements that are dropped on the
/// way end sooner, and the first cancels cost a connection each.
const GRACE: Duration = Duration::from_millis(3);

/// The same for a COPY from the client, once it has begun; at most half of `recovery_timeout`.
const COPY_GRACE: Duration = Duration::from_millis(200);

/// The longest time between two cancels of the same statement.
const SLOWEST: Duration = Duration::from_millis(200);

/// Cancels and rolls back in a task that keeps the lease, so that nobody else gets the connection
/// meanwhile. If that fails or takes longer than `recovery_timeout`, the connection is closed.
pub(super) fn spawn(mut lease: Lease<PgManager>) {
    // Should the runtime stop, the task is dropped and the connection closed.
    lease.doom(CloseReason::Dirty);
    let shared = Arc::clone(lease.shared());
    let runtime = shared.runtime.clone();
    runtime.spawn(async move {
        let began = Instant::now();
        let repaired = timeout(recovery_timeout(&lease), repair(&lease)).await;
        let fit = matches!(repaired, Ok(Ok(())));
        if fit {
            lease.spare();
        }
        shared.recovered(fit, began.elapsed());
    });
}

fn recovery_timeout(lease: &Lease<PgManager>) -> Duration {
    lease.shared().config.recovery_timeout
}

/// Leaves the connection idle, without a transaction, or fails.
pub(super) async fn repair(lease: &Lease<PgManager>) -> Result<(), BoxError> {
    let state = lease.wire.state();
    if lease.is_interrupted() || state.is_busy() || state.doubtful {
        drain(lease).await?;
    }
    if lease.wire.transaction() != TransactionStatus::Idle {
        lease.client.batch_execute("ROLLBACK").await?;
    }
    lease.settled();
    let fit = !lease.is_dirty() && !lease.is_broken();
    if fit { Ok(()) } else { Err("it is not as new".into()) }
}

/// Returns when the server has answered everything that was sent.
async fn drain(lease: &Lease<PgManager>) -> Result<(), BoxError> {
    if lease.wire.state().stuck {
        return Err("a COPY that nobody can end".into());
    }
    // It is answered last. An empty query and not a bare Sync, since its answer tells whether one
    // too many came before it; see `State::doubtful`.
    let mut last = pin!(lease.client.batch_execute(""));
    let canceller = lease.shared().manager.manager.canceller();
    let (mut patience, mut backoff, mut answered) = (GRACE, GRACE, lease.wire.answered());
    let (mut cancelled, mut spared) = (false, false);
    loop {
        match timeout(patience, last.as_mut()).await {
            Ok(answer) => break ready(answer)?,
            // The driver has ended it, so it ends by itself soon. If a cancel hits the server before
            // that has read what was sent ahead of the data, it answers once too often, and the
            // connection is lost. A COPY that begins only after this look may still be hit so.
            Err(_) if !spared && lease.wire.state().copying => {
                (spared, patience) = (true, COPY_GRACE.min(recovery_timeout(lease) / 2));
            }
            // A pipeline may have left several behind, and one cancel ends one.
            Err(_) if lease.wire.is_busy() => {
                canceller.cancel(lease, cancelled).await?;
                cancelled = true;
                // A backend that does not hear is not shouted at.
                let stuck = lease.wire.answered() == answered;
                backoff = if stuck { (2 * backoff).min(SLOWEST) } else { GRACE };
                patience = backoff;
                answered = lease.wire.answered();
            }
            Err(_) => {}
        }
    }
    if cancelled {
        // The signal was sent before the cancel returned. A backend that had nothing to do takes
        // it with the next message at the latest: let that be this one.
        ready(lease.client.batch_execute("").await)?;
        // An error comes before the word that the server is ready.
        lease.wire.answered_all().await;
    }
    Ok(())
}

/// The server is ready as well if the cancel hit what waited for that.
fn ready(answer: Result<(), Error>) -> Result<(), Error> {
    match answer {
        Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => Ok(()),
        answer => answer,
    }
}
