//! The numbers that decide how a circuit recovers.

use std::time::Duration;

use super::BreakerConfig;

/// The share of calls that a ramp begins with, as in Envoy's slow start: with less, a backend with
/// little traffic would see none for a while.
const RAMP_FROM: f64 = 0.1;

#[derive(Debug)]
pub(super) struct Rules {
    pub(super) open_for: Duration,
    open_for_max: Duration,
    pub(super) retry_after_max: Duration,
    jitter: f64,
    pub(super) permits: u32,
    /// Successes among `permits` calls that close the circuit, at least one.
    pub(super) needed: u32,
    pub(super) probe_deadline: Duration,
    pub(super) ramp: Duration,
}

impl Rules {
    pub(super) fn new(config: &BreakerConfig) -> Self {
        let permits = config.half_open_permits;
        // As a quotient, as the share itself was written: 0.28 times 25 is more than 7.
        let enough =
            |part: &u32| f64::from(*part) / f64::from(permits) >= config.half_open_success_ratio;
        Self {
            open_for: config.open_for,
            open_for_max: config.open_for_max,
            retry_after_max: config.retry_after_max,
            jitter: config.jitter,
            permits,
            needed: (1..permits).find(enough).unwrap_or(permits),
            probe_deadline: config.probe_deadline,
            ramp: config.ramp,
        }
    }

    /// How long to stay open after having opened `streak` times in a row before, when the backend
    /// has `asked` for so much. The random part comes on top of both: those who were all told the
    /// same time must not all come back at it.
    pub(super) fn open_time(&self, streak: u32, asked: Duration, chance: f64) -> Duration {
        let doubled = self.open_for.saturating_mul(1 << streak.min(31)).min(self.open_for_max);
        doubled.max(asked).mul_f64(1.0 + self.jitter * chance)
    }
}

/// The share of calls that is let through at this age of a ramp.
pub(in super::super) fn ramp_share(age: Duration, ramp: Duration) -> f64 {
    if age >= ramp { 1.0 } else { age.div_duration_f64(ramp).max(RAMP_FROM) }
}
