//! When a circuit opens, for how long, and what it takes to close it again.

use std::time::Duration;

use crate::ConfigError;

/// No time is longer than a day: longer ones are slips of the unit, and would overflow the clock.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A window is at least this long, so that each of its ten buckets lasts 10 ms or more: below, the
/// buckets would be shorter than what a scheduler delays a task by.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);

/// What a [`Breaker`](crate::Breaker) counts as too many failures, and how it recovers.
///
/// Two conditions open the circuit, each of which can be switched off: failures in a row, and the
/// share of failures within a sliding window of time.
///
/// ```
/// use std::time::Duration;
/// use escala_cluster::BreakerConfig;
///
/// // Only failures in a row: the closed circuit then reads no clock for calls that end at once.
/// let config = BreakerConfig::default().consecutive_failures(3).failure_rate(None);
/// assert_eq!(config.open_for, Duration::from_secs(5));
/// config.validate()?;
/// # Ok::<(), escala_cluster::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct BreakerConfig {
    /// Failures in a row that open the circuit; `None` switches the condition off. 5, as in Envoy,
    /// Finagle and failsafe: it notices a dead backend within five calls, at any rate of calls.
    pub consecutive_failures: Option<u32>,
    /// Share of failures within [`window`](Self::window) that opens the circuit, above 0.0 and at
    /// most 1.0; `None` switches the condition off, and with it a clock read per call. 0.5, as in
    /// resilience4j: it notices a backend that fails every other call, which is never five in a row
    /// for long.
    pub failure_rate: Option<f64>,
    /// Length of the sliding window, kept as ten buckets: what happened up to this long ago counts,
    /// give or take a bucket. 10 s, as in linkerd: an outage is noticed before the fastest
    /// documented alert interval has passed twice.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub window: Duration,
    /// Calls the window must hold before the rate means anything, 1 to 100,000. 100, as in
    /// resilience4j and Polly: below, a few unlucky calls make up half.
    pub minimum_calls: u32,
    /// Time the circuit stays open the first time; doubled for each trial that fails after it. 5 s,
    /// as in Polly: long enough for a restart of the backend, short enough to be a hiccup.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub open_for: Duration,
    /// Where the doubling stops (the random part comes on top). 60 s, the fixed time of
    /// resilience4j: a backend that is back is found within a minute.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub open_for_max: Duration,
    /// Share by which the open time is lengthened at random, 0.0 to 1.0. 0.2, so that many
    /// processes do not try one backend in the same instant.
    pub jitter: f64,
    /// Calls that are let through to try the backend after the open time, 1 to 1,000. 3: one could
    /// be lucky, ten are a burst for a backend that is just coming up.
    pub half_open_permits: u32,
    /// Share of these calls that must succeed to close the circuit, above 0.0 and at most 1.0. 0.5,
    /// the counterpart of [`failure_rate`](Self::failure_rate): with three calls, two.
    pub half_open_success_ratio: f64,
    /// Time one of these calls may take before it counts as failed and gives way. 5 s, the shortest
    /// timeout of the documented lanes.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub probe_deadline: Duration,
    /// A call that is given up (its future dropped) after at least this long counts as a failure,
    /// earlier it counts as nothing; `None` never counts it. 500 ms, half of the shortest timeout
    /// in common use, so that a timeout around the breaker can open it while visitors who leave
    /// a page do not.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub abandoned_after: Option<Duration>,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: Some(5),
            failure_rate: Some(0.5),
            window: Duration::from_secs(10),
            minimum_calls: 100,
            open_for: Duration::from_secs(5),
            open_for_max: Duration::from_secs(60),
            jitter: 0.2,
            half_open_permits: 3,
            half_open_success_ratio: 0.5,
            probe_deadline: Duration::from_secs(5),
            abandoned_after: Some(Duration::from_millis(500)),
        }
    }
}

impl BreakerConfig {
    /// Sets [`consecutive_failures`](Self#structfield.consecutive_failures).
    #[must_use]
    pub fn consecutive_failures(mut self, failures: impl Into<Option<u32>>) -> Self {
        self.consecutive_failures = failures.into();
        self
    }

