//! The figures of one hedge.

use std::time::Duration;

use crate::Emit;

/// A hedge's figures at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HedgeStats {
    /// The name the layer was made with.
    pub name: String,
    /// Time after which a request is late as of now; zero while that is not known.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub delay: Duration,
    /// Requests, each counted once.
    pub requests_total: u64,
    /// Requests that were sent a second time.
    pub hedges_total: u64,
    /// Requests whose second copy was answered first.
    pub hedges_won_total: u64,
    /// Requests that were late when too many were.
    pub out_of_budget_total: u64,
}

impl HedgeStats {
    /// Hands out each figure under its field's name with the label `hedge`, the delay in seconds as
    /// `delay_seconds`.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            name,
            delay,
            requests_total,
            hedges_total,
            hedges_won_total,
            out_of_budget_total,
        } = self;
        let labels = [("hedge", name.as_str())];
        for (figure, value) in [
            ("requests_total", requests_total),
            ("hedges_total", hedges_total),
            ("hedges_won_total", hedges_won_total),
            ("out_of_budget_total", out_of_budget_total),
        ] {
            emit(figure, &labels, *value as f64);
        }
        emit("delay_seconds", &labels, delay.as_secs_f64());
    }
}
