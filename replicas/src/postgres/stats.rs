//! What a monitor knows and has told so far, as plain figures.

use std::time::Duration;

use crate::Emit;

/// A snapshot of a monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MonitorStats {
    /// The cluster's `system_identifier`, once it is known.
    pub system: Option<u64>,
    /// The highest timeline that was seen; 0 before the first.
    pub timeline: u32,
    /// The node that takes writes.
    pub primary: Option<String>,
    /// There is no primary, or it does not answer: all nodes are asked in quick succession.
    pub searching: bool,
    /// By name.
    pub nodes: Vec<NodeMonitorStats>,
    /// Times a node became the primary, the first one included.
    pub promotions_total: u64,
    /// Runs of servers that took writes on a timeline that had been left.
    pub fenced_total: u64,
    /// Times a node was refused in a split brain.
    pub split_brains_total: u64,
    /// Times a node of another system was refused.
    pub foreign_systems_total: u64,
    /// Times a replica was excluded because it lagged.
    pub lag_exclusions_total: u64,
}

/// What a monitor knows of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NodeMonitorStats {
    /// The node's name.
    pub name: String,
    /// `unheard`, `primary`, `replica`, `fenced`, `rival` (in a split brain) or `foreign`.
    pub standing: &'static str,
    /// Whether it answered the last question.
    pub answers: bool,
    /// Its timeline; 0 if unknown.
    pub timeline: u32,
    /// Its place in the log; 0 if unknown.
    pub position: u64,
    /// How far it was behind; `None` if unknown, as it is for nodes that are no replica.
    pub lag: Option<Duration>,
    /// The same in bytes of log.
    pub lag_bytes: Option<u64>,
    /// Questions it has answered.
    pub samples_total: u64,
    /// Questions it has not.
    pub missed_total: u64,
}

/// What was told so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) promotions: u64,
    pub(super) fenced: u64,
    pub(super) split_brains: u64,
    pub(super) foreign_systems: u64,
    pub(super) lag_exclusions: u64,
    /// Also while there is none.
    pub(super) last_primary: Option<String>,
}

impl MonitorStats {
    /// What is known of one node, by its name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeMonitorStats> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Hands every figure to `emit`. Names ending in `_total` are counters, the others gauges.
    /// Figures that are unknown are left out.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            // Too long for the floating point numbers of metrics.
            system: _,
            timeline,
            // A label of the nodes' own figures.
            primary: _,
            searching,
            nodes,
            promotions_total,
            fenced_total,
            split_brains_total,
            foreign_systems_total,
            lag_exclusions_total,
        } = self;
        emit("replicas_postgres_timeline", &[], f64::from(*timeline));
        emit("replicas_postgres_searching", &[], f64::from(u8::from(*searching)));
        for node in nodes {
            node.visit(emit);
        }
        for (figure, value) in [
            ("replicas_postgres_promotions_total", promotions_total),
            ("replicas_postgres_fenced_total", fenced_total),
            ("replicas_postgres_split_brains_total", split_brains_total),
            ("replicas_postgres_foreign_systems_total", foreign_systems_total),
            ("replicas_postgres_lag_exclusions_total", lag_exclusions_total),
        ] {
            emit(figure, &[], *value as f64);
        }
    }
}

impl NodeMonitorStats {
    fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            name,
            standing,
            answers,
            timeline,
            position,
            lag,
            lag_bytes,
            samples_total,
            missed_total,
        } = self;
        emit("replicas_postgres_node_standing", &[("node", name), ("standing", standing)], 1.0);
        let labels = [("node", name.as_str())];
        emit("replicas_postgres_node_answers", &labels, f64::from(u8::from(*answers)));
        emit("replicas_postgres_node_timeline", &labels, f64::from(*timeline));
        emit("replicas_postgres_node_position_bytes", &labels, *position as f64);
        if let Some(lag) = lag {
            emit("replicas_postgres_node_lag_seconds", &labels, lag.as_secs_f64());
        }
        if let Some(bytes) = lag_bytes {
            emit("replicas_postgres_node_lag_bytes", &labels, *bytes as f64);
        }
        emit("replicas_postgres_node_samples_total", &labels, *samples_total as f64);
        emit("replicas_postgres_node_missed_total", &labels, *missed_total as f64);
    }
}
