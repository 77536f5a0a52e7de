//! Work that a drain waits for although no connection does.

use std::fmt;

use super::{Drain, Phase};

/// Work that the drain waits for, from [`Drain::job`] until this is dropped.
///
/// The name stands in the report if the deadline comes first. A job that can stop half-way does so
/// at [`Job::cut`] or runs inside [`Job::run`]; any other goes on until the process ends.
#[must_use = "the drain waits until this is dropped"]
pub struct Job {
    drain: Drain,
    number: u64,
}

/// The drain's deadline has come, or a second signal, before the job had ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the drain has cut the job")]
#[non_exhaustive]
pub struct JobCut;

impl Job {
    pub(super) fn new(drain: &Drain, number: u64) -> Self {
        Self { drain: drain.clone(), number }
    }

    /// Ends when the drain waits no longer: at its deadline or at a second signal; at once if that
    /// has been.
    pub fn cut(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.drain.reaches(|status| status.phase >= Phase::Cutting)
    }

    /// Does the work, and drops it where it waits if the drain cuts.
    ///
    /// # Errors
    /// [`JobCut`]: the work was dropped, or not begun because the drain had cut before.
    pub async fn run<F: Future>(self, work: F) -> Result<F::Output, JobCut> {
        let mut cut = std::pin::pin!(self.cut());
        tokio::select! {
            biased;
            () = &mut cut => Err(JobCut),
            done = work => Ok(done),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.drain.shared.account.open.leave(self.number);
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("number", &self.number).finish_non_exhaustive()
    }
}
