//! What follows from the end of an attempt: pure, with chance as an argument.

use std::time::Duration;

use crate::error::ConfigError;
use crate::job::{Job, Outcome};

/// Longer delays are cut to this, so that arithmetic on them and on instants cannot overflow.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_secs(365 * 24 * 3_600);

/// When a failed attempt is made again: exponential backoff with full jitter.
///
/// Attempt `n` is followed after a random time between zero and `base * 2^(n-1)`, at most `cap`.
/// Full jitter, because jobs that failed together would otherwise come back together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RetryConfig {
    /// Attempts before a job is dead, at least 1. Default 5: with the default times the last
    /// attempt comes within about 15 s, which outlives a restart of what the job needs.
    pub max_attempts: u32,
    /// Upper end of the first pause. Default 1 s, the usual time of a failover or a restart.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub base: Duration,
    /// The longest pause. Default 5 min: longer ones belong to a person and the dead letters.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub cap: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { max_attempts: 5, base: Duration::from_secs(1), cap: Duration::from_secs(300) }
    }
}

impl RetryConfig {
    /// Sets the number of attempts.
    #[must_use]
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets the upper end of the first pause.
    #[must_use]
    pub const fn base(mut self, base: Duration) -> Self {
        self.base = base;
        self
    }

    /// Sets the longest pause.
    #[must_use]
    pub const fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let attempts = self.max_attempts;
        ConfigError::check(attempts > 0, "retry.max_attempts", attempts, "must be at least 1")?;
        ConfigError::check(!self.base.is_zero(), "retry.base", self.base, "must be above zero")?;
        ConfigError::check(
            self.cap >= self.base,
            "retry.cap",
            self.cap,
            "must be at least retry.base",
        )
    }

    /// The pause after attempt number `attempt`; `chance` is from 0 up to, not including, 1.
    fn pause(&self, attempt: u32, chance: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let ceiling = self.base.saturating_mul(1 << doublings).min(self.cap);
        ceiling.min(LONGEST_DELAY).mul_f64(chance)
    }
}

/// How an attempt ended, as the worker saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Returned(Outcome),
    Failed(String),
    Panicked(String),
    TimedOut(Duration),
}

/// What the queue does with the job now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Finish,
    Discard { reason: String },
    Snooze { delay: Duration },
    Retry { delay: Duration, reason: String, timed_out: bool },
    Bury { reason: String, timed_out: bool },
}

/// Reasons are kept in dead letters, ten thousand of them: cut to this many bytes.
const LONGEST_REASON: usize = 1_024;

/// Decides about a job whose attempt, already counted in `job.attempt`, ended so.
pub(crate) fn judge(job: &Job, ending: Ending, retry: &RetryConfig, chance: f64) -> Verdict {
    let (reason, wish, timed_out) = match ending {
        Ending::Returned(Outcome::Done) => return Verdict::Finish,
        Ending::Returned(Outcome::Discard(reason)) => {
            return Verdict::Discard { reason: shortened(reason) };
        }
        Ending::Returned(Outcome::Snooze(delay)) => return Verdict::Snooze { delay },
        Ending::Returned(Outcome::Dead(reason)) => {
            return Verdict::Bury { reason: shortened(reason), timed_out: false };
        }
        Ending::Returned(Outcome::Retry(wish)) => {
            ("the handler asked for a retry".to_owned(), wish, false)
        }
        Ending::Failed(error) => (error, None, false),
        Ending::Panicked(message) => (format!("the handler panicked: {message}"), None, false),
        Ending::TimedOut(limit) => (format!("timed out after {limit:?}"), None, true),
    };
    let reason = shortened(reason);
    if job.attempt >= job.max_attempts.unwrap_or(retry.max_attempts) {
        return Verdict::Bury { reason, timed_out };
    }
    let delay = wish.unwrap_or_else(|| retry.pause(job.attempt, chance));
    Verdict::Retry { delay, reason, timed_out }
}

fn shortened(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(attempt: u32) -> Job {
        let mut job = Job::new("test", &()).unwrap();
        job.attempt = attempt;
        job
    }

    #[test]
    fn a_pause_doubles_up_to_the_cap_and_is_fully_jittered() {
        let retry = RetryConfig::default();
        let seconds = |n, chance| retry.pause(n, chance).as_secs_f64();
        assert_eq!(seconds(1, 0.0), 0.0);
        assert_eq!(seconds(1, 0.5), 0.5);
        assert_eq!(seconds(3, 0.5), 2.0);
        assert_eq!(seconds(9, 0.5), 128.0);
        assert_eq!(seconds(10, 0.5), 150.0);
        assert_eq!(seconds(u32::MAX, 0.5), 150.0);
    }

    #[test]
    fn a_pause_cannot_overflow() {
        let retry = RetryConfig::default().base(Duration::MAX).cap(Duration::MAX);
        assert!(retry.pause(40, 1.0 - f64::EPSILON) <= LONGEST_DELAY);
    }

    #[test]
    fn failures_are_retried_until_the_last_attempt() {
        let retry = RetryConfig::default();
        for ending in [
            Ending::Failed("x".into()),
            Ending::Panicked("x".into()),
            Ending::TimedOut(Duration::from_secs(5)),
            Ending::Returned(Outcome::Retry(None)),
        ] {
            let late = matches!(ending, Ending::TimedOut(_));
            match judge(&attempt(4), ending.clone(), &retry, 0.25) {
                Verdict::Retry { delay, timed_out, .. } => {
                    assert_eq!((delay, timed_out), (Duration::from_secs(2), late));
                }
                other => panic!("{other:?}"),
            }
            match judge(&attempt(5), ending, &retry, 0.25) {
                Verdict::Bury { timed_out, .. } => assert_eq!(timed_out, late),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_handlers_word_is_kept() {
        let retry = RetryConfig::default();
        let hour = Duration::from_secs(3600);
        let says = |outcome| judge(&attempt(1), Ending::Returned(outcome), &retry, 0.0);
        assert_eq!(says(Outcome::Done), Verdict::Finish);
        assert_eq!(says(Outcome::Snooze(hour)), Verdict::Snooze { delay: hour });
        assert_eq!(says(Outcome::Discard("x".into())), Verdict::Discard { reason: "x".into() });
        let dead = Verdict::Bury { reason: "x".into(), timed_out: false };
        assert_eq!(says(Outcome::Dead("x".into())), dead);
        assert!(matches!(
            says(Outcome::Retry(Some(hour))),
            Verdict::Retry { delay, .. } if delay == hour
        ));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let long = "é".repeat(1_000) + "x";
        let last = attempt(5);
        let verdict =
            judge(&last, Ending::Failed(format!("x{long}")), &RetryConfig::default(), 0.0);
        let Verdict::Bury { reason, .. } = verdict else { panic!("{verdict:?}") };
        assert_eq!(reason.len(), 1_023);
    }

    #[test]
    fn a_job_may_have_its_own_number_of_attempts() {
        let retry = RetryConfig::default();
        let once = attempt(1).max_attempts(0);
        assert!(matches!(
            judge(&once, Ending::Failed("x".into()), &retry, 0.0),
            Verdict::Bury { .. }
        ));
    }
}
