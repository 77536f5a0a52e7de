//! The figures of one breaker: counted as calls start and end, handed out as a snapshot.

use super::State;
use super::cell::Sums;
use super::machine::Moves;
use super::window::Counts;
use crate::Emit;

/// A breaker's figures at one moment.
///
/// `admitted_total` = `in_flight` + the seven ways to end below it, at every moment and under drop,
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
    /// Whether it rejects nothing in truth.
    pub shadow: bool,
    /// Calls under way.
    pub in_flight: u64,
    /// Calls under way that are too slow already; 0 while the circuit is not closed or the slow-call
    /// rate is not used.
    pub in_flight_slow: u64,
    /// Failures in a row as of now.
    pub consecutive_failures: u64,
    /// Calls in the sliding window of time; 0 while the circuit is not closed, or if there is none.
    pub window_calls: u64,
    /// Failures among them.
    pub window_failures: u64,
    /// Slow calls among them.
    pub window_slow: u64,
    /// Calls in the sliding window of calls; 0 while the circuit is not closed, or if there is none.
    pub count_window_calls: u64,
    /// Failures among them.
    pub count_window_failures: u64,
    /// Slow calls among them.
    pub count_window_slow: u64,
    /// Calls let through.
    pub admitted_total: u64,
    /// Calls refused. They are not among those let through.
    pub rejected_total: u64,
    /// Calls let through in shadow mode that would have been refused.
    pub shadow_rejected_total: u64,
    /// Calls that ended well.
    pub succeeded_total: u64,
    /// Calls judged as failed.
    pub failed_total: u64,
    /// Calls that the backend throttled.
    pub throttled_total: u64,
    /// Calls judged as saying nothing.
    pub ignored_total: u64,
    /// Calls given up early, which count as nothing.
    pub cancelled_total: u64,
    /// Calls given up late, which count as failures.
    pub abandoned_total: u64,
    /// Calls ended by a panic, which count as failures.
    pub panicked_total: u64,
    /// Slow calls, however they ended; 0 if the slow-call rate is not used.
    pub slow_total: u64,
    /// Times the circuit has opened.
    pub opened_total: u64,
    /// Times it began to try the backend.
    pub half_opened_total: u64,
    /// Times it has closed again.
    pub closed_total: u64,
    /// Times the listener for transitions, or who writes the log of them, has panicked.
    pub hook_panicked_total: u64,
}

impl BreakerStats {
    /// Hands out each figure under its field's name with the label `breaker`; the state as
    /// [`State::as_gauge`].
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            name,
            state,
            shadow,
            in_flight,
            in_flight_slow,
            consecutive_failures,
            window_calls,
            window_failures,
            window_slow,
            count_window_calls,
            count_window_failures,
            count_window_slow,
            admitted_total,
            rejected_total,
            shadow_rejected_total,
            succeeded_total,
            failed_total,
            throttled_total,
            ignored_total,
            cancelled_total,
            abandoned_total,
            panicked_total,
            slow_total,
            opened_total,
            half_opened_total,
            closed_total,
            hook_panicked_total,
        } = self;
        let labels = [("breaker", name.as_str())];
        emit("state", &labels, state.as_gauge());
        emit("shadow", &labels, f64::from(u8::from(*shadow)));
        for (figure, value) in [
            ("in_flight", in_flight),
            ("in_flight_slow", in_flight_slow),
            ("consecutive_failures", consecutive_failures),
            ("window_calls", window_calls),
            ("window_failures", window_failures),
            ("window_slow", window_slow),
            ("count_window_calls", count_window_calls),
            ("count_window_failures", count_window_failures),
            ("count_window_slow", count_window_slow),
            ("admitted_total", admitted_total),
            ("rejected_total", rejected_total),
            ("shadow_rejected_total", shadow_rejected_total),
            ("succeeded_total", succeeded_total),
            ("failed_total", failed_total),
            ("throttled_total", throttled_total),
            ("ignored_total", ignored_total),
            ("cancelled_total", cancelled_total),
            ("abandoned_total", abandoned_total),
            ("panicked_total", panicked_total),
            ("slow_total", slow_total),
            ("opened_total", opened_total),
            ("half_opened_total", half_opened_total),
            ("closed_total", closed_total),
            ("hook_panicked_total", hook_panicked_total),
        ] {
            emit(figure, &labels, *value as f64);
        }
    }
}

/// What the books say at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) state: State,
    pub(super) shadow: bool,
    pub(super) moves: Moves,
    /// The window of time, and that of calls.
    pub(super) windows: (Counts, Counts),
    pub(super) consecutive: u64,
    pub(super) in_flight_slow: u64,
    pub(super) hook_panicked: u64,
}

impl BreakerStats {
    pub(super) fn new(name: &str, books: &Snapshot, sums: &Sums) -> Self {
        let (time, calls) = books.windows;
        Self {
            name: name.to_owned(),
            state: books.state,
            shadow: books.shadow,
            in_flight: sums.admitted - sums.ended(),
            in_flight_slow: books.in_flight_slow,
            consecutive_failures: books.consecutive,
            window_calls: time.calls,
            window_failures: time.failures,
            window_slow: time.slow,
            count_window_calls: calls.calls,
            count_window_failures: calls.failures,
            count_window_slow: calls.slow,
            admitted_total: sums.admitted,
            rejected_total: sums.rejected,
            shadow_rejected_total: sums.shadow_rejected,
            succeeded_total: sums.succeeded,
            failed_total: sums.failed,
            throttled_total: sums.throttled,
            ignored_total: sums.ignored,
            cancelled_total: sums.cancelled,
            abandoned_total: sums.abandoned,
            panicked_total: sums.panicked,
            slow_total: sums.slow,
            opened_total: books.moves.opened,
            half_opened_total: books.moves.half_opened,
            closed_total: books.moves.closed,
            hook_panicked_total: books.hook_panicked,
        }
    }
}
