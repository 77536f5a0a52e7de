//! What is known about one check, and for how long it may be believed. Pure: time is an argument.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Past this many intervals a result is stale and warns.
const STALE: u32 = 3;
/// Past this many it says nothing any more and fails: a cached "healthy" must not outlive what it
/// was said about.
const EXPIRED: u32 = 10;
/// How often a failing check is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How a check stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// Not run yet.
    Unknown,
    /// Passed lately.
    Pass,
    /// Failed, but not often enough to count, or its result is stale.
    Warn,
    /// Failed, or its result has expired.
    Fail,
}

/// The result of one run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) at: Instant,
    pub(crate) wall: SystemTime,
    pub(crate) took: Duration,
    pub(crate) result: Result<(), String>,
}

/// A check's past.
#[derive(Debug)]
pub(crate) struct State {
    registered: Instant,
    pub(crate) last: Option<Outcome>,
    /// Failures in a row.
    failures: u32,
    ever_passed: bool,
    running: bool,
    due: Instant,
}

impl State {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            registered: now,
            last: None,
            failures: 0,
            ever_passed: false,
            running: false,
            due: now,
        }
    }

    /// When to run next; `None` while a run is under way, so that runs cannot pile up.
    pub(crate) fn due(&self) -> Option<Instant> {
        (!self.running).then_some(self.due)
    }

    pub(crate) fn begin(&mut self) {
        self.running = true;
    }

    /// Takes a result. `share` is the interval's jitter, around 1.
    pub(crate) fn record(&mut self, outcome: Outcome, interval: Duration, share: f64) {
        let wait = interval.mul_f64(share);
        if outcome.result.is_ok() {
            self.failures = 0;
            self.ever_passed = true;
            self.due = outcome.at + wait;
        } else {
            self.failures = self.failures.saturating_add(1);
            self.due = outcome.at + wait.min(RETRY);
        }
        self.last = Some(outcome);
    }

    /// The run is over, its future gone.
    pub(crate) fn end(&mut self) {
        self.running = false;
    }

    /// The status now, and why.
    pub(crate) fn status(
        &self,
        now: Instant,
        interval: Duration,
        allowed: u32,
    ) -> (CheckStatus, String) {
        let (since, outcome) = match &self.last {
            Some(outcome) => (outcome.at, Some(&outcome.result)),
            None => (self.registered, None),
        };
        let age = now.saturating_duration_since(since);
        if age > interval * EXPIRED {
            return (CheckStatus::Fail, format!("no result for {}", seconds(age)));
        }
        match outcome {
            None => (CheckStatus::Unknown, "no result yet".to_owned()),
            Some(Err(error)) if self.failures >= allowed || !self.ever_passed => {
                (CheckStatus::Fail, error.clone())
            }
            Some(Err(error)) => (CheckStatus::Warn, error.clone()),
            Some(Ok(())) if age > interval * STALE => {
                (CheckStatus::Warn, format!("last passed {} ago", seconds(age)))
            }
            Some(Ok(())) => (CheckStatus::Pass, "passed".to_owned()),
        }
    }
}

fn seconds(age: Duration) -> String {
    format!("{:.0} s", age.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn outcome(at: Instant, result: Result<(), &str>) -> Outcome {
        Outcome {
            at,
            wall: SystemTime::UNIX_EPOCH,
            took: Duration::ZERO,
            result: result.map_err(str::to_owned),
        }
    }

    fn after(state: &State, from: Instant, seconds: u64) -> CheckStatus {
        state.status(from + Duration::from_secs(seconds), INTERVAL, 2).0
    }

    #[test]
    fn a_pass_is_believed_for_three_intervals_and_remembered_for_ten() {
        let start = Instant::now();
        let mut state = State::new(start);
        state.record(outcome(start, Ok(())), INTERVAL, 1.0);
        for (age, status) in [
            (0, CheckStatus::Pass),
            (30, CheckStatus::Pass),
            (31, CheckStatus::Warn),
            (100, CheckStatus::Warn),
            (101, CheckStatus::Fail),
            (600_000, CheckStatus::Fail),
        ] {
            assert_eq!(after(&state, start, age), status, "after {age} s");
        }
    }

    #[test]
    fn a_check_that_never_ran_is_unknown_then_fails() {
        let start = Instant::now();
        let state = State::new(start);
        assert_eq!(after(&state, start, 100), CheckStatus::Unknown);
        assert_eq!(after(&state, start, 101), CheckStatus::Fail);
    }

    #[test]
    fn one_failure_warns_and_the_second_fails() {
        let start = Instant::now();
        let mut state = State::new(start);
        state.record(outcome(start, Ok(())), INTERVAL, 1.0);
        state.record(outcome(start, Err("lost")), INTERVAL, 1.0);
        assert_eq!(state.status(start, INTERVAL, 2), (CheckStatus::Warn, "lost".to_owned()));
        state.record(outcome(start, Err("lost")), INTERVAL, 1.0);
        assert_eq!(after(&state, start, 0), CheckStatus::Fail);
        state.record(outcome(start, Ok(())), INTERVAL, 1.0);
        assert_eq!(after(&state, start, 0), CheckStatus::Pass);
    }

    #[test]
    fn a_check_that_never_passed_fails_at_once() {
        let start = Instant::now();
        let mut state = State::new(start);
        state.record(outcome(start, Err("refused")), INTERVAL, 1.0);
        assert_eq!(after(&state, start, 0), CheckStatus::Fail);
    }

    #[test]
    fn a_failing_check_is_tried_every_second_and_never_twice_at_once() {
        let start = Instant::now();
        let mut state = State::new(start);
        assert_eq!(state.due(), Some(start));
        state.begin();
        assert_eq!(state.due(), None);
        state.record(outcome(start, Err("x")), INTERVAL, 1.0);
        assert_eq!(state.due(), None, "the result is in, but the run is not gone");
        state.end();
        assert_eq!(state.due(), Some(start + RETRY));
        state.record(outcome(start, Ok(())), INTERVAL, 0.9);
        assert_eq!(state.due(), Some(start + Duration::from_secs(9)));
    }
}
