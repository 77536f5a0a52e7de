//! How often is asked who is there, and how soon a missing node is let go.

use std::time::Duration;

use crate::ConfigError;

/// Longer times are slips of the unit.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The figures of a discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct DiscoveryConfig {
    /// Longest time between two questions; each is drawn from the upper half at random. 10 s: nodes
    /// come and go by hand or by a deployment, and a node that fails is health's business.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub interval: Duration,
    /// Time for an answer, of each endpoint if there are several. 2 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub timeout: Duration,
    /// Answers in a row without a node that was there, after which it is removed. 3: a name server may
    /// leave one out by chance, and a member that restarts is back soon. Questions that fail, and
    /// answers without any node, do not count.
    pub missing_answers: u32,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            missing_answers: 3,
        }
    }
}

impl DiscoveryConfig {
    /// Sets [`interval`](Self#structfield.interval).
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets [`timeout`](Self#structfield.timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets [`missing_answers`](Self#structfield.missing_answers).
    #[must_use]
    pub fn missing_answers(mut self, answers: u32) -> Self {
        self.missing_answers = answers;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, duration) in [("interval", self.interval), ("timeout", self.timeout)] {
            // Less would be a busy loop.
            if duration < Duration::from_millis(10) || duration > LONGEST {
                let rule = "be from 10 ms to 24 hours";
                return Err(ConfigError::new(field, format!("{duration:?}"), rule));
            }
        }
        if self.missing_answers == 0 {
            return Err(ConfigError::new("missing_answers", "0", "be at least 1"));
        }
        Ok(())
    }
}
