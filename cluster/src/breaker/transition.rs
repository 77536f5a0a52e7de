//! What a circuit tells when it moves.

use std::fmt;
use std::time::Duration;

use super::State;

/// A circuit has moved; see [`Breaker::on_transition`](crate::Breaker::on_transition).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Transition {
    /// The breaker's name.
    pub breaker: String,
    /// Where the circuit stood.
    pub from: State,
    /// Where it stands.
    pub to: State,
    /// Why it moved.
    pub reason: Reason,
    /// Number of this move among those of the breaker, from 1. Two moves within a moment may be
    /// told in the wrong order, since nobody waits for the one who is told.
    pub sequence: u64,
    /// Whether the circuit rejects nothing in truth: it is in shadow mode.
    pub shadow: bool,
    /// Time the circuit stays open; zero if it did not open, or only by hand.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub open_for: Duration,
    /// What it was decided on.
    pub figures: Figures,
}

/// Why a circuit has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Reason {
    /// Too many failures in a row.
    ConsecutiveFailures,
    /// Too high a share of failures.
    FailureRate,
    /// Too high a share of slow calls.
    SlowCallRate,
    /// The open time was over, and a call came.
    OpenTimeOver,
    /// Enough trial calls succeeded.
    TrialSucceeded,
    /// Too many trial calls failed, or outlived their deadline.
    TrialFailed,
    /// Somebody said so.
    ByHand,
}

impl Reason {
    /// The name used in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailureRate => "failure_rate",
            Self::SlowCallRate => "slow_call_rate",
            Self::OpenTimeOver => "open_time_over",
            Self::TrialSucceeded => "trial_succeeded",
            Self::TrialFailed => "trial_failed",
            Self::ByHand => "by_hand",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a move was decided on: the window that met its condition (the one of time if none did and
/// there is one), or the trial if it was decided by one. Zero where nothing was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Figures {
    /// Failures in a row.
    pub consecutive_failures: u64,
    /// Calls in the window, or trial calls that were decided.
    pub calls: u64,
    /// Failures among them.
    pub failures: u64,
    /// Slow calls among them; of a trial, those are among the failures.
    pub slow: u64,
    /// Calls under way that were too slow already, beside those of the window.
    pub in_flight_slow: u64,
}
