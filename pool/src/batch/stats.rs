//! The figures of a batcher.

use crate::stats::Emit;

/// The figures of a batcher at one moment. A lookup is one key that one caller asked for.
///
/// At every moment `started_total` = `succeeded_total` + `failed_total` + `rejected_total` +
/// `cancelled_total` + `in_flight`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BatchStats {
    /// Lookups (or writes) that have begun and not ended.
    pub in_flight: usize,
    /// Those among them that wait for the next batch.
    pub waiting: usize,
    /// Tasks that work batches off, each with one batch at a time.
    pub lanes: usize,
    /// Lookups begun.
    pub started_total: u64,
    /// Lookups answered, also those whose key is missing.
    pub succeeded_total: u64,
    /// Lookups whose batch failed.
    pub failed_total: u64,
    /// Lookups turned away because too many waited.
    pub rejected_total: u64,
    /// Lookups whose future was dropped.
    pub cancelled_total: u64,
    /// Lookups that found their key in the line, and joined it.
    pub deduplicated_total: u64,
    /// Batches sent. Parts of a group that was divided are not counted.
    pub batches_total: u64,
    /// Keys (or writes) sent.
    pub keys_total: u64,
    /// Batches that failed, and groups of writes that were divided.
    pub batch_failures_total: u64,
}

impl BatchStats {
    /// Hands each figure to `emit`; a name ending in `_total` is a counter, any other a gauge.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        // Destructured whole, so that a field that is not exported fails to compile.
        let Self {
            in_flight,
            waiting,
            lanes,
            started_total,
            succeeded_total,
            failed_total,
            rejected_total,
            cancelled_total,
            deduplicated_total,
            batches_total,
            keys_total,
            batch_failures_total,
        } = *self;
        emit("in_flight", &[], in_flight as f64);
        emit("waiting", &[], waiting as f64);
        emit("lanes", &[], lanes as f64);
        emit("started_total", &[], started_total as f64);
        emit("succeeded_total", &[], succeeded_total as f64);
        emit("failed_total", &[], failed_total as f64);
        emit("rejected_total", &[], rejected_total as f64);
        emit("cancelled_total", &[], cancelled_total as f64);
        emit("deduplicated_total", &[], deduplicated_total as f64);
        emit("batches_total", &[], batches_total as f64);
        emit("keys_total", &[], keys_total as f64);
        emit("batch_failures_total", &[], batch_failures_total as f64);
    }
}
