//! How often, how soon and for how long a request is sent again.

use std::time::Duration;

use crate::ConfigError;

/// No time is longer than a day: longer ones are slips of the unit, and would overflow the clock.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What a [`RetryPolicy`](crate::RetryPolicy) spends on requests that fail.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RetryConfig {
    /// Times a request is sent at most, the first one included, 1 to 100. 3: what fails three times
    /// over a second is down, and a breaker's business.
    pub max_attempts: u32,
    /// No retry is begun after this time since the request was first sent. 10 s, the patience of
    /// the documented medium lane. An attempt under way then is not ended: put a timeout around the
    /// retries for that, and one inside them for each attempt.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub deadline: Duration,
    /// Before the first retry there is a random wait between zero and this, before each further one
    /// up to twice as much ("full jitter"). 50 ms, tower's default: a blip is over by then.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub backoff: Duration,
    /// Where the doubling stops. 5 s, half of the deadline.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub backoff_max: Duration,
    /// Requests that earn one retry, 0 to 10,000; 0: they earn none. 5, so that a backend which fails
    /// altogether sees a fifth more load, as in Finagle and Envoy. Earned retries last 10 s.
    pub requests_per_retry: u32,
    /// Retries per second that need not be earned, at most 1,000,000. 10, as in Finagle: of a few
    /// requests each may be retried. They are a reserve for ten seconds: 100 in any ten seconds, all
    /// at once if they fail at once.
    pub retries_per_second: u32,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            deadline: Duration::from_secs(10),
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            requests_per_retry: 5,
            retries_per_second: 10,
        }
    }
}

impl RetryConfig {
    /// Sets [`max_attempts`](Self#structfield.max_attempts).
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets [`deadline`](Self#structfield.deadline).
    #[must_use]
    pub fn deadline(mut self, time: Duration) -> Self {
        self.deadline = time;
        self
    }

    /// Sets [`backoff`](Self#structfield.backoff) and
    /// [`backoff_max`](Self#structfield.backoff_max).
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = first;
        self.backoff_max = longest;
        self
    }

    /// Sets [`requests_per_retry`](Self#structfield.requests_per_retry) and
    /// [`retries_per_second`](Self#structfield.retries_per_second).
    #[must_use]
    pub fn budget(mut self, requests_per_retry: u32, retries_per_second: u32) -> Self {
        self.requests_per_retry = requests_per_retry;
        self.retries_per_second = retries_per_second;
        self
    }

    /// Checks every field. [`RetryPolicy::new`](crate::RetryPolicy::new) does it too.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=100).contains(&self.max_attempts) {
            return Err(ConfigError::new("max_attempts", &self.max_attempts, "be from 1 to 100"));
        }
        if self.deadline.is_zero() || self.deadline > LONGEST {
            let rule = "be longer than zero and at most 24 hours";
            return Err(ConfigError::new("deadline", &format!("{:?}", self.deadline), rule));
        }
        if self.backoff > LONGEST {
            let rule = "be at most 24 hours";
            return Err(ConfigError::new("backoff", &format!("{:?}", self.backoff), rule));
        }
        if self.backoff_max < self.backoff || self.backoff_max > LONGEST {
            let rule = "be at least backoff and at most 24 hours";
            return Err(ConfigError::new("backoff_max", &format!("{:?}", self.backoff_max), rule));
        }
        if self.requests_per_retry > 10_000 {
            let rule = "be at most 10000";
            return Err(ConfigError::new("requests_per_retry", &self.requests_per_retry, rule));
        }
        if self.retries_per_second > 1_000_000 {
            let rule = "be at most 1000000";
            return Err(ConfigError::new("retries_per_second", &self.retries_per_second, rule));
        }
        Ok(())
    }

    /// The wait before the next attempt, after so many. `chance` is between 0.0 and 1.0.
    ///
    /// A time that the server asked for is kept to in any case, and what would be the wait without
    /// comes on top: not all who were told the same come back in the same instant.
    pub(super) fn wait(&self, attempts: u32, asked: Option<Duration>, chance: f64) -> Duration {
        let doublings = attempts.saturating_sub(1).min(31);
        let longest = self.backoff.saturating_mul(1 << doublings).min(self.backoff_max);
        longest.mul_f64(chance) + asked.unwrap_or_default().min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_anything_up_to_twice_that_before() {
        let config = RetryConfig::default();
        let millis = Duration::from_millis;
        for (attempts, longest) in [(1, 50), (2, 100), (3, 200), (8, 5_000), (100, 5_000)] {
            assert_eq!(config.wait(attempts, None, 0.0), Duration::ZERO);
            assert_eq!(config.wait(attempts, None, 0.5), millis(longest) / 2);
            assert_eq!(config.wait(attempts, None, 1.0), millis(longest));
        }
    }

    #[test]
    fn it_is_never_shorter_than_the_server_asked_for() {
        let config = RetryConfig::default();
        let asked = Some(Duration::from_secs(2));
        assert_eq!(config.wait(1, asked, 0.0), Duration::from_secs(2));
        assert_eq!(config.wait(1, asked, 1.0), Duration::from_millis(2_050));
        assert!(config.wait(100, Some(Duration::MAX), 1.0) > LONGEST);
    }

    #[test]
    fn each_field_has_its_rule() {
        let config = RetryConfig::default;
        let second = Duration::from_secs(1);
        for (config, expected) in [
            (config(), None),
            (config().max_attempts(0), Some("max_attempts is 0, but must be from 1 to 100")),
            (
                config().deadline(Duration::ZERO),
                Some("deadline is 0ns, but must be longer than zero and at most 24 hours"),
            ),
            (
                config().backoff(second, second / 2),
                Some("backoff_max is 500ms, but must be at least backoff and at most 24 hours"),
            ),
            (
                config().budget(10_001, 0),
                Some("requests_per_retry is 10001, but must be at most 10000"),
            ),
            (
                config().budget(0, 2_000_000),
                Some("retries_per_second is 2000000, but must be at most 1000000"),
            ),
        ] {
            let error = config.validate().err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), expected);
        }
    }
}
