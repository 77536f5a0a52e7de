//! Dead letters: jobs that no further attempt will help, kept for a person to look at.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use crate::id::JobId;
use crate::job::Job;

/// A job that was given up, and why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The job; `attempt` is the number of attempts that were made.
    pub job: Job,
    /// The last error with its causes, the panic message, the timeout, or the handler's word; cut
    /// at 1,024 bytes.
    pub reason: String,
    /// Wall-clock time at which it was given up.
    pub died_at: SystemTime,
}

/// A ring: the oldest letter makes way for a new one.
#[derive(Debug)]
pub(super) struct Letters {
    /// Shared, so that a listing under the lock copies pointers and not jobs.
    ring: VecDeque<Arc<DeadLetter>>,
    capacity: usize,
    dropped: u64,
}

impl Letters {
    pub(super) fn new(capacity: usize) -> Self {
        Self { ring: VecDeque::new(), capacity, dropped: 0 }
    }

    pub(super) fn push(&mut self, job: Job, reason: String) {
        if self.ring.len() >= self.capacity {
            self.ring.pop_front();
            self.dropped += 1;
        }
        self.ring.push_back(Arc::new(DeadLetter { job, reason, died_at: SystemTime::now() }));
    }

    pub(super) fn find(&self, id: JobId) -> Option<&DeadLetter> {
        self.ring.iter().map(|letter| &**letter).find(|letter| letter.job.id == id)
    }

    pub(super) fn take(&mut self, id: JobId) -> Option<Job> {
        let index = self.ring.iter().position(|letter| letter.job.id == id)?;
        self.ring.remove(index).map(|letter| letter.job.clone())
    }

    pub(super) fn list(&self) -> Vec<Arc<DeadLetter>> {
        self.ring.iter().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}
