//! What a proxy has done beside picking nodes, as plain figures.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Emit;

/// Only ever added to, apart from `tunnels_open`.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) retries: AtomicU64,
    pub(super) retries_refused: AtomicU64,
    pub(super) hedges: AtomicU64,
    pub(super) hedges_won: AtomicU64,
    pub(super) tunnels: AtomicU64,
    pub(super) tunnels_open: AtomicU64,
}

/// A snapshot of a [`ReverseProxy`](super::ReverseProxy).
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ProxyStats {
    /// Requests sent again after a failure.
    pub retries_total: u64,
    /// Retries and hedges for which the budget had no room.
    pub retries_refused_total: u64,
    /// Requests sent to a second node because the first was slow.
    pub hedges_total: u64,
    /// Of these, those whose answer was used.
    pub hedges_won_total: u64,
    /// Connections that changed their protocol.
    pub tunnels_total: u64,
    /// Of these, those that have not ended.
    pub tunnels_open: u64,
}

impl Counters {
    pub(super) fn snapshot(&self) -> ProxyStats {
        let Self { retries, retries_refused, hedges, hedges_won, tunnels, tunnels_open } = self;
        ProxyStats {
            retries_total: retries.load(Relaxed),
            retries_refused_total: retries_refused.load(Relaxed),
            hedges_total: hedges.load(Relaxed),
            hedges_won_total: hedges_won.load(Relaxed),
            tunnels_total: tunnels.load(Relaxed),
            tunnels_open: tunnels_open.load(Relaxed),
        }
    }
}

impl ProxyStats {
    /// Hands every figure to `emit`. Names ending in `_total` are counters, the other is a gauge.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            retries_total,
            retries_refused_total,
            hedges_total,
            hedges_won_total,
            tunnels_total,
            tunnels_open,
        } = self;
        for (figure, value) in [
            ("proxy_retries_total", retries_total),
            ("proxy_retries_refused_total", retries_refused_total),
            ("proxy_hedges_total", hedges_total),
            ("proxy_hedges_won_total", hedges_won_total),
            ("proxy_tunnels_total", tunnels_total),
            ("proxy_tunnels_open", tunnels_open),
        ] {
            emit(figure, &[], *value as f64);
        }
    }
}
