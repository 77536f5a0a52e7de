//! The engine's clock reading: a plain number, handed in.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment, in milliseconds since 1970-01-01 00:00 UTC.
///
/// Arithmetic saturates: a clock that is wrong gives a wrong age, never a panic.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub(crate) struct UnixMs(pub(crate) u64);

impl UnixMs {
    /// Whole seconds since 1970, rounded down, as HTTP dates have them.
    pub(crate) fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// The milliseconds from `earlier` to this moment; zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `ms` earlier.
    pub(crate) fn minus(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }

    /// The moment `ms` later.
    pub(crate) fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// A duration in milliseconds, as the engine counts.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Delta-seconds in milliseconds.
pub(crate) fn seconds_to_ms(seconds: u64) -> u64 {
    seconds.saturating_mul(1000)
}
