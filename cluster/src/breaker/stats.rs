//! The figures of one breaker: counted as calls start and end, handed out as a snapshot.

use std::sync::atomic::{AtomicU64, Ordering};

use super::State;
use super::core::End;
use super::machine::Moves;
use super::window::Totals;
use crate::Emit;

/// A breaker's figures at one moment.
///
/// `admitted_total` = `in_flight` + the six ways to end below it, at every moment and under drop,
/// panic and abort. The figures are read one after the other, without stopping anybody:
/// `in_flight` includes calls that began meanwhile.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BreakerStats {
    /// The name the breaker was made with.
    pub name: String,
    /// Where the circuit stands.
    pub state: State,
    /// Calls under way.
    pub in_flight: u64,
    /// Failures in a row as of now.
    pub consecutive_failures: u64,
    /// Calls in the sliding window; 0 while the circuit is not closed or the rate is not used.
    pub window_calls: u64,
    /// Failures among them.
    pub window_failures: u64,
    /// Calls let through.
    pub admitted_total: u64,
    /// Calls refused. They are not among those let through.
    pub rejected_total: u64,
    /// Calls that ended well.
    pub succeeded_total: u64,
    /// Calls judged as failed.
    pub failed_total: u64,
    /// Calls judged as saying nothing.
    pub ignored_total: u64,
    /// Calls given up early, which count as nothing.
    pub cancelled_total: u64,
    /// Calls given up late, which count as failures.
    pub abandoned_total: u64,
    /// Calls ended by a panic, which count as failures.
    pub panicked_total: u64,
    /// Times the circuit has opened.
    pub opened_total: u64,
    /// Times it began to try the backend.
    pub half_opened_total: u64,
    /// Times it has closed again.
    pub closed_total: u64,
}

impl BreakerStats {
    /// Hands out each figure under its field's name with the label `breaker`; the state as
    /// [`State::as_gauge`].
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            name,
            state,
            in_flight,
            consecutive_failures,
            window_calls,
            window_failures,
            admitted_total,
            rejected_total,
            succeeded_total,
            failed_total,
            ignored_total,
            cancelled_total,
            abandoned_total,
            panicked_total,
            opened_total,
            half_opened_total,
            closed_total,
        } = self;
        let labels = [("breaker", name.as_str())];
        emit("state", &labels, state.as_gauge());
        for (figure, value) in [
            ("in_flight", in_flight),
            ("consecutive_failures", consecutive_failures),
            ("window_calls", window_calls),
            ("window_failures", window_failures),
            ("admitted_total", admitted_total),
            ("rejected_total", rejected_total),
            ("succeeded_total", succeeded_total),
            ("failed_total", failed_total),
            ("ignored_total", ignored_total),
            ("cancelled_total", cancelled_total),
            ("abandoned_total", abandoned_total),
            ("panicked_total", panicked_total),
            ("opened_total", opened_total),
            ("half_opened_total", half_opened_total),
            ("closed_total", closed_total),
        ] {
            emit(figure, &labels, *value as f64);
        }
    }
}

/// What a breaker counts. A call's end is counted after its start with release, and read before it
/// with acquire: a snapshot never shows more ends than starts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    admitted: AtomicU64,
    rejected: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    ignored: AtomicU64,
    cancelled: AtomicU64,
    abandoned: AtomicU64,
    panicked: AtomicU64,
}

impl Counters {
    pub(super) fn admitted(&self) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn calls(&self) -> u64 {
        self.admitted.load(Ordering::Relaxed) + self.rejected.load(Ordering::Relaxed)
    }

    pub(super) fn in_flight(&self) -> u64 {
        let ends = [
            &self.succeeded,
            &self.failed,
            &self.ignored,
            &self.cancelled,
            &self.abandoned,
            &self.panicked,
        ];
        let ended: u64 = ends.iter().map(|counter| counter.load(Ordering::Acquire)).sum();
        self.admitted.load(Ordering::Relaxed) - ended
    }

    pub(super) fn ended(&self, end: End) {
        let counter = match end {
            End::Succeeded => &self.succeeded,
            End::Failed => &self.failed,
            End::Ignored => &self.ignored,
            End::Cancelled => &self.cancelled,
            End::Abandoned => &self.abandoned,
            End::Panicked => &self.panicked,
        };
        counter.fetch_add(1, Ordering::Release);
    }

    pub(super) fn snapshot(
        &self,
        name: &str,
        state: State,
        moves: Moves,
        window: Totals,
        consecutive: u32,
    ) -> BreakerStats {
        let ended = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let succeeded_total = ended(&self.succeeded);
        let failed_total = ended(&self.failed);
        let ignored_total = ended(&self.ignored);
        let cancelled_total = ended(&self.cancelled);
        let abandoned_total = ended(&self.abandoned);
        let panicked_total = ended(&self.panicked);
        let ended_total = succeeded_total
            + failed_total
            + ignored_total
            + cancelled_total
            + abandoned_total
            + panicked_total;
        let admitted_total = self.admitted.load(Ordering::Relaxed);
        BreakerStats {
            name: name.to_owned(),
            state,
            in_flight: admitted_total - ended_total,
            consecutive_failures: u64::from(consecutive),
            window_calls: window.calls,
            window_failures: window.failures,
            admitted_total,
            rejected_total: self.rejected.load(Ordering::Relaxed),
            succeeded_total,
            failed_total,
            ignored_total,
            cancelled_total,
            abandoned_total,
            panicked_total,
            opened_total: moves.opened,
            half_opened_total: moves.half_opened,
            closed_total: moves.closed,
        }
    }
}