    /// Sets [`failure_rate`](Self#structfield.failure_rate).
    #[must_use]
    pub fn failure_rate(mut self, share: impl Into<Option<f64>>) -> Self {
        self.failure_rate = share.into();
        self
    }

    /// Sets [`window`](Self#structfield.window).
    #[must_use]
    pub fn window(mut self, length: Duration) -> Self {
        self.window = length;
        self
    }

    /// Sets [`minimum_calls`](Self#structfield.minimum_calls).
    #[must_use]
    pub fn minimum_calls(mut self, calls: u32) -> Self {
        self.minimum_calls = calls;
        self
    }

    /// Sets [`open_for`](Self#structfield.open_for), and raises
    /// [`open_for_max`](Self#structfield.open_for_max) to it if that was shorter.
    #[must_use]
    pub fn open_for(mut self, time: Duration) -> Self {
        self.open_for = time;
        self.open_for_max = self.open_for_max.max(time);
        self
    }

    /// Sets [`open_for_max`](Self#structfield.open_for_max).
    #[must_use]
    pub fn open_for_max(mut self, time: Duration) -> Self {
        self.open_for_max = time;
        self
    }

    /// Sets [`jitter`](Self#structfield.jitter).
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// Sets [`half_open_permits`](Self#structfield.half_open_permits).
    #[must_use]
    pub fn half_open_permits(mut self, permits: u32) -> Self {
        self.half_open_permits = permits;
        self
    }

    /// Sets [`half_open_success_ratio`](Self#structfield.half_open_success_ratio).
    #[must_use]
    pub fn half_open_success_ratio(mut self, share: f64) -> Self {
        self.half_open_success_ratio = share;
        self
    }

    /// Sets [`probe_deadline`](Self#structfield.probe_deadline).
    #[must_use]
    pub fn probe_deadline(mut self, time: Duration) -> Self {
        self.probe_deadline = time;
        self
    }

    /// Sets [`abandoned_after`](Self#structfield.abandoned_after).
    #[must_use]
    pub fn abandoned_after(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.abandoned_after = age.into();
        self
    }

    /// Checks every field. [`Breaker::new`](crate::Breaker::new) does it too.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_conditions()?;
        self.validate_recovery()
    }

    fn validate_conditions(&self) -> Result<(), ConfigError> {
        if self.consecutive_failures.is_none() && self.failure_rate.is_none() {
            let rule = "be set when failure_rate is not: one of them has to open the circuit";
            return Err(ConfigError::new("consecutive_failures", &"none", rule));
        }
        if self.consecutive_failures == Some(0) {
            let rule = "be at least 1; leave it out to switch the condition off";
            return Err(ConfigError::new("consecutive_failures", &0, rule));
        }
        if let Some(rate) = self.failure_rate {
            share("failure_rate", rate)?;
        }
        if !(SHORTEST_WINDOW..=LONGEST).contains(&self.window) {
            let rule = "be between 100 ms and 24 hours";
            return Err(ConfigError::new("window", &format!("{:?}", self.window), rule));
        }
        if !(1..=100_000).contains(&self.minimum_calls) {
            let rule = "be between 1 and 100000";
            return Err(ConfigError::new("minimum_calls", &self.minimum_calls, rule));
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
                let rule = "be longer than zero and at most 24 hours";
                return Err(ConfigError::new(field, &format!("{time:?}"), rule));
            }
        }
        if self.open_for_max < self.open_for {
            let rule = "be at least open_for";
            let value = format!("{:?}", self.open_for_max);
            return Err(ConfigError::new("open_for_max", &value, rule));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(ConfigError::new("jitter", &self.jitter, "be between 0.0 and 1.0"));
        }
        if !(1..=1_000).contains(&self.half_open_permits) {
            let rule = "be between 1 and 1000";
            return Err(ConfigError::new("half_open_permits", &self.half_open_permits, rule));
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
