//! What can be set: the strategy, and the figures of health checking and ejection.

use std::fmt;
use std::time::Duration;

/// No interval, timeout or ejection is longer than a day: longer ones are slips of the unit, and
/// would overflow the clock.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How a read is given to one of the eligible replicas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Strategy {
    /// Each in turn, whatever its weight.
    RoundRobin,
    /// Smooth weighted round robin: with weights 3, 3, 2 every window of eight picks holds exactly
    /// 3, 3 and 2 of them, spread out. Blind to load: a slow replica keeps getting its share.
    Weighted,
    /// Least `(in_flight + 1) / weight`. Replicas that differ by less than the one request to
    /// be placed are tied, and ties go by weighted turns, so an idle set is spread exactly as by
    /// [`Strategy::Weighted`] while a slow replica gets less. The default, because turns alone
    /// queue without bound in front of a replica that slows down.
    #[default]
    LeastLoaded,
}

impl Strategy {
    /// The name used in files and in statistics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::Weighted => "weighted",
            Self::LeastLoaded => "least_loaded",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When a node is probed, when it is taken out of service, and for how long.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ReplicasConfig {
    /// Time between two probes of a node, lengthened at random by up to [`jitter`](Self::jitter).
    /// 15 s, the documented `REPLICA_HEALTH_CHECK_INTERVAL`; failures of requests are noticed at
    /// once in any case. Only used with a probe.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub health_interval: Duration,
    /// Time a probe may take before it counts as failed. 1 s, as pgcat has it: a healthy node
    /// answers a ping in under a millisecond. Without a probe it is the time after which an ejected
    /// node is offered another trial request although the one before has not ended.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub probe_timeout: Duration,
    /// Failures in a row, of requests or of probes, that eject a node. 3: one or two are
    /// a restarted connection, and a read that fails is tried elsewhere meanwhile.
    pub consecutive_failures: u32,
    /// Length of the first ejection; the n-th in close succession lasts n times as long. 30 s, as
    /// in Envoy. Each such time served without an ejection takes one off n.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub ejection_base: Duration,
    /// Where the growth of ejections stops (the random part comes on top). 300 s, as in Envoy.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub ejection_max: Duration,
    /// Share by which each interval and each ejection is lengthened at random, 0.0 to 1.0. 0.2, so
    /// that many processes do not probe one server in the same instant.
    pub jitter: f64,
}

impl Default for ReplicasConfig {
    fn default() -> Self {
        Self {
            health_interval: Duration::from_secs(15),
            probe_timeout: Duration::from_secs(1),
            consecutive_failures: 3,
            ejection_base: Duration::from_secs(30),
            ejection_max: Duration::from_secs(300),
            jitter: 0.2,
        }
    }
}

impl ReplicasConfig {
    /// Sets [`health_interval`](Self#structfield.health_interval).
    #[must_use]
    pub fn health_interval(mut self, interval: Duration) -> Self {
        self.health_interval = interval;
        self
    }

    /// Sets [`probe_timeout`](Self#structfield.probe_timeout).
    #[must_use]
    pub fn probe_timeout(mut self, timeout: Duration) -> Self {
        self.probe_timeout = timeout;
        self
    }

    /// Sets [`consecutive_failures`](Self#structfield.consecutive_failures).
    #[must_use]
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = failures;
        self
    }

    /// Sets [`ejection_base`](Self#structfield.ejection_base).
    #[must_use]
    pub fn ejection_base(mut self, base: Duration) -> Self {
        self.ejection_base = base;
        self
    }

    /// Sets [`ejection_max`](Self#structfield.ejection_max).
    #[must_use]
    pub fn ejection_max(mut self, max: Duration) -> Self {
        self.ejection_max = max;
        self
    }

    /// Sets [`jitter`](Self#structfield.jitter).
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, duration) in [
            ("health_interval", self.health_interval),
            ("probe_timeout", self.probe_timeout),
            ("ejection_base", self.ejection_base),
            ("ejection_max", self.ejection_max),
        ] {
            if duration.is_zero() || duration > LONGEST {
                let rule = "be longer than zero and at most 24 hours";
                return Err(ConfigError::new(field, format!("{duration:?}"), rule));
            }
        }
        if self.consecutive_failures == 0 {
            return Err(ConfigError::new("consecutive_failures", "0", "be at least 1"));
        }
        if self.ejection_max < self.ejection_base {
            let value = format!("{:?}", self.ejection_max);
            return Err(ConfigError::new("ejection_max", value, "be at least ejection_base"));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(ConfigError::new("jitter", self.jitter.to_string(), "be from 0.0 to 1.0"));
        }
        Ok(())
    }
}

/// A setting that breaks its rule; says which, what it was, and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value:?}, but must {rule}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The field, as it is called in the configuration or in the builder.
    pub field: String,
    /// The value that was given.
    pub value: String,
    /// What the field must do, continuing "must".
    pub rule: &'static str,
}

impl ConfigError {
    pub(crate) fn new(
        field: impl Into<String>,
        value: impl Into<String>,
        rule: &'static str,
    ) -> Self {
        Self { field: field.into(), value: value.into(), rule }
    }
}
