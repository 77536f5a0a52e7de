//! What the shared layer of one cache has seen.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::Counter;
use crate::stats::SharedLayerStats;

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) rejected: AtomicU64,
    pub(super) distrusted: Counter,
    pub(super) writes: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) oversized: AtomicU64,
    pub(super) faults: AtomicU64,
    pub(super) suspended: AtomicU64,
    pub(super) replayed: AtomicU64,
    pub(super) told: AtomicU64,
}

impl Counts {
    pub(super) fn stats(&self, pending: usize) -> SharedLayerStats {
        let Self {
            hits,
            misses,
            rejected,
            distrusted,
            writes,
            refused,
            oversized,
            faults,
            suspended,
            replayed,
            told,
        } = self;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        SharedLayerStats {
            hits: hits.get(),
            misses: misses.get(),
            rejected: read(rejected),
            distrusted: distrusted.get(),
            writes: read(writes),
            refused: read(refused),
            oversized: read(oversized),
            faults: read(faults),
            suspended: read(suspended),
            replayed: read(replayed),
            told: read(told),
            pending: pending as u64,
        }
    }
}

pub(super) fn raise(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}
