//! How long the pool leaves a server alone that refused a connect. Pure: time and chance come in.

use std::time::Duration;

use tokio::time::Instant;

/// The ceiling of the first wait, as in HikariCP: a server that only dropped one connect is asked
/// again before anyone notices.
const FIRST: Duration = Duration::from_millis(10);

/// The wait that all connects of one pool share. It doubles with each failure up to `most`, and a
/// share of it by chance is waited ("full jitter"), so that pools that failed together do not come
/// back together. A success resets it.
#[derive(Debug)]
pub(crate) struct Backoff {
    most: Duration,
    ceiling: Duration,
    /// When the last failure was noted, and when the next connect may begin.
    failed: Option<(Instant, Instant)>,
}

impl Backoff {
    pub(crate) fn new(most: Duration) -> Self {
        Self { most, ceiling: FIRST, failed: None }
    }

    /// Notes the failure of a connect that began at `began` and says when the next may begin.
    /// `chance` is uniform from 0 to 1. Connects that were under way together count as one failure:
    /// they ask the same question.
    pub(crate) fn failed(&mut self, began: Instant, now: Instant, chance: f64) -> Instant {
        if let Some((noted, until)) = self.failed
            && began <= noted
        {
            return until;
        }
        let ceiling = self.ceiling.min(self.most);
        let until = now + ceiling.mul_f64(chance.clamp(0.0, 1.0));
        self.ceiling = ceiling.saturating_mul(2).min(self.most);
        self.failed = Some((now, until));
        until
    }

    pub(crate) fn succeeded(&mut self) {
        self.ceiling = FIRST;
        self.failed = None;
    }

    /// Whether the last connect failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failed.is_some()
    }

    /// When the next connect may begin; `None` if it may begin now.
    pub(crate) fn waits_until(&self, now: Instant) -> Option<Instant> {
        self.failed.map(|(_, until)| until).filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_wait_doubles_to_its_most_and_a_success_resets_it() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(60));
        for expected in [10, 20, 40, 60, 60] {
            let until = backoff.failed(now, now, 1.0);
            assert_eq!(until - now, Duration::from_millis(expected));
            assert_eq!(backoff.waits_until(now), Some(until));
            now = until;
            assert_eq!(backoff.waits_until(now), None);
            now += Duration::from_nanos(1);
        }
        assert!(backoff.is_failing());
        backoff.succeeded();
        assert!(!backoff.is_failing());
        assert_eq!(backoff.failed(now, now, 1.0) - now, Duration::from_millis(10));
    }

    #[test]
    fn connects_that_fail_together_count_once() {
        let began = Instant::now();
        let later = began + Duration::from_millis(3);
        let mut backoff = Backoff::new(Duration::from_secs(1));
        let until = backoff.failed(began, later, 0.5);
        assert_eq!(backoff.failed(began, later, 1.0), until);
        let next = until + Duration::from_millis(1);
        assert_eq!(backoff.failed(next, next, 1.0) - next, Duration::from_millis(20));
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_most(
            failures in prop::collection::vec((0.0..=1.0_f64, 0..5_000_u64), 1..40),
            most in 1..5_000_u64,
        ) {
            let most = Duration::from_millis(most);
            let mut backoff = Backoff::new(most);
            let mut now = Instant::now();
            for (chance, pause) in failures {
                let until = backoff.failed(now, now, chance);
                prop_assert!(until >= now && until - now <= most);
                now = until + Duration::from_millis(pause) + Duration::from_nanos(1);
            }
        }
    }
}
