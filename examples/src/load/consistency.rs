//! Do the books balance once everything is done?

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::server::Server;
use super::user::User;
use crate::enterprise::domain::Audit;

/// What the lanes need for what is left when the last user has gone.
const LANES_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// Waits until the lanes are empty, stops the server if it is ours, and compares what was
/// acknowledged with what is there. Empty: everything adds up.
pub(super) async fn check(server: Server, crowd: Vec<User>) -> anyhow::Result<Vec<String>> {
    empty_lanes(&server).await?;
    match server {
        Server::Started(mut started) => {
            let node = started.stop().await?;
            let mut differences = balance(&node.audit().await?, &crowd, true);
            let acknowledged: Vec<i64> =
                crowd.iter().flat_map(|user| user.orders.iter().copied()).collect();
            let missing = node.missing_orders(&acknowledged).await?;
            if !missing.is_empty() {
                differences.push(format!("{} acknowledged orders are missing", missing.len()));
            }
            node.close().await;
            Ok(differences)
        }
        Server::Target(address) => {
            let mut differences = balance(&audit(address).await?, &crowd, false);
            // Every user looks after its own orders, all users at once: there may be many.
            let mut looking = JoinSet::new();
            for mut user in crowd {
                looking.spawn(async move { user.missing_orders().await });
            }
            let mut missing = 0;
            while let Some(looked) = looking.join_next().await {
                missing += looked??;
            }
            if missing > 0 {
                differences.push(format!("{missing} acknowledged orders are missing or unsettled"));
            }
            Ok(differences)
        }
    }
}

/// The audit's own sums; in a database that is all ours also the counts: an operation that failed
/// at the client may have been done, so there may be more than was acknowledged, never fewer.
fn balance(audit: &Audit, crowd: &[User], ours: bool) -> Vec<String> {
    let mut differences = audit.differences();
    let acknowledged: usize = crowd.iter().map(|user| user.orders.len()).sum();
    let transfers: u64 = crowd.iter().map(|user| user.transfers).sum();
    let mut expect = |what, there: i64, acknowledged: i64, exact: bool| {
        if there < acknowledged || (exact && there != acknowledged) {
            differences.push(format!("{there} {what} for {acknowledged} acknowledged"));
        }
    };
    let exact = ours && crowd.iter().all(User::is_certain);
    expect("orders", audit.orders, i64::try_from(acknowledged).unwrap_or(i64::MAX), exact);
    if exact {
        expect("settlement runs", audit.settlement_runs, audit.orders, true);
    }
    expect("transfers", audit.transfers, i64::try_from(transfers).unwrap_or(i64::MAX), exact);
    differences
}

/// Waits until the lanes are empty; how they describe themselves then.
pub(super) async fn empty_lanes(server: &Server) -> anyhow::Result<Value> {
    let deadline = Instant::now() + LANES_PATIENCE;
    loop {
        let (status, body) = super::get(server.address(), "/api/enterprise/queues/status").await?;
        ensure!(status.is_success(), "queues: {status}: {body}");
        let lanes: Value = serde_json::from_str(&body).context("queues")?;
        let mut left = jobs_left(&lanes)?;
        if left == 0 {
            // What a full lane refused is in no lane until the server's next sweep.
            let audit = audit(server.address()).await?;
            left = (audit.unsettled + audit.unbooked).unsigned_abs();
            if left == 0 {
                return Ok(lanes);
            }
        }
        ensure!(Instant::now() < deadline, "{left} jobs are left after {LANES_PATIENCE:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// The sums as the server reads them.
async fn audit(server: SocketAddr) -> anyhow::Result<Audit> {
    let (status, body) = super::get(server, "/api/enterprise/audit").await?;
    ensure!(status.is_success(), "audit: {status}: {body}");
    serde_json::from_str(&body).context("audit")
}

fn jobs_left(queues: &Value) -> anyhow::Result<u64> {
    let lanes = queues["lanes"].as_array().context("no lanes")?;
    let fields = ["depth", "delayed", "running"];
    let figures = lanes.iter().flat_map(|lane| fields.map(|field| lane[field].as_u64()));
    figures.sum::<Option<u64>>().context("a lane without its figures")
}
