//! What is kept under the lock: the machine and the windows it is moved by.

use std::time::Duration;

use super::super::machine::{Machine, Verdict};
use super::super::window::{Counts, Limits, Mark, Windows};
use super::super::{Figures, Reason};
use super::BreakerConfig;

#[derive(Debug)]
pub(super) struct Books {
    pub(super) config: BreakerConfig,
    pub(super) machine: Machine,
    windows: Windows,
    limits: Limits,
    /// Successes of this time of being closed that the windows know of.
    successes: u64,
}

/// The result of a call that is no plain success, or of a look at those under way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Event {
    pub(super) mark: Option<Mark>,
    pub(super) retry_after: Option<Duration>,
    /// Failures in a row, with this one.
    pub(super) row: u64,
    /// Calls under way that are too slow.
    pub(super) in_flight_slow: u64,
}

impl Books {
    pub(super) fn new(config: BreakerConfig) -> Self {
        Self {
            machine: Machine::new(&config),
            windows: Windows::new(&config, 0),
            limits: Limits::new(&config),
            config,
            successes: 0,
        }
    }

    /// The circuit has just been closed, with so many successes counted where it counts now.
    pub(super) fn clear(&mut self, successes: u64, now: u64) {
        self.successes = successes;
        self.windows.clear(now);
    }

    /// Takes in what the threads have counted.
    pub(super) fn advance(&mut self, successes: u64, now: u64) {
        self.windows.advance(successes - self.successes, now);
        self.successes = successes;
    }

    pub(super) fn next_bucket(&self) -> u64 {
        self.windows.next_bucket()
    }

    pub(super) fn counts(&self) -> (Counts, Counts) {
        (self.windows.time_counts(), self.windows.call_counts())
    }

    /// Takes what has happened on a closed circuit, and opens it if that was too much.
    pub(super) fn take(&mut self, epoch: u64, event: Event, now: Duration, chance: f64) {
        if let Some(mark) = event.mark {
            self.windows.record(mark);
        }
        self.machine.hold(epoch, now, event.retry_after);
        if let Some(why) = self.judge(event) {
            self.machine.trip(epoch, now, chance, why);
        }
    }

    fn judge(&self, event: Event) -> Option<(Reason, Figures)> {
        let (reason, mut figures) = self.windows.judge(&self.limits, event.in_flight_slow);
        figures.consecutive_failures = event.row;
        let limit = self.config.consecutive_failures;
        let in_a_row = limit.is_some_and(|limit| event.row >= limit.into());
        let reason = if in_a_row { Some(Reason::ConsecutiveFailures) } else { reason };
        reason.map(|reason| (reason, figures))
    }

    pub(super) fn reconfigure(&mut self, config: BreakerConfig, now: Duration, chance: f64) {
        self.windows.reshape(&config, super::nanos(now));
        self.limits = Limits::new(&config);
        self.machine.set_rules(&config, now, chance);
        self.config = config;
    }
}

/// What a probe's end says.
pub(super) fn verdict(end: super::End, slow: bool) -> Verdict {
    use super::End;
    match end {
        End::Ignored => Verdict::Neutral,
        _ if slow || end.is_failure() => Verdict::Failure,
        End::Succeeded => Verdict::Success,
        _ => Verdict::Neutral,
    }
}
