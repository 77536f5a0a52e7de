//! Makes a connection fit again that a lease left in the middle of something.

use std::sync::Arc;

use tokio::time::{Instant, timeout};

use super::cancel::BoxError;
use super::manager::PgManager;
use crate::lease::Lease;
use crate::stats::CloseReason;

/// Cancels and rolls back in a task that keeps the lease, so that nobody else gets the connection
/// meanwhile. If that fails or takes longer than `recovery_timeout`, the connection is closed.
pub(super) fn spawn(mut lease: Lease<PgManager>) {
    // Should the runtime stop, the task is dropped and the connection closed.
    lease.doom(CloseReason::Dirty);
    let shared = Arc::clone(lease.shared());
    let runtime = shared.runtime.clone();
    runtime.spawn(async move {
        let began = Instant::now();
        let repaired = timeout(shared.config.recovery_timeout, repair(&lease)).await;
        let fit = matches!(repaired, Ok(Ok(())));
        if fit {
            lease.spare();
        }
        shared.recovered(fit, began.elapsed());
    });
}

async fn repair(lease: &Lease<PgManager>) -> Result<(), BoxError> {
    if lease.is_interrupted() {
        let target = lease.shared().manager.manager.cancel.as_ref();
        let target = target.ok_or("the connection string names several servers")?;
        target.cancel(&lease.client.cancel_token()).await?;
    }
    // Both are answered after everything sent before, so the connection is idle then.
    if lease.may_be_in_transaction() {
        lease.client.batch_execute("ROLLBACK").await?;
        lease.leave_transaction();
    } else {
        lease.client.check_connection().await?;
    }
    lease.settled();
    Ok(())
}
