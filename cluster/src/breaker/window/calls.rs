//! A sliding window of calls: the last so many, whatever the time.

use std::collections::VecDeque;

use super::{Counts, Mark};

/// Only calls that are no plain successes are kept, each with its number: what lies between two of
/// them were successes. A healthy backend's window is empty however long it is.
#[derive(Debug)]
pub(super) struct CallWindow {
    size: u64,
    /// Calls seen so far.
    position: u64,
    /// Calls before this one are not counted, even if the window is not full.
    begin: u64,
    marked: VecDeque<(u64, Mark)>,
    failures: u64,
    slow: u64,
}

impl CallWindow {
    pub(super) fn new(size: u32) -> Self {
        Self {
            size: size.into(),
            position: 0,
            begin: 0,
            marked: VecDeque::new(),
            failures: 0,
            slow: 0,
        }
    }

    /// A shorter window keeps its last calls; a longer one keeps all and fills up from there.
    pub(super) fn reshape(mut self, size: u32) -> Self {
        self.size = size.into();
        self.forget();
        self
    }

    pub(super) fn clear(&mut self) {
        self.begin = self.position;
        self.marked.clear();
        (self.failures, self.slow) = (0, 0);
    }

    pub(super) fn advance(&mut self, successes: u64) {
        self.position += successes;
        self.forget();
    }

    pub(super) fn record(&mut self, mark: Mark) {
        self.marked.push_back((self.position, mark));
        self.position += 1;
        self.failures += u64::from(mark.failed);
        self.slow += u64::from(mark.slow);
        self.forget();
    }

    pub(super) fn counts(&self) -> Counts {
        let calls = self.position - self.begin;
        Counts { calls, failures: self.failures, slow: self.slow }
    }

    fn forget(&mut self) {
        self.begin = self.begin.max(self.position.saturating_sub(self.size));
        while let Some((position, mark)) = self.marked.front()
            && *position < self.begin
        {
            self.failures -= u64::from(mark.failed);
            self.slow -= u64::from(mark.slow);
            self.marked.pop_front();
        }
    }
}
