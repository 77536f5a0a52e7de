//! What a set has done so far, as plain figures.

use std::sync::atomic::Ordering::Relaxed;

use crate::member::Settings;
use crate::topology::Seat;
use crate::{Exclusion, Reason, Role};

/// Receives one figure: its name, its labels, its value.
pub type Emit<'a> = dyn FnMut(&str, &[(&str, &str)], f64) + 'a;

/// A snapshot of a set.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ReplicasStats {
    /// How reads are spread, in a word.
    pub strategy: &'static str,
    /// In the order they were added.
    pub nodes: Vec<NodeStats>,
    /// Whether so few replicas are healthy that ejection by requests alone is ignored.
    pub panic: bool,
    /// Requests that wait for a place.
    pub waiting: u64,
    /// Picks that have not ended on nodes that were removed.
    pub draining: u64,
    /// Requests that were given no node.
    pub refused_total: u64,
    /// Reads that waited for a replica to come as far as their session must see.
    pub token_waits_total: u64,
    /// Of these, those for which none came so far in time.
    pub token_waits_missed_total: u64,
}

/// A snapshot of one node. `started_total` is the sum of what succeeded, failed, was cancelled and is in
/// flight; while requests start and end, the figures may be apart by these.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NodeStats {
    /// As given to the builder; `primary` for a primary that was given none.
    pub name: String,
    /// What the node is in its set at present.
    pub role: Role,
    /// Share of the balanced reads, which a primary takes none of.
    pub weight: u32,
    /// Where it stands, if said.
    pub zone: Option<String>,
    /// Not ejected.
    pub healthy: bool,
    /// Why its monitor keeps it out, if so.
    pub excluded: Option<Exclusion>,
    /// How far behind its monitor last saw it, in seconds; `None` if unknown.
    pub lag_seconds: Option<f64>,
    /// The same in bytes.
    pub lag_bytes: Option<u64>,
    /// Picks that have not ended.
    pub in_flight: u64,
    /// As many as it may have of these; `None` for any number.
    pub max_in_flight: Option<u64>,
    /// Picks.
    pub started_total: u64,
    /// Picks that ended without a failure of the node.
    pub succeeded_total: u64,
    /// Picks that ended with a failure of the node.
    pub failed_total: u64,
    /// Picks that were dropped without a verdict.
    pub cancelled_total: u64,
    /// Times the node was taken out of service.
    pub ejections_total: u64,
    /// Times it came back.
    pub returns_total: u64,
    /// Probes that ended.
    pub probes_total: u64,
    /// Of these, those that failed or ran out of time.
    pub probes_failed_total: u64,
    /// Picks by reason; all reasons, also those that never led to one.
    pub picks: Vec<ReasonStats>,
}

/// How often one reason led to a pick of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ReasonStats {
    /// Why the node was picked.
    pub reason: Reason,
    /// How often.
    pub picks_total: u64,
}

impl ReplicasStats {
    /// The figures of one node, by its name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeStats> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// How often `reason` led to a pick of any node that the set has at present.
    #[must_use]
    pub fn picks_for(&self, reason: Reason) -> u64 {
        self.nodes.iter().map(|node| node.picks_for(reason)).sum()
    }

    /// Hands every figure to `emit`. Names ending in `_total` are counters, the others gauges.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            strategy,
            nodes,
            panic,
            waiting,
            draining,
            refused_total,
            token_waits_total,
            token_waits_missed_total,
        } = self;
        emit("replicas_strategy", &[("strategy", strategy)], 1.0);
        for node in nodes {
            node.visit(emit);
        }
        emit("replicas_panic", &[], f64::from(u8::from(*panic)));
        emit("replicas_waiting", &[], *waiting as f64);
        emit("replicas_draining", &[], *draining as f64);
        emit("replicas_refused_total", &[], *refused_total as f64);
        emit("replicas_token_waits_total", &[], *token_waits_total as f64);
        emit("replicas_token_waits_missed_total", &[], *token_waits_missed_total as f64);
    }
}

