//! The snapshot of a pool's figures.

/// Receives one figure: name, labels, value.
pub type Emit<'a> = dyn FnMut(&str, &[(&str, &str)], f64) + 'a;

/// The figures of a pool at one moment.
///
/// At every moment `started_total` = `acquired_total` + `timed_out_total` + `rejected_total` +
/// `cancelled_total` + `failed_total` + `waiting`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PoolStats {
    /// Connections open (SQLite: threads, each with its own connection).
    pub size: usize,
    /// Connections idle in the pool (SQLite: threads without a job).
    pub available: usize,
    /// Callers inside an acquire that has not ended (SQLite: jobs not started).
    pub waiting: usize,
    /// Most connections the pool opens.
    pub max_size: usize,
    /// Connects under way.
    pub connecting: usize,
    /// Acquires begun.
    pub started_total: u64,
    /// Acquires that got a lease (SQLite: jobs that a thread started).
    pub acquired_total: u64,
    /// Acquires that met their deadline.
    pub timed_out_total: u64,
    /// Acquires turned away because too many callers waited.
    pub rejected_total: u64,
    /// Acquires whose future was dropped.
    pub cancelled_total: u64,
    /// Acquires that failed otherwise: no connection could be made, or the pool is closed.
    pub failed_total: u64,
    /// Connects begun.
    pub connects_total: u64,
    /// Connects that failed, hung or panicked.
    pub connect_failures_total: u64,
    /// Connections closed because the test before use failed.
    pub invalid_total: u64,
    /// Dirty connections made fit again: query cancelled, transaction rolled back.
    pub recovered_total: u64,
    /// Dirty connections that had to be closed.
    pub recovery_failures_total: u64,
    /// PostgreSQL: connections that serve single reads of all callers together. They are in use,
    /// also while nobody reads.
    pub pipelines: usize,
    /// PostgreSQL: single reads sent on such a connection.
    pub pipelined_total: u64,
    /// PostgreSQL: of those, the ones moved to a connection of their own, since a statement before
    /// them was slow, the server refused them as writes, or the connection was lost.
    pub moved_total: u64,
    /// PostgreSQL: transactions run again, since they met another one.
    pub retries_total: u64,
}

impl PoolStats {
    /// Hands each figure to `emit`; a name ending in `_total` is a counter, any other a gauge.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        // Destructured whole, so that a field that is not exported fails to compile.
        let Self {
            size,
            available,
            waiting,
            max_size,
            connecting,
            started_total,
            acquired_total,
            timed_out_total,
            rejected_total,
            cancelled_total,
            failed_total,
            connects_total,
            connect_failures_total,
            invalid_total,
            recovered_total,
            recovery_failures_total,
            pipelines,
            pipelined_total,
            moved_total,
            retries_total,
        } = *self;
        emit("size", &[], size as f64);
        emit("available", &[], available as f64);
        emit("waiting", &[], waiting as f64);
        emit("max_size", &[], max_size as f64);
        emit("connecting", &[], connecting as f64);
        emit("started_total", &[], started_total as f64);
        emit("acquired_total", &[], acquired_total as f64);
        emit("timed_out_total", &[], timed_out_total as f64);
        emit("rejected_total", &[], rejected_total as f64);
        emit("cancelled_total", &[], cancelled_total as f64);
        emit("failed_total", &[], failed_total as f64);
        emit("connects_total", &[], connects_total as f64);
        emit("connect_failures_total", &[], connect_failures_total as f64);
        emit("invalid_total", &[], invalid_total as f64);
        emit("recovered_total", &[], recovered_total as f64);
        emit("recovery_failures_total", &[], recovery_failures_total as f64);
        emit("pipelines", &[], pipelines as f64);
        emit("pipelined_total", &[], pipelined_total as f64);
        emit("moved_total", &[], moved_total as f64);
        emit("retries_total", &[], retries_total as f64);
    }
}
