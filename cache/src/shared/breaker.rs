//! When to leave a failing store alone: a state machine without clock or chance of its own.

use std::time::Duration;

use tokio::time::Instant;

/// Opens after so many failures in a row, admits one probe after a pause, closes on its success.
#[derive(Debug)]
pub(crate) struct Breaker {
    threshold: u32,
    pause: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One operation finds out for all whether the store is back.
    Probing,
}

/// Leave to try one operation; its outcome is owed to the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct Leave {
    probe: bool,
}

impl Breaker {
    pub(crate) fn new(threshold: u32, pause: Duration) -> Self {
        Self { threshold, pause, state: State::Closed { failures: 0 } }
    }

    pub(crate) fn admit(&mut self, now: Instant) -> Option<Leave> {
        match self.state {
            State::Closed { .. } => Some(Leave { probe: false }),
            State::Open { until } if now >= until => {
                self.state = State::Probing;
                Some(Leave { probe: true })
            }
            State::Open { .. } | State::Probing => None,
        }
    }

    pub(crate) fn succeeded(&mut self, leave: Leave) {
        if leave.probe || matches!(self.state, State::Closed { .. }) {
            self.state = State::Closed { failures: 0 };
        }
    }

    /// `chance`, from 0 to 1, spreads the probes of many processes over half a pause more.
    ///
    /// What was admitted before the breaker opened says nothing new and does not lengthen the
    /// pause.
    pub(crate) fn failed(&mut self, leave: Leave, now: Instant, chance: f64) {
        match &mut self.state {
            State::Closed { failures } if *failures + 1 < self.threshold => *failures += 1,
            State::Closed { .. } => self.open(now, chance),
            State::Probing if leave.probe => self.open(now, chance),
            State::Open { .. } | State::Probing => {}
        }
    }

    /// The operation was dropped without an outcome: a probe leaves its place to the next.
    pub(crate) fn abandoned(&mut self, leave: Leave, now: Instant) {
        if leave.probe {
            self.state = State::Open { until: now };
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    fn open(&mut self, now: Instant, chance: f64) {
        self.state = State::Open { until: now + self.pause.mul_f64(1.0 + chance / 2.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(2, PAUSE);
        for _ in 0..2 {
            let leave = breaker.admit(now).unwrap();
            breaker.failed(leave, now, 0.0);
        }
        breaker
    }

    #[tokio::test]
    async fn only_failures_in_a_row_open_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new(2, PAUSE);
        for outcome in [false, true, false] {
            let leave = breaker.admit(now).unwrap();
            if outcome { breaker.succeeded(leave) } else { breaker.failed(leave, now, 0.0) }
        }
        assert!(!breaker.is_open());
        let leave = breaker.admit(now).unwrap();
        breaker.failed(leave, now, 0.0);
        assert!(breaker.is_open());
        assert_eq!(breaker.admit(now), None);
    }

    #[tokio::test]
    async fn one_probe_decides_after_the_pause() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now + PAUSE - Duration::from_millis(1)), None);
        let probe = breaker.admit(now + PAUSE).unwrap();
        assert_eq!(breaker.admit(now + PAUSE), None, "one probe at a time");
        breaker.failed(probe, now + PAUSE, 1.0);
        assert_eq!(breaker.admit(now + PAUSE + PAUSE), None, "the second pause is jittered");
        let probe = breaker.admit(now + PAUSE + PAUSE.mul_f64(1.5)).unwrap();
        breaker.succeeded(probe);
        assert!(!breaker.is_open());
    }

    #[tokio::test]
    async fn late_outcomes_neither_close_nor_prolong() {
        let now = Instant::now();
        let mut breaker = Breaker::new(1, PAUSE);
        let [first, late_failure, late_success] = [(); 3].map(|()| breaker.admit(now).unwrap());
        breaker.failed(first, now, 0.0);
        breaker.failed(late_failure, now + PAUSE / 2, 0.0);
        breaker.succeeded(late_success);
        assert!(breaker.is_open());
        assert!(breaker.admit(now + PAUSE).is_some());
    }

    #[tokio::test]
    async fn an_abandoned_probe_leaves_its_place_to_the_next() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let probe = breaker.admit(now + PAUSE).unwrap();
        breaker.abandoned(probe, now + PAUSE);
        assert!(breaker.admit(now + PAUSE).is_some());
    }
}
