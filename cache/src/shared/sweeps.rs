//! The patterns that this process removed of late.
//!
//! Another process may be about to write a value whose load began before: it takes it back as soon
//! as it has compared the control record with the one it began under. Between the two nobody who
//! removed the pattern may read it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{self, Tick};
use crate::glob::Pattern;

/// Past this many, the oldest stands for every key: a few needless loads rather than growth.
const MOST: usize = 16;

#[derive(Debug)]
pub(super) struct Sweeps {
    /// The moment of the last one; zero if there was none. Most reads look no further.
    last: AtomicU64,
    recent: Mutex<VecDeque<Sweep>>,
    /// No load that began before is written later than this.
    fence: Duration,
}

#[derive(Debug)]
struct Sweep {
    /// `None`: every key.
    pattern: Option<Pattern>,
    /// The control record's moment.
    moment: u64,
    at: Tick,
}

impl Sweeps {
    pub(super) fn new(fence: Duration) -> Self {
        Self { last: AtomicU64::new(0), recent: Mutex::new(VecDeque::new()), fence }
    }

    pub(super) fn note(&self, pattern: &Pattern, moment: u64) {
        let at = clock::now();
        let mut recent = self.recent.lock();
        let over = recent.iter().take_while(|sweep| at.since(sweep.at) > self.fence).count();
        recent.drain(..over);
        if recent.len() >= MOST {
            recent.pop_front();
            if let Some(oldest) = recent.front_mut() {
                oldest.pattern = None;
            }
        }
        recent.push_back(Sweep { pattern: Some(pattern.clone()), moment, at });
        self.last.store(moment, Ordering::Release);
    }

    /// Whether a value under `text`, whose load began at `clock`, was removed by one of them.
    pub(super) fn removed(&self, text: &str, clock: u64) -> bool {
        if clock >= self.last.load(Ordering::Acquire) {
            return false;
        }
        let recent = self.recent.lock();
        recent
            .iter()
            .filter(|sweep| clock < sweep.moment)
            .any(|sweep| sweep.pattern.as_ref().is_none_or(|pattern| pattern.matches(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweeps() -> Sweeps {
        Sweeps::new(Duration::from_secs(30))
    }

    #[test]
    fn what_matches_and_was_loaded_before_is_not_read() {
        let sweeps = sweeps();
        assert!(!sweeps.removed("a1", 0));
        sweeps.note(&Pattern::new("a*"), 5);
        assert!(sweeps.removed("a1", 4));
        assert!(!sweeps.removed("a1", 5) && !sweeps.removed("b1", 4));
    }

    #[test]
    fn too_many_stand_for_everything() {
        let sweeps = sweeps();
        for moment in 1..=MOST as u64 + 1 {
            sweeps.note(&Pattern::new("a*"), moment);
        }
        assert!(sweeps.removed("b", 1) && !sweeps.removed("b", 2));
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_longest_load_they_are_forgotten() {
        let sweeps = sweeps();
        sweeps.note(&Pattern::new("a*"), 1);
        tokio::time::advance(Duration::from_secs(31)).await;
        sweeps.note(&Pattern::new("b*"), 2);
        assert!(!sweeps.removed("a", 0) && sweeps.removed("b", 0));
    }
}
