//! How long faults of a real server last for callers, each beside its bound.
//!
//! A test cannot assert such times, since a busy machine breaks them at will. So they are printed
//! here: `held` compares the worst of all; the bench fails only when not just the worst but most of
//! them (or the only one) are past three times the bound.

mod cancels;
mod causes;
mod restart;

use anyhow::bail;
use escala_benches::table::{row, title};

use crate::Effort;

/// How far past its bound a figure is that no busy machine explains.
const CLEARLY: f64 = 3.0;

pub(crate) async fn run(effort: Effort) -> anyhow::Result<()> {
    let mut bounds = causes::measure(effort).await?;
    bounds.extend(cancels::measure(effort).await?);
    bounds.extend(restart::measure(effort).await?);
    title("Faults of a real server: how long callers notice them");
    row("", &["p50", "p99", "worst", "bound", "held"].map(ToOwned::to_owned));
    for bound in &bounds {
        row(&bound.what, &bound.cells());
    }
    let broken: Vec<_> = bounds.iter().filter(|bound| bound.is_broken()).collect();
    if effort.measuring && !broken.is_empty() {
        let broken: Vec<&str> = broken.iter().map(|bound| bound.what.as_str()).collect();
        bail!("clearly broken: {}", broken.join("; "));
    }
    Ok(())
}

/// Figures and what they must not exceed; without a bound they are there to be compared with.
struct Bound {
    what: String,
    /// Sorted; never empty.
    figures: Vec<f64>,
    most: Option<f64>,
}

impl Bound {
    fn new(what: impl Into<String>, mut figures: Vec<f64>, most: Option<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        Self { what: what.into(), figures, most }
    }

    /// The figure that such a share of all does not exceed.
    fn quantile(&self, share: f64) -> f64 {
        let at = (self.figures.len() as f64 * share).ceil() as usize;
        self.figures.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    fn is_broken(&self) -> bool {
        self.most.is_some_and(|most| self.quantile(0.9) > most * CLEARLY)
    }

    fn cells(&self) -> Vec<String> {
        let mut cells: Vec<String> =
            [0.5, 0.99, 1.0].iter().map(|share| format!("{:.2}", self.quantile(*share))).collect();
        let held = |most| match () {
            () if self.is_broken() => "BROKEN",
            () if self.quantile(1.0) <= most => "yes",
            () => "no",
        };
        cells.push(self.most.map_or_else(String::new, |most| format!("{most}")));
        cells.push(self.most.map_or("", held).to_owned());
        cells
    }
}
