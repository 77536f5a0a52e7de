//! The share of requests that failed lately: pure, and fed by failures alone, so that successes cost
//! nothing.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::ReplicasConfig;

/// Parts of the window; it forgets in steps of one.
const BUCKETS: u32 = 10;

/// How many requests had failed and succeeded before a failure.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    failed: u64,
    succeeded: u64,
}

/// The counts before the first failure of each part of the window.
///
/// What succeeded between two failures is known from the counts themselves. The window so begins at
/// a failure, and may be shorter than configured by the time before it.
#[derive(Debug, Default)]
pub(crate) struct Window {
    marks: VecDeque<Mark>,
    /// Counted here: others do not count against the node, such as those from before it was out.
    failed: u64,
}

impl Window {
    /// Takes note of a failure and says whether too large a share of the requests in the window failed.
    /// `succeeded`: since the beginning of time.
    pub(crate) fn failed(&mut self, now: Instant, succeeded: u64, config: &ReplicasConfig) -> bool {
        let age = |mark: &Mark| now.saturating_duration_since(mark.at);
        while self.marks.front().is_some_and(|mark| age(mark) >= config.failure_window) {
            self.marks.pop_front();
        }
        // One mark a bucket at most, so at most `BUCKETS` of them.
        let bucket = config.failure_window / BUCKETS;
        if self.marks.back().is_none_or(|mark| age(mark) >= bucket) {
            self.marks.push_back(Mark { at: now, failed: self.failed, succeeded });
        }
        self.failed = self.failed.saturating_add(1);
        let Some(start) = self.marks.front() else { return false };
        let failed = self.failed - start.failed;
        let requests = failed.saturating_add(succeeded.saturating_sub(start.succeeded));
        let share = u64::from(config.failure_percent);
        requests >= u64::from(config.failure_min_requests)
            && failed.saturating_mul(100) >= requests.saturating_mul(share)
    }
}

#[cfg(test)]
mod tests;
