//! What the values of a configuration have to keep to.

use std::fmt::Debug;
use std::time::Duration;

use super::BreakerConfig;
use crate::ConfigError;

/// No time is longer than a day: longer ones are slips of the unit, and would overflow the clock.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A window is at least this long, so that each of its ten buckets lasts 10 ms or more: below, the
/// buckets would be shorter than what a scheduler delays a task by.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);

/// Below, a call is slow because of the scheduler, not of the backend.
const SHORTEST_SLOW_CALL: Duration = Duration::from_millis(1);

impl BreakerConfig {
    /// Checks every field. [`Breaker::new`](crate::Breaker::new) and
    /// a reconfiguration do it too.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_conditions()?;
        self.validate_windows()?;
        self.validate_recovery()
    }

    fn validate_conditions(&self) -> Result<(), ConfigError> {
        if self.consecutive_failures.is_none()
            && self.failure_rate.is_none()
            && self.slow_call_rate.is_none()
        {
            let rule = "be set when neither failure_rate nor slow_call_rate is: one of them has to \
                        open the circuit";
            return Err(ConfigError::new("consecutive_failures", &"none", rule));
        }
        if self.consecutive_failures == Some(0) {
            let rule = "be at least 1; leave it out to switch the condition off";
            return Err(ConfigError::new("consecutive_failures", &0, rule));
        }
        share("failure_rate", self.failure_rate.unwrap_or(1.0))?;
        share("slow_call_rate", self.slow_call_rate.unwrap_or(1.0))?;
        if !(SHORTEST_SLOW_CALL..=LONGEST).contains(&self.slow_call) {
            return Err(refused("slow_call", self.slow_call, "be between 1 ms and 24 hours"));
        }
        Ok(())
    }

    fn validate_windows(&self) -> Result<(), ConfigError> {
        if self.window.is_none() && self.count_window.is_none() {
            let rule = "be set when count_window is not: a rate is that of a window";
            if self.failure_rate.is_some() || self.slow_call_rate.is_some() {
                return Err(ConfigError::new("window", &"none", rule));
            }
        }
        if let Some(window) = self.window
            && !(SHORTEST_WINDOW..=LONGEST).contains(&window)
        {
            return Err(refused("window", window, "be between 100 ms and 24 hours"));
        }
        if !(1..=100_000).contains(&self.minimum_calls) {
            return Err(refused("minimum_calls", self.minimum_calls, "be between 1 and 100000"));
        }
        if let Some(calls) = self.count_window {
            if !(1..=10_000).contains(&calls) {
                return Err(refused("count_window", calls, "be between 1 and 10000"));
            }
            if calls < self.minimum_calls {
                let rule = "be at most count_window, which could never open the circuit otherwise";
                return Err(refused("minimum_calls", self.minimum_calls, rule));
            }
        }
        Ok(())
    }

    fn validate_recovery(&self) -> Result<(), ConfigError> {
        for (field, time) in [
            ("open_for", self.open_for),
            ("open_for_max", self.open_for_max),
            ("probe_deadline", self.probe_deadline),
        ] {
            if time.is_zero() || time > LONGEST {
                return Err(refused(field, time, "be longer than zero and at most 24 hours"));
            }
        }
        for (field, time) in [("retry_after_max", self.retry_after_max), ("ramp", self.ramp)] {
            if time > LONGEST {
                return Err(refused(field, time, "be at most 24 hours"));
            }
        }
        if self.open_for_max < self.open_for {
            return Err(refused("open_for_max", self.open_for_max, "be at least open_for"));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(ConfigError::new("jitter", &self.jitter, "be between 0.0 and 1.0"));
        }
        if !(1..=1_000).contains(&self.half_open_permits) {
            return Err(refused(
                "half_open_permits",
                self.half_open_permits,
                "be between 1 and 1000",
            ));
        }
        share("half_open_success_ratio", self.half_open_success_ratio)
    }
}

fn share(field: &'static str, value: f64) -> Result<(), ConfigError> {
    if value > 0.0 && value <= 1.0 {
        return Ok(());
    }
    Err(ConfigError::new(field, &value, "be above 0.0 and at most 1.0"))
}

fn refused(field: &'static str, value: impl Debug, rule: &'static str) -> ConfigError {
    ConfigError::new(field, &format!("{value:?}"), rule)
}
