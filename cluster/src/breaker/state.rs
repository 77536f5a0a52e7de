//! Where a circuit stands, as its callers see it.

use std::fmt;

/// Where a circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum State {
    /// Calls go through and their results are counted. Within the
    /// [`ramp`](crate::BreakerConfig::ramp) after it has closed, some are still rejected.
    Closed,
    /// Calls go through and nothing opens the circuit, until it is reset.
    ForcedClosed,
    /// The backend is being tried: a few calls go through, the others are rejected. An open
    /// circuit whose time is over reads as half-open: its next call goes through.
    HalfOpen,
    /// Calls are rejected until the open time is over.
    Open,
    /// Calls are rejected until the circuit is reset.
    ForcedOpen,
    /// Calls go through and nothing is counted, until the circuit is reset.
    Disabled,
}

impl State {
    /// The name used in logs and in statistics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ForcedClosed => "forced_closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
        }
    }

    /// Whether calls go through as if there were no breaker.
    #[must_use]
    pub fn is_closed(self) -> bool {
        matches!(self, Self::Closed | Self::ForcedClosed | Self::Disabled)
    }

    /// The state as a gauge: 0 closed, 1 half-open, 2 open, the forced ones as what they force.
    #[must_use]
    pub fn as_gauge(self) -> f64 {
        match self {
            Self::Closed | Self::ForcedClosed | Self::Disabled => 0.0,
            Self::HalfOpen => 1.0,
            Self::Open | Self::ForcedOpen => 2.0,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
