//! The figures of the servers on one drain.

use std::sync::atomic::{AtomicU64, Ordering};

use super::open::Open;
use super::tally::{Tallies, Way};
use crate::Emit;

/// The figures of all servers on one [`Drain`](crate::Drain) at one moment.
///
/// `accepted_total` = `connections_open` + the three ways a connection ends,
/// `requests_started_total` = `requests_in_flight` + the five ways a request ends, and
/// `jobs_started_total` = `jobs_running` + the two ways a job ends, at every moment.
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
    /// Connections closed because a request's head or body did not come in time, or because the client
    /// did not take its response. Of those with an unfinished head that made room, too.
    pub connections_timed_out_total: u64,
    /// Connections cut at the deadline or by a second signal.
    pub connections_cut_total: u64,
    /// Of the finished ones: closed without a request, to make room for others.
    pub connections_evicted_total: u64,
    /// Of the open ones: those that speak another protocol, such as WebSockets.
    pub connections_upgraded: u64,
    /// Connections that could not be accepted.
    pub accept_errors_total: u64,
    /// Requests whose response has not been handed over whole. An upgraded connection is none.
    pub requests_in_flight: u64,
    /// Requests begun.
    pub requests_started_total: u64,
    /// Requests whose response was handed over whole.
    pub requests_finished_total: u64,
    /// Requests whose handler took longer than it may.
    pub requests_timed_out_total: u64,
    /// Requests given up: the client went away, or the response broke off.
    pub requests_cancelled_total: u64,
    /// Requests ended by a panic of their handler.
    pub requests_panicked_total: u64,
    /// Requests cut with their connection.
    pub requests_cut_total: u64,
    /// Request bodies that came too slowly. Such a request ends in one of the ways above.
    pub bodies_timed_out_total: u64,
    /// Registered jobs that have not ended.
    pub jobs_running: u64,
    /// Jobs registered.
    pub jobs_started_total: u64,
    /// Jobs that ended before the drain cut.
    pub jobs_ended_total: u64,
    /// Jobs that ended after it.
    pub jobs_cut_total: u64,
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
            connections_evicted_total,
            connections_upgraded,
            accept_errors_total,
            requests_in_flight,
            requests_started_total,
            requests_finished_total,
            requests_timed_out_total,
            requests_cancelled_total,
            requests_panicked_total,
            requests_cut_total,
            bodies_timed_out_total,
            jobs_running,
            jobs_started_total,
            jobs_ended_total,
            jobs_cut_total,
        } = *self;
        for (figure, value) in [
            ("draining", u64::from(draining)),
            ("connections_open", connections_open),
            ("accepted_total", accepted_total),
            ("connections_finished_total", connections_finished_total),
            ("connections_timed_out_total", connections_timed_out_total),
            ("connections_cut_total", connections_cut_total),
            ("connections_evicted_total", connections_evicted_total),
            ("connections_upgraded", connections_upgraded),
            ("accept_errors_total", accept_errors_total),
            ("requests_in_flight", requests_in_flight),
            ("requests_started_total", requests_started_total),
            ("requests_finished_total", requests_finished_total),
            ("requests_timed_out_total", requests_timed_out_total),
            ("requests_cancelled_total", requests_cancelled_total),
            ("requests_panicked_total", requests_panicked_total),
            ("requests_cut_total", requests_cut_total),
            ("bodies_timed_out_total", bodies_timed_out_total),
            ("jobs_running", jobs_running),
            ("jobs_started_total", jobs_started_total),
            ("jobs_ended_total", jobs_ended_total),
            ("jobs_cut_total", jobs_cut_total),
        ] {
            emit(figure, &[], value as f64);
        }
    }
}

/// What the servers on one drain count.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) counters: Counters,
    pub(super) requests: Tallies,
    pub(super) open: Open,
}

/// Events of connections. An end is counted with release and read with acquire before its start
/// is read: a snapshot never shows more ends than starts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) accept_errors: AtomicU64,
    pub(super) connections_finished: AtomicU64,
    pub(super) connections_timed_out: AtomicU64,
    pub(super) connections_cut: AtomicU64,
    pub(super) connections_evicted: AtomicU64,
    pub(super) bodies_timed_out: AtomicU64,
}

impl Account {
    pub(super) fn snapshot(&self, draining: bool) -> DrainStats {
        let Self { counters, requests, open } = self;
        let ended = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let connections_finished_total = ended(&counters.connections_finished);
        let connections_timed_out_total = ended(&counters.connections_timed_out);
        let connections_cut_total = ended(&counters.connections_cut);
        let accepted_total = counters.accepted.load(Ordering::Relaxed);
        let (requests, open) = (requests.sum(), open.stats());
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
            connections_evicted_total: counters.connections_evicted.load(Ordering::Relaxed),
            connections_upgraded: open.upgraded,
            accept_errors_total: counters.accept_errors.load(Ordering::Relaxed),
            requests_in_flight: requests.in_flight(),
            requests_started_total: requests.started,
            requests_finished_total: requests.ended(Way::Finished),
            requests_timed_out_total: requests.ended(Way::TimedOut),
            requests_cancelled_total: requests.ended(Way::Cancelled),
            requests_panicked_total: requests.ended(Way::Panicked),
            requests_cut_total: requests.ended(Way::Cut),
            bodies_timed_out_total: counters.bodies_timed_out.load(Ordering::Relaxed),
            jobs_running: open.jobs_running,
            jobs_started_total: open.jobs_started,
            jobs_ended_total: open.jobs_ended,
            jobs_cut_total: open.jobs_cut,
        }
    }
}

pub(super) fn count_start(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn count_end(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Release);
}
