//! What a caller asks of a pool.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::LONGEST;
use crate::gate::Lane;

/// How long a caller waits for a lease, and whether it may use the reserved lane.
///
/// ```
/// # use std::time::Duration;
/// # use escala_pool::Acquire;
/// let patient = Acquire::new().timeout(Duration::from_secs(30));
/// let health_check = Acquire::reserved().timeout(Duration::from_secs(1));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct Acquire {
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    reserved: bool,
}

impl Acquire {
    /// The pool's own `acquire_timeout`, among all other callers.
    pub fn new() -> Self {
        Self::default()
    }

    /// For health checks and administration, which must not starve when all connections are in use
    /// or the pool is paused: if no ordinary permit is free, one of `reserved` others is taken, for
    /// which the pool may open as many connections beyond `max_size`.
    pub fn reserved() -> Self {
        Self { reserved: true, ..Self::default() }
    }

    /// Waits so long instead of the pool's `acquire_timeout`. Zero, as a deadline that has passed,
    /// takes what is at hand, also if it was idle for so long that it would be tested otherwise, and
    /// fails if nothing is.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Waits until then at the latest, whatever the timeout is: the deadline of the request that
    /// needs the lease, say.
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    pub(crate) fn lane(&self) -> Lane {
        if self.reserved { Lane::Reserved } else { Lane::Ordinary }
    }

    pub(crate) fn ends(&self, now: Instant, default: Duration) -> Instant {
        let end = now + self.timeout.unwrap_or(default).min(LONGEST);
        self.deadline.map_or(end, |deadline| deadline.min(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_bound_counts_and_the_default_without_any() {
        let now = Instant::now();
        let seconds = |seconds| now + Duration::from_secs(seconds);
        let default = Duration::from_secs(5);
        for (acquire, expected) in [
            (Acquire::new(), seconds(5)),
            (Acquire::new().timeout(Duration::from_secs(9)), seconds(9)),
            (Acquire::new().deadline(seconds(7)), seconds(5)),
            (Acquire::new().deadline(seconds(3)), seconds(3)),
            (Acquire::reserved().timeout(Duration::from_secs(1)).deadline(seconds(7)), seconds(1)),
            (Acquire::new().timeout(Duration::from_secs(8)).deadline(seconds(7)), seconds(7)),
            (Acquire::new().timeout(Duration::MAX), now + LONGEST),
        ] {
            assert_eq!(acquire.ends(now, default), expected, "{acquire:?}");
        }
    }
}
