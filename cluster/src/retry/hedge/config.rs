//! When a second copy of a request is sent, and how many.

use std::time::Duration;

use crate::ConfigError;

/// No time is longer than a day: longer ones are slips of the unit, and would overflow the clock.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What a [`HedgeLayer`](crate::HedgeLayer) spends on requests that are late.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct HedgeConfig {
    /// A request is late when it takes longer than this share of those before it, 0.5 to 0.999. 0.95:
    /// a twentieth more load cuts off the slowest twentieth ("The Tail at Scale").
    pub percentile: f64,
    /// Requests from which that time is found, and found anew, 20 to 1,000,000. 200: ten of them lie
    /// above. Before the first so many nothing is sent twice.
    pub samples: u32,
    /// The time is never taken for shorter. 5 ms: what is faster than that is not worth a second copy.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub delay_min: Duration,
    /// The time is never taken for longer; if it equals [`delay_min`](Self::delay_min), nothing is
    /// measured. 1 s, the patience of a visitor.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub delay_max: Duration,
    /// Requests that earn one second copy, 0 to 10,000; 0: they earn none. 10: twice what the
    /// percentile asks for, so that a backend which is late altogether is not asked everything
    /// twice.
    pub requests_per_hedge: u32,
    /// Second copies per second that need not be earned, at most 1,000,000. 1: ten in any ten
    /// seconds, all at once if they are late at once.
    pub hedges_per_second: u32,
}

impl Default for HedgeConfig {
    fn default() -> Self {
        Self {
            percentile: 0.95,
            samples: 200,
            delay_min: Duration::from_millis(5),
            delay_max: Duration::from_secs(1),
            requests_per_hedge: 10,
            hedges_per_second: 1,
        }
    }
}

impl HedgeConfig {
    /// Sets [`percentile`](Self#structfield.percentile) and [`samples`](Self#structfield.samples).
    #[must_use]
    pub fn percentile(mut self, share: f64, samples: u32) -> Self {
        self.percentile = share;
        self.samples = samples;
        self
    }

    /// Sets [`delay_min`](Self#structfield.delay_min) and
    /// [`delay_max`](Self#structfield.delay_max); equal ones make the delay a fixed one.
    #[must_use]
    pub fn delay(mut self, min: Duration, max: Duration) -> Self {
        self.delay_min = min;
        self.delay_max = max;
        self
    }

    /// Sets [`requests_per_hedge`](Self#structfield.requests_per_hedge) and
    /// [`hedges_per_second`](Self#structfield.hedges_per_second).
    #[must_use]
    pub fn budget(mut self, requests_per_hedge: u32, hedges_per_second: u32) -> Self {
        self.requests_per_hedge = requests_per_hedge;
        self.hedges_per_second = hedges_per_second;
        self
    }

    /// Checks every field. [`HedgeLayer::new`](crate::HedgeLayer::new) does it too.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(0.5..=0.999).contains(&self.percentile) {
            return Err(ConfigError::new("percentile", &self.percentile, "be from 0.5 to 0.999"));
        }
        if !(20..=1_000_000).contains(&self.samples) {
            return Err(ConfigError::new("samples", &self.samples, "be from 20 to 1000000"));
        }
        if self.delay_min.is_zero() {
            return Err(ConfigError::new("delay_min", &"0ns", "be longer than zero"));
        }
        if self.delay_max < self.delay_min || self.delay_max > LONGEST {
            let rule = "be at least delay_min and at most 24 hours";
            return Err(ConfigError::new("delay_max", &format!("{:?}", self.delay_max), rule));
        }
        if self.requests_per_hedge > 10_000 {
            let rule = "be at most 10000";
            return Err(ConfigError::new("requests_per_hedge", &self.requests_per_hedge, rule));
        }
        if self.hedges_per_second > 1_000_000 {
            let rule = "be at most 1000000";
            return Err(ConfigError::new("hedges_per_second", &self.hedges_per_second, rule));
        }
        Ok(())
    }
}
