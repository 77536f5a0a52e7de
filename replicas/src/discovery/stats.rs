//! What a discovery has found so far, as plain figures.

use crate::Emit;

/// A snapshot of a discovery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DiscoveryStats {
    /// Nodes in the set that it has added.
    pub nodes: u64,
    /// Questions that were answered.
    pub answers_total: u64,
    /// Questions that were not, or with an answer without any node.
    pub failures_total: u64,
    /// Nodes it has added.
    pub added_total: u64,
    /// Nodes it has removed.
    pub removed_total: u64,
    /// Times the set refused a node: its name is taken, or there are too many. Tried again with
    /// every answer.
    pub refused_total: u64,
}

impl DiscoveryStats {
    /// Hands every figure to `emit`. Names ending in `_total` are counters, the others gauges.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            nodes,
            answers_total,
            failures_total,
            added_total,
            removed_total,
            refused_total,
        } = self;
        for (figure, value) in [
            ("replicas_discovery_nodes", nodes),
            ("replicas_discovery_answers_total", answers_total),
            ("replicas_discovery_failures_total", failures_total),
            ("replicas_discovery_added_total", added_total),
            ("replicas_discovery_removed_total", removed_total),
            ("replicas_discovery_refused_total", refused_total),
        ] {
            emit(figure, &[], *value as f64);
        }
    }
}
