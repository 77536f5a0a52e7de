//! The figures of one concurrency limit, handed out as a snapshot.

use std::time::Duration;

use crate::Emit;

/// A limit's figures at one moment.
///
/// `admitted_total` = `in_flight` + the six ways to end below it, at every moment and under drop,
/// panic and abort. Everybody who asked is in `admitted_total`, `rejected_total`,
/// `wait_timed_out_total`, `wait_cancelled_total` or `waiting`. The figures are read one after the
/// other, without stopping anybody: `in_flight` includes calls that begin or end meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ConcurrencyLimitStats {
    /// The name the limit was made with.
    pub name: String,
    /// Calls allowed at once as of now.
    pub limit: u64,
    /// Calls that hold a place: until the end of the response's body, with axum.
    pub in_flight: u64,
    /// Calls that wait for a place.
    pub waiting: u64,
    /// The median latency of the last window; zero before there is one, and with a fixed limit.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub latency: Duration,
    /// The median latency without a queue, as far as known; zero as above.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub min_latency: Duration,
    /// Calls that were given a place.
    pub admitted_total: u64,
    /// Calls refused at once.
    pub rejected_total: u64,
    /// Calls that waited for a place as long as they may.
    pub wait_timed_out_total: u64,
    /// Calls given up while they waited for a place.
    pub wait_cancelled_total: u64,
    /// Calls that ended well.
    pub succeeded_total: u64,
    /// Calls judged as failed.
    pub failed_total: u64,
    /// Calls judged as saying nothing.
    pub ignored_total: u64,
    /// Calls given up early; with a fixed limit, all that were given up.
    pub cancelled_total: u64,
    /// Calls given up late, which lower an adaptive limit.
    pub abandoned_total: u64,
    /// Calls ended by a panic.
    pub panicked_total: u64,
}

impl ConcurrencyLimitStats {
    /// Hands out each figure under its field's name with the label `limit`, the latencies in
    /// seconds as `latency_seconds` and `min_latency_seconds`.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            name,
            limit,
            in_flight,
            waiting,
            latency,
            min_latency,
            admitted_total,
            rejected_total,
            wait_timed_out_total,
            wait_cancelled_total,
            succeeded_total,
            failed_total,
            ignored_total,
            cancelled_total,
            abandoned_total,
            panicked_total,
        } = self;
        let labels = [("limit", name.as_str())];
        for (figure, value) in [
            ("limit", limit),
            ("in_flight", in_flight),
            ("waiting", waiting),
            ("admitted_total", admitted_total),
            ("rejected_total", rejected_total),
            ("wait_timed_out_total", wait_timed_out_total),
            ("wait_cancelled_total", wait_cancelled_total),
            ("succeeded_total", succeeded_total),
            ("failed_total", failed_total),
            ("ignored_total", ignored_total),
            ("cancelled_total", cancelled_total),
            ("abandoned_total", abandoned_total),
            ("panicked_total", panicked_total),
        ] {
            emit(figure, &labels, *value as f64);
        }
        emit("latency_seconds", &labels, latency.as_secs_f64());
        emit("min_latency_seconds", &labels, min_latency.as_secs_f64());
    }
}
