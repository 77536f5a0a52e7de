//! What the shared layer of one cache has seen.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::stats::SharedLayerStats;

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) hits: Count,
    pub(super) misses: Count,
    pub(super) rejected: AtomicU64,
    pub(super) distrusted: Count,
    pub(super) writes: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) oversized: AtomicU64,
    pub(super) faults: AtomicU64,
    pub(super) suspended: AtomicU64,
    pub(super) replayed: AtomicU64,
    pub(super) told: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }
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
            hits: read(&hits.0),
            misses: read(&misses.0),
            rejected: read(rejected),
            distrusted: read(&distrusted.0),
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
