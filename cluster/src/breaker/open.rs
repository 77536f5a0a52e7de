//! What a caller gets in the place of a permit.

use std::time::Duration;

/// The circuit rejects calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the circuit is open")]
#[non_exhaustive]
pub struct Open {
    /// Time after which a call may be let through again. A minimum: others may ask before, and the
    /// trial may fail. Within a ramp it is drawn at random, so that as many come back at any time as
    /// are then let through.
    pub retry_after: Duration,
}

impl Open {
    /// Whether the same call can succeed later: always.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        true
    }
}
