//! The public surface, in one binary.

#![expect(clippy::unwrap_used, reason = "also in the helpers of tests, a panic fails the test")]

use std::sync::Arc;
use std::time::Duration;

use escala_replicas::{NodeStats, Replicas, ReplicasConfig, Strategy};
use tokio::time::Instant;

mod accounting;
mod config;
#[cfg(feature = "discovery")]
mod discovery;
mod ejection;
mod failover;
mod flapping;
#[cfg(feature = "http")]
mod http;
mod members;
mod model;
mod panic_mode;
mod postgres;
mod probe;
mod route;
mod service;
#[cfg(feature = "axum")]
mod session;
mod stats;
mod strategies;
mod tokens;
mod waiting;
mod zones;

/// A node that is only its name.
type Name = &'static str;

/// The documented set: a primary, and replicas of weights 3, 3, 2; no probe.
fn documented(strategy: Strategy) -> Replicas<Name> {
    Replicas::builder("primary")
        .replica("replica-1", 3, "replica-1")
        .replica("replica-2", 3, "replica-2")
        .replica("replica-3", 2, "replica-3")
        .strategy(strategy)
        .config(steady())
        .build()
        .unwrap()
}

/// The defaults without their random part, and without a slow start, which would blur the shares.
fn steady() -> ReplicasConfig {
    ReplicasConfig::default().jitter(0.0).slow_start(Duration::ZERO)
}

fn node<N>(db: &Replicas<N>, name: &str) -> NodeStats {
    db.stats().node(name).unwrap().clone()
}

/// Asserts that every node's books balance and returns how many requests are in flight.
fn in_flight<N>(db: &Replicas<N>) -> u64 {
    let nodes = db.stats().nodes;
    for node in &nodes {
        let ended = node.succeeded_total + node.failed_total + node.cancelled_total;
        assert_eq!(node.started_total, ended + node.in_flight, "{node:?}");
    }
    nodes.iter().map(|node| node.in_flight).sum()
}

/// Waits until `condition` holds, and fails the test if it does not within 30 s.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Resolves when nobody else holds `value`.
async fn released<T>(value: &Arc<T>) {
    eventually("the last other holder is gone", || Arc::strong_count(value) == 1).await;
}