impl NodeStats {
    pub(crate) fn of<N>(seat: &Seat<N>) -> Self {
        let Seat { node, role, settings, excluded } = seat;
        let Settings { weight, zone, max_in_flight } = settings;
        let tally = &node.tally;
        let freshness = node.freshness.load();
        let picks = Reason::ALL.iter().zip(&tally.picks);
        let picks: Vec<ReasonStats> = picks
            .map(|(&reason, count)| ReasonStats { reason, picks_total: count.load(Relaxed) })
            .collect();
        Self {
            name: node.name.clone(),
            role: *role,
            weight: *weight,
            zone: zone.as_deref().map(str::to_owned),
            healthy: !node.is_ejected(),
            excluded: *excluded,
            lag_seconds: freshness.lag.map(|lag| lag.as_secs_f64()),
            lag_bytes: freshness.lag_bytes,
            in_flight: tally.in_flight.load(Relaxed),
            max_in_flight: *max_in_flight,
            started_total: picks.iter().map(|entry| entry.picks_total).sum(),
            succeeded_total: tally.succeeded(),
            failed_total: tally.failed.load(Relaxed),
            cancelled_total: tally.cancelled.load(Relaxed),
            ejections_total: tally.ejections.load(Relaxed),
            returns_total: tally.returns.load(Relaxed),
            probes_total: tally.probes.load(Relaxed),
            probes_failed_total: tally.probes_failed.load(Relaxed),
            picks,
        }
    }

    /// How often `reason` led to a pick of this node.
    #[must_use]
    pub fn picks_for(&self, reason: Reason) -> u64 {
        self.picks.iter().find(|entry| entry.reason == reason).map_or(0, |entry| entry.picks_total)
    }

    fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            name,
            role,
            weight,
            zone,
            healthy,
            excluded,
            lag_seconds,
            lag_bytes,
            in_flight,
            max_in_flight,
            started_total,
            succeeded_total,
            failed_total,
            cancelled_total,
            ejections_total,
            returns_total,
            probes_total,
            probes_failed_total,
            picks,
        } = self;
        let node = ("node", name.as_str());
        let labels = [node, ("role", role.as_str())];
        let count = |count: &u64| Some(*count as f64);
        let figures = [
            ("replicas_node_weight", Some(f64::from(*weight))),
            ("replicas_node_healthy", Some(f64::from(u8::from(*healthy)))),
            ("replicas_node_lag_seconds", *lag_seconds),
            ("replicas_node_lag_bytes", lag_bytes.as_ref().and_then(count)),
            ("replicas_node_in_flight", count(in_flight)),
            ("replicas_node_max_in_flight", max_in_flight.as_ref().and_then(count)),
            ("replicas_node_started_total", count(started_total)),
            ("replicas_node_succeeded_total", count(succeeded_total)),
            ("replicas_node_failed_total", count(failed_total)),
            ("replicas_node_cancelled_total", count(cancelled_total)),
            ("replicas_node_ejections_total", count(ejections_total)),
            ("replicas_node_returns_total", count(returns_total)),
            ("replicas_node_probes_total", count(probes_total)),
            ("replicas_node_probes_failed_total", count(probes_failed_total)),
        ];
        for (figure, value) in figures {
            if let Some(value) = value {
                emit(figure, &labels, value);
            }
        }
        if let Some(zone) = zone {
            emit("replicas_node_zone", &[node, ("zone", zone)], 1.0);
        }
        if let Some(why) = excluded {
            emit("replicas_node_excluded", &[node, ("why", why.as_str())], 1.0);
        }
        for ReasonStats { reason, picks_total } in picks {
            let labels = [node, ("reason", reason.as_str())];
            emit("replicas_picks_total", &labels, *picks_total as f64);
        }
    }
}
