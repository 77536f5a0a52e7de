//! What a set has done so far, as plain figures.

use crate::{Reason, Role, Strategy};

/// Receives one figure: its name, its labels, its value.
pub type Emit<'a> = dyn FnMut(&str, &[(&str, &str)], f64) + 'a;

/// A snapshot of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ReplicasStats {
    /// How reads are spread.
    pub strategy: Strategy,
    /// The primary first, if there is one, then the replicas in the order they were added.
    pub nodes: Vec<NodeStats>,
    /// How often each reason led to a pick; all reasons, also those that never did.
    pub picks: Vec<ReasonStats>,
    /// Requests that had no node.
    pub refused_total: u64,
}

/// A snapshot of one node. At rest `started_total` is the sum of `succeeded_total`, `failed_total`
/// and `cancelled_total`; while requests run, `in_flight` makes up the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NodeStats {
    /// As given to the builder; `primary` for the primary.
    pub name: String,
    /// What the node is in its set.
    pub role: Role,
    /// Share of the balanced reads; 1 for the primary, which takes none of them.
    pub weight: u32,
    /// In service, that is, not ejected.
    pub healthy: bool,
    /// Picks that have not ended.
    pub in_flight: u64,
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
}

/// How often one reason led to a pick.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ReasonStats {
    /// Why nodes were picked.
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

    /// How often `reason` led to a pick.
    #[must_use]
    pub fn picks_for(&self, reason: Reason) -> u64 {
        self.picks.iter().find(|entry| entry.reason == reason).map_or(0, |entry| entry.picks_total)
    }

    /// Hands every figure to `emit`. Names ending in `_total` are counters, the others gauges.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self { strategy, nodes, picks, refused_total } = self;
        emit("replicas_strategy", &[("strategy", strategy.as_str())], 1.0);
        for node in nodes {
            node.visit(emit);
        }
        for ReasonStats { reason, picks_total } in picks {
            emit("replicas_picks_total", &[("reason", reason.as_str())], *picks_total as f64);
        }
        emit("replicas_refused_total", &[], *refused_total as f64);
    }
}

impl NodeStats {
    fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            name,
            role,
            weight,
            healthy,
            in_flight,
            started_total,
            succeeded_total,
            failed_total,
            cancelled_total,
            ejections_total,
            returns_total,
            probes_total,
            probes_failed_total,
        } = self;
        let labels = [("node", name.as_str()), ("role", role.as_str())];
        let figures = [
            ("replicas_node_weight", u64::from(*weight)),
            ("replicas_node_healthy", u64::from(*healthy)),
            ("replicas_node_in_flight", *in_flight),
            ("replicas_node_started_total", *started_total),
            ("replicas_node_succeeded_total", *succeeded_total),
            ("replicas_node_failed_total", *failed_total),
            ("replicas_node_cancelled_total", *cancelled_total),
            ("replicas_node_ejections_total", *ejections_total),
            ("replicas_node_returns_total", *returns_total),
            ("replicas_node_probes_total", *probes_total),
            ("replicas_node_probes_failed_total", *probes_failed_total),
        ];
        for (figure, value) in figures {
            emit(figure, &labels, value as f64);
        }
    }
}
