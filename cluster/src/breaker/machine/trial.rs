//! One half-open period: calls under way plus calls decided never exceed the permits.

use std::num::NonZeroU32;
use std::time::Duration;

use super::Figures;

#[derive(Debug, Default)]
pub(super) struct Trial {
    probes: Vec<Probe>,
    /// The number of the last probe.
    last: u32,
    pub(super) succeeded: u32,
    pub(super) failed: u32,
}

#[derive(Debug)]
struct Probe {
    id: NonZeroU32,
    deadline: Duration,
}

impl Trial {
    pub(super) fn admit(&mut self, permits: u32, deadline: Duration) -> Option<NonZeroU32> {
        if self.is_full(permits) {
            return None;
        }
        // After four thousand million probes of one trial the numbers begin anew.
        self.last = self.last.checked_add(1).unwrap_or(1);
        let id = NonZeroU32::MIN.saturating_add(self.last - 1);
        self.probes.push(Probe { id, deadline });
        Some(id)
    }

    /// Whether all its permits are handed out.
    pub(super) fn is_full(&self, permits: u32) -> bool {
        let decided = (self.succeeded + self.failed) as usize;
        self.probes.len() + decided >= permits as usize
    }

    /// False if the probe is no longer there: it has outlived its deadline.
    pub(super) fn release(&mut self, id: NonZeroU32) -> bool {
        let before = self.probes.len();
        self.probes.retain(|probe| probe.id != id);
        self.probes.len() < before
    }

    /// Removes the probe whose deadline passed first.
    pub(super) fn pop_overdue(&mut self, now: Duration) -> Option<Duration> {
        let overdue = self.probes.iter().enumerate().filter(|(_, probe)| probe.deadline <= now);
        let (index, _) = overdue.min_by_key(|(_, probe)| probe.deadline)?;
        Some(self.probes.swap_remove(index).deadline)
    }

    pub(super) fn next_deadline(&self) -> Duration {
        self.probes.iter().map(|probe| probe.deadline).min().unwrap_or_default()
    }

    pub(super) fn figures(&self) -> Figures {
        let failures = u64::from(self.failed);
        Figures { calls: u64::from(self.succeeded) + failures, failures, ..Figures::default() }
    }
}
