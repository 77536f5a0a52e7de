//! What has happened lately: the last so many calls, and the last so much time. Pure, and kept
//! under the breaker's lock.
//!
//! A success is not recorded here. It only adds to a counter of the thread that saw it, and
//! whoever looks at the windows next brings the sum of those counters along: between two calls
//! that are recorded all others were successes, so their number is all there is to know of them.

mod calls;
mod time;

use self::calls::CallWindow;
use self::time::TimeWindow;
use super::{BreakerConfig, Figures, Reason};

/// Calls, and what they were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) failures: u64,
    pub(super) slow: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.failures += other.failures;
        self.slow += other.slow;
    }
}

/// A call that is no plain success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) failed: bool,
    pub(super) slow: bool,
}

#[derive(Debug)]
pub(super) struct Windows {
    time: Option<TimeWindow>,
    calls: Option<CallWindow>,
}

/// The shares that are too high, and from how many calls on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    failures: Option<f64>,
    slow: Option<f64>,
    minimum_calls: u64,
}

impl Limits {
    pub(super) fn new(config: &BreakerConfig) -> Self {
        Self {
            failures: config.failure_rate,
            slow: config.slow_call_rate,
            minimum_calls: u64::from(config.minimum_calls),
        }
    }

    /// Whether a window is needed at all.
    fn any(&self) -> bool {
        self.failures.is_some() || self.slow.is_some()
    }

    pub(super) fn exceeded(&self, counts: Counts, in_flight_slow: u64) -> Option<Reason> {
        let too_high = |share: Option<f64>, part: u64, calls: u64| {
            share.is_some_and(|share| {
                // As a quotient, as the share itself was written: 0.28 times 25 is more than 7.
                calls > 0 && calls >= self.minimum_calls && part as f64 / calls as f64 >= share
            })
        };
        if counts.failures > 0 && too_high(self.failures, counts.failures, counts.calls) {
            return Some(Reason::FailureRate);
        }
        let (slow, calls) = (counts.slow + in_flight_slow, counts.calls + in_flight_slow);
        (slow > 0 && too_high(self.slow, slow, calls)).then_some(Reason::SlowCallRate)
    }
}

impl Windows {
    pub(super) fn new(config: &BreakerConfig, now: u64) -> Self {
        let mut windows = Self { time: None, calls: None };
        windows.reshape(config, now);
        windows
    }

    /// Takes on the lengths of another configuration and keeps what is counted: of calls exactly,
    /// of time give or take a bucket. A window that was not there before starts empty.
    pub(super) fn reshape(&mut self, config: &BreakerConfig, now: u64) {
        let used = Limits::new(config).any();
        let length = config.window.filter(|_| used);
        self.time = length.map(|length| match self.time.take() {
            Some(window) => window.reshape(length),
            None => TimeWindow::new(length, now),
        });
        let size = config.count_window.filter(|_| used);
        self.calls = size.map(|size| match self.calls.take() {
            Some(window) => window.reshape(size),
            None => CallWindow::new(size),
        });
    }

    pub(super) fn clear(&mut self, now: u64) {
        if let Some(window) = &mut self.time {
            window.clear(now);
        }
        if let Some(window) = &mut self.calls {
            window.clear();
        }
    }

    /// Takes in the successes since it was last called, and comes to `now` (in nanoseconds).
    pub(super) fn advance(&mut self, successes: u64, now: u64) {
        if let Some(window) = &mut self.time {
            window.advance(successes, now);
        }
        if let Some(window) = &mut self.calls {
            window.advance(successes);
        }
    }

    /// Records a call that has ended now.
    pub(super) fn record(&mut self, mark: Mark) {
        if let Some(window) = &mut self.time {
            window.record(mark);
        }
        if let Some(window) = &mut self.calls {
            window.record(mark);
        }
    }

    /// When the next bucket of time begins; the end of time if there are none.
    pub(super) fn next_bucket(&self) -> u64 {
        self.time.as_ref().map_or(u64::MAX, TimeWindow::next_bucket)
    }

    pub(super) fn time_counts(&self) -> Counts {
        self.time.as_ref().map(TimeWindow::counts).unwrap_or_default()
    }

    pub(super) fn call_counts(&self) -> Counts {
        self.calls.as_ref().map(CallWindow::counts).unwrap_or_default()
    }

    /// The condition that is met, if one is, with the figures of its window.
    pub(super) fn judge(&self, limits: &Limits, in_flight_slow: u64) -> (Option<Reason>, Figures) {
        let mut seen = None;
        let time = self.time.as_ref().map(TimeWindow::counts);
        for counts in [time, self.calls.as_ref().map(CallWindow::counts)].into_iter().flatten() {
            let Counts { calls, failures, slow } = counts;
            let figures = Figures { calls, failures, slow, in_flight_slow, ..Figures::default() };
            if let Some(reason) = limits.exceeded(counts, in_flight_slow) {
                return (Some(reason), figures);
            }
            seen = seen.or(Some(figures));
        }
        (None, seen.unwrap_or_default())
    }
}
