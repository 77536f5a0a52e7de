//! The share of requests that failed lately: pure, and fed by failures alone, so that successes cost
//! nothing.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::ReplicasConfig;

/// Parts of the window; it forgets in steps of one.
const BUCKETS: u32 = 10;

/// Requests that ended with a verdict, since the beginning of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
}

/// How the totals stood before the first failure of each part of the window.
///
/// What ended between two failures is known from the totals themselves. The window so begins at
/// a failure, and may be shorter than configured by the time before it.
#[derive(Debug, Default)]
pub(crate) struct Window {
    marks: VecDeque<(Instant, Totals)>,
}

impl Window {
    /// Takes note of a failure, which `totals` includes, and says whether too large a share of the
    /// requests in the window failed.
    pub(crate) fn failed(&mut self, now: Instant, totals: Totals, config: &ReplicasConfig) -> bool {
        let bucket = config.failure_window / BUCKETS;
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= config.failure_window;
        while self.marks.front().is_some_and(|(at, _)| is_old(at)) {
            self.marks.pop_front();
        }
        // One mark a bucket at most, so at most `BUCKETS` of them.
        if self.marks.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= bucket) {
            let before = Totals { failed: totals.failed.saturating_sub(1), ..totals };
            self.marks.push_back((now, before));
        }
        let Some(&(_, start)) = self.marks.front() else { return false };
        let failed = totals.failed.saturating_sub(start.failed);
        let requests = failed.saturating_add(totals.succeeded.saturating_sub(start.succeeded));
        let share = u64::from(config.failure_percent);
        requests >= u64::from(config.failure_min_requests)
            && failed.saturating_mul(100) >= requests.saturating_mul(share)
    }
}

#[cfg(test)]
mod tests;
