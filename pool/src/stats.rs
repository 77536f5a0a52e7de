//! The snapshot of a pool's figures.

use std::fmt;

/// Receives one figure: name, labels, value.
pub type Emit<'a> = dyn FnMut(&str, &[(&str, &str)], f64) + 'a;

/// The figures of a pool at one moment.
///
/// At every moment `started_total` = `acquired_total` + `timed_out_total` + `rejected_total` +
/// `cancelled_total` + `failed_total` + `waiting`, and `connects_total` = `connect_failures_total` +
/// `connecting` + `size` + the sum of `closed`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PoolStats {
    /// Connections open (SQLite: threads, each with its own connection).
    pub size: usize,
    /// Connections idle in the pool (SQLite: threads without a job).
    pub available: usize,
    /// Leases out, those being recovered included.
    pub leased: usize,
    /// Callers inside an acquire that has not ended, and clones that were made ready as a tower
    /// service and not called yet (SQLite: jobs not started).
    pub waiting: usize,
    /// Most connections the pool opens for ordinary callers.
    pub max_size: usize,
    /// Connections it may open beyond that for the reserved lane.
    pub reserved: usize,
    /// Connects under way.
    pub connecting: usize,
    /// Leases out for longer than the leak threshold.
    pub leaked: usize,
    /// Whether callers are held back by [`Pool::pause`](crate::Pool::pause).
    pub paused: bool,
    /// Acquires begun.
    pub started_total: u64,
    /// Acquires that got a lease (SQLite: jobs that ran).
    pub acquired_total: u64,
    /// Acquires that met their deadline.
    pub timed_out_total: u64,
    /// Acquires turned away because too many callers waited.
    pub rejected_total: u64,
    /// Acquires whose future was dropped.
    pub cancelled_total: u64,
    /// Acquires that failed otherwise: no connection could be made, or the pool is closed.
    pub failed_total: u64,
    /// Permits that came from the reserved lane since all others were taken.
    pub reserved_total: u64,
    /// Connects begun.
    pub connects_total: u64,
    /// Connects that failed, hung or panicked.
    pub connect_failures_total: u64,
    /// Tests made, before use and by the keepalive.
    pub tests_total: u64,
    /// Connections closed, by reason.
    pub closed: ClosedStats,
    /// Dirty connections made fit again: query cancelled, transaction rolled back.
    pub recovered_total: u64,
    /// Dirty connections that had to be closed.
    pub recovery_failures_total: u64,
    /// PostgreSQL: connections that serve single reads of all callers together. They are in use,
    /// also while nobody reads.
    pub pipelines: usize,
    /// PostgreSQL: single reads sent on such a connection. Only one that had to wait for its turn
    /// counts among the acquires too.
    pub pipelined_total: u64,
    /// SQLite: of the jobs that ran, reads that did so on their caller's thread.
    pub inline_total: u64,
    /// PostgreSQL: pipelined reads moved to a connection of their own, since a statement before
    /// them was slow, the server refused them as writes, or the connection was lost. SQLite: reads
    /// that were ended on their caller's thread, since they were long, and moved to a reader.
    pub moved_total: u64,
    /// PostgreSQL: transactions run again, since they met another one.
    pub retries_total: u64,
    /// Leases that were out for longer than the leak threshold, at some time.
    pub leaked_total: u64,
    /// The waits of all acquires that got a lease, in seconds.
    pub wait_seconds_total: f64,
    /// How long all leases that came back were held, in seconds (SQLite: how long jobs took).
    pub hold_seconds_total: f64,
    /// How long all connects took that ended, in seconds.
    pub connect_seconds_total: f64,
}

/// How many connections of a pool were closed, by [`CloseReason`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ClosedStats {
    /// They were idle for too long.
    pub idle_total: u64,
    /// They reached the end of their lifetime.
    pub lifetime_total: u64,
    /// The driver said that they were gone.
    pub broken_total: u64,
    /// A test failed or did not end.
    pub invalid_total: u64,
    /// [`Lease::discard`](crate::Lease::discard) was called.
    pub discarded_total: u64,
    /// What their user left on them could not be cleaned up.
    pub dirty_total: u64,
    /// The pool was made smaller.
    pub surplus_total: u64,
    /// The pool was closed.
    pub pool_closed_total: u64,
}

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// It was idle for `idle_timeout`, and the pool had more than `min_idle`.
    Idle,
    /// It reached `max_lifetime`, less its share by chance.
    Lifetime,
    /// The driver said that it was gone.
    Broken,
    /// A test failed, timed out, panicked or was cut short by its caller.
    Invalid,
    /// Its user asked for it.
    Discarded,
    /// Its user left something on it that could not be cleaned up.
    Dirty,
    /// The pool was made smaller.
    Surplus,
    /// The pool was closed or dropped.
    PoolClosed,
}

