//! The figures of the servers on one drain, and the account a drain ends with.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Emit;

/// The figures of all servers on one [`Drain`](crate::Drain) at one moment.
///
/// `accepted_total` = `connections_open` + the three ways a connection ends, and
/// `requests_started_total` = `requests_in_flight` + the four ways a request ends, at every moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DrainStats {
    /// Whether the drain has begun: 0 or 1 as a gauge.
    pub draining: bool,
    /// Connections open now, upgraded ones included.
    pub connections_open: u64,
    /// Connections accepted.
    pub accepted_total: u64,
    /// Connections closed by the client, or by the server in good order.
    pub connections_finished_total: u64,
    /// Connections closed because a request's head did not come in time.
    pub connections_timed_out_total: u64,
    /// Connections cut at the deadline or by a second signal.
    pub connections_cut_total: u64,
    /// Connections that could not be accepted.
    pub accept_errors_total: u64,
    /// Requests whose response has not been handed over whole. An upgraded connection is none.
    pub requests_in_flight: u64,
    /// Requests begun.
    pub requests_started_total: u64,
    /// Requests whose response was handed over whole.
    pub requests_finished_total: u64,
    /// Requests given up: the client went away, or the response broke off.
    pub requests_cancelled_total: u64,
    /// Requests ended by a panic of their handler.
    pub requests_panicked_total: u64,
    /// Requests cut with their connection.
    pub requests_cut_total: u64,
}

impl DrainStats {
    /// Hands out each figure under its field's name.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            draining,
            connections_open,
            accepted_total,
            connections_finished_total,
            connections_timed_out_total,
            connections_cut_total,
            accept_errors_total,
            requests_in_flight,
            requests_started_total,
            requests_finished_total,
            requests_cancelled_total,
            requests_panicked_total,
            requests_cut_total,
        } = *self;
        for (figure, value) in [
            ("draining", u64::from(draining)),
            ("connections_open", connections_open),
            ("accepted_total", accepted_total),
            ("connections_finished_total", connections_finished_total),
            ("connections_timed_out_total", connections_timed_out_total),
            ("connections_cut_total", connections_cut_total),
            ("accept_errors_total", accept_errors_total),
            ("requests_in_flight", requests_in_flight),
            ("requests_started_total", requests_started_total),
            ("requests_finished_total", requests_finished_total),
            ("requests_cancelled_total", requests_cancelled_total),
            ("requests_panicked_total", requests_panicked_total),
            ("requests_cut_total", requests_cut_total),
        ] {
            emit(figure, &[], value as f64);
        }
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum DrainEnd {
    /// Every connection was closed in good order.
    Finished,
    /// The deadline passed, and what was left was cut.
    Deadline,
    /// A second signal, or [`Drain::abort`](crate::Drain::abort), cut what was left.
    Aborted,
}

/// What became of what was open when the drain began or came during the lame duck. Servers that
/// share a [`Drain`](crate::Drain) share one account: each report covers all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DrainReport {
    /// How it ended.
    pub end: DrainEnd,
    /// From its begin to the end, the lame duck included.
    pub elapsed: Duration,
    /// Connections closed in good order.
    pub connections_finished: u64,
    /// Connections cut.
    pub connections_cut: u64,
    /// Requests answered in full.
    pub requests_finished: u64,
    /// Requests cut with their connection.
    pub requests_cut: u64,
}

impl DrainReport {
    /// Whether nothing was cut.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.connections_cut == 0 && self.requests_cut == 0
    }

    pub(super) fn between(
        before: DrainStats,
        after: DrainStats,
        end: DrainEnd,
        elapsed: Duration,
    ) -> Self {
        let ended = |stats: DrainStats| {
            stats.connections_finished_total + stats.connections_timed_out_total
        };
        Self {
            end,
            elapsed,
            connections_finished: ended(after) - ended(before),
            connections_cut: after.connections_cut_total - before.connections_cut_total,
            requests_finished: after.requests_finished_total - before.requests_finished_total,
            // What is still in flight sits in a task that has not yet noticed.
            requests_cut: after.requests_cut_total - before.requests_cut_total
                + if end == DrainEnd::Finished { 0 } else { after.requests_in_flight },
        }
    }
}

/// What the servers count. An end is counted with release and read with acquire before its start
/// is read: a snapshot never shows more ends than starts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) accept_errors: AtomicU64,
    pub(super) connections_finished: AtomicU64,
    pub(super) connections_timed_out: AtomicU64,
    pub(super) connections_cut: AtomicU64,
    pub(super) requests_started: AtomicU64,
    pub(super) requests_finished: AtomicU64,
    pub(super) requests_cancelled: AtomicU64,
    pub(super) requests_panicked: AtomicU64,
    pub(super) requests_cut: AtomicU64,
}

impl Counters {
    pub(super) fn snapshot(&self, draining: bool) -> DrainStats {
        let ended = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let connections_finished_total = ended(&self.connections_finished);
        let connections_timed_out_total = ended(&self.connections_timed_out);
        let connections_cut_total = ended(&self.connections_cut);
        let requests_finished_total = ended(&self.requests_finished);
        let requests_cancelled_total = ended(&self.requests_cancelled);
        let requests_panicked_total = ended(&self.requests_panicked);
        let requests_cut_total = ended(&self.requests_cut);
        let accepted_total = self.accepted.load(Ordering::Relaxed);
        let requests_started_total = self.requests_started.load(Ordering::Relaxed);
        DrainStats {
            draining,
            connections_open: accepted_total
                - connections_finished_total
                - connections_timed_out_total
                - connections_cut_total,
            accepted_total,
            connections_finished_total,
            connections_timed_out_total,
            connections_cut_total,
            accept_errors_total: self.accept_errors.load(Ordering::Relaxed),
            requests_in_flight: requests_started_total
                - requests_finished_total
                - requests_cancelled_total
                - requests_panicked_total
                - requests_cut_total,
            requests_started_total,
            requests_finished_total,
            requests_cancelled_total,
            requests_panicked_total,
            requests_cut_total,
        }
    }
}

pub(super) fn count_start(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn count_end(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Release);
}
