//! What a limit says to one request.

use std::time::Duration;

/// The answer of a [`RateLimiter`](crate::RateLimiter), with what the key has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// The units were there and are taken.
    Allowed {
        /// Whole units left.
        remaining: u32,
        /// Time until the burst is whole again if nothing more is used.
        reset: Duration,
    },
    /// Too few were left. Nothing was taken.
    Limited {
        /// Time until the units asked for are there if nothing is used meanwhile; `None` if they
        /// never are, because one request costs more than a whole burst.
        retry_after: Option<Duration>,
        /// Whole units left: fewer than were asked for.
        remaining: u32,
        /// Time until the burst is whole again if nothing is used meanwhile.
        reset: Duration,
    },
}

impl Decision {
    /// Whether the units were there.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }

    /// Whole units left.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        match *self {
            Self::Allowed { remaining, .. } | Self::Limited { remaining, .. } => remaining,
        }
    }

    /// Time until the burst is whole again.
    #[must_use]
    pub fn reset(&self) -> Duration {
        match *self {
            Self::Allowed { reset, .. } | Self::Limited { reset, .. } => reset,
        }
    }
}
