//! Whether a replica is fresh enough to be read from, without wavering at the limit.

use std::time::Duration;

use super::history::Lag;

/// Beyond these a replica is excluded; at half of both it is admitted again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) time: Duration,
    pub(super) bytes: u64,
}

/// What follows from a replica's lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Fresh enough.
    Fresh,
    /// Too far behind, or not yet far enough below the limit again.
    Lagging,
    /// Nobody knows, which is no reason to trust it.
    Unknown,
}

/// The memory that hysteresis needs, for one replica.
#[derive(Debug, Default)]
pub(super) struct Gate {
    shut: bool,
}

impl Gate {
    /// Judges a replica by time and by bytes; either alone excludes it.
    pub(super) fn judge(&mut self, lag: Lag, bytes: Option<u64>, limits: Limits) -> Verdict {
        let bytes = bytes.unwrap_or(0);
        let (time, is_exact) = match lag {
            Lag::Unknown => return Verdict::Unknown,
            Lag::AtLeast(time) => (time, false),
            Lag::Known(time) => (time, true),
        };
        if time > limits.time || bytes > limits.bytes {
            self.shut = true;
        } else if is_exact && time <= limits.time / 2 && bytes <= limits.bytes / 2 {
            self.shut = false;
        }
        match (self.shut, is_exact) {
            (true, _) => Verdict::Lagging,
            (false, true) => Verdict::Fresh,
            (false, false) => Verdict::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