impl CloseReason {
    /// The word for labels and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Broken => "broken",
            Self::Invalid => "invalid",
            Self::Discarded => "discarded",
            Self::Dirty => "dirty",
            Self::Surplus => "surplus",
            Self::PoolClosed => "pool_closed",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PoolStats {
    /// Hands each figure to `emit`; a name ending in `_total` is a counter, any other a gauge. What
    /// was closed is one counter `closed_total` with the label `reason`.
    #[expect(clippy::too_many_lines, reason = "each figure has its line")]
    pub fn visit(&self, emit: &mut Emit<'_>) {
        // Destructured whole, so that a field that is not exported fails to compile.
        let Self {
            size,
            available,
            leased,
            waiting,
            max_size,
            reserved,
            connecting,
            leaked,
            paused,
            started_total,
            acquired_total,
            timed_out_total,
            rejected_total,
            cancelled_total,
            failed_total,
            reserved_total,
            connects_total,
            connect_failures_total,
            tests_total,
            closed,
            recovered_total,
            recovery_failures_total,
            leaked_total,
            pipelines,
            pipelined_total,
            inline_total,
            moved_total,
            retries_total,
            wait_seconds_total,
            hold_seconds_total,
            connect_seconds_total,
        } = *self;
        for (name, value) in [
            ("size", size),
            ("available", available),
            ("leased", leased),
            ("waiting", waiting),
            ("max_size", max_size),
            ("reserved", reserved),
            ("connecting", connecting),
            ("leaked", leaked),
            ("pipelines", pipelines),
            ("paused", usize::from(paused)),
        ] {
            emit(name, &[], value as f64);
        }
        for (name, value) in [
            ("started_total", started_total),
            ("acquired_total", acquired_total),
            ("timed_out_total", timed_out_total),
            ("rejected_total", rejected_total),
            ("cancelled_total", cancelled_total),
            ("failed_total", failed_total),
            ("reserved_total", reserved_total),
            ("connects_total", connects_total),
            ("connect_failures_total", connect_failures_total),
            ("tests_total", tests_total),
            ("recovered_total", recovered_total),
            ("recovery_failures_total", recovery_failures_total),
            ("leaked_total", leaked_total),
            ("pipelined_total", pipelined_total),
            ("inline_total", inline_total),
            ("moved_total", moved_total),
            ("retries_total", retries_total),
        ] {
            emit(name, &[], value as f64);
        }
        closed.visit(emit);
        emit("wait_seconds_total", &[], wait_seconds_total);
        emit("hold_seconds_total", &[], hold_seconds_total);
        emit("connect_seconds_total", &[], connect_seconds_total);
    }
}

impl ClosedStats {
    /// All of them.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.by_reason().iter().map(|(_, count)| count).sum()
    }

    pub(crate) fn total(&mut self, reason: CloseReason) -> &mut u64 {
        match reason {
            CloseReason::Idle => &mut self.idle_total,
            CloseReason::Lifetime => &mut self.lifetime_total,
            CloseReason::Broken => &mut self.broken_total,
            CloseReason::Invalid => &mut self.invalid_total,
            CloseReason::Discarded => &mut self.discarded_total,
            CloseReason::Dirty => &mut self.dirty_total,
            CloseReason::Surplus => &mut self.surplus_total,
            CloseReason::PoolClosed => &mut self.pool_closed_total,
        }
    }

    fn by_reason(&self) -> [(CloseReason, u64); 8] {
        let Self {
            idle_total,
            lifetime_total,
            broken_total,
            invalid_total,
            discarded_total,
            dirty_total,
            surplus_total,
            pool_closed_total,
        } = *self;
        [
            (CloseReason::Idle, idle_total),
            (CloseReason::Lifetime, lifetime_total),
            (CloseReason::Broken, broken_total),
            (CloseReason::Invalid, invalid_total),
            (CloseReason::Discarded, discarded_total),
            (CloseReason::Dirty, dirty_total),
            (CloseReason::Surplus, surplus_total),
            (CloseReason::PoolClosed, pool_closed_total),
        ]
    }

    fn visit(&self, emit: &mut Emit<'_>) {
        for (reason, count) in self.by_reason() {
            emit("closed_total", &[("reason", reason.as_str())], count as f64);
        }
    }
}

/// The gauges of a pool at one moment, as they stand in the errors that they explain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolSnapshot {
    /// Connections open.
    pub size: usize,
    /// Most connections the pool opens for ordinary callers.
    pub max_size: usize,
    /// Connections idle in the pool.
    pub available: usize,
    /// Leases out.
    pub leased: usize,
    /// Callers who wait.
    pub waiting: usize,
    /// Connects under way.
    pub connecting: usize,
    /// Whether the pool is paused.
    pub paused: bool,
}

impl From<&PoolStats> for PoolSnapshot {
    fn from(stats: &PoolStats) -> Self {
        Self {
            size: stats.size,
            max_size: stats.max_size,
            available: stats.available,
            leased: stats.leased,
            waiting: stats.waiting,
            connecting: stats.connecting,
            paused: stats.paused,
        }
    }
}

impl fmt::Display for PoolSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, max_size, available, leased, waiting, connecting, paused } = self;
        write!(
            f,
            "size {size} of {max_size}, {available} available, {leased} leased, {waiting} waiting, \
             {connecting} connecting"
        )?;
        if *paused { f.write_str(", paused") } else { Ok(()) }
    }
}
