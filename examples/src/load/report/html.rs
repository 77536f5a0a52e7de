//! One self-contained page: the table and two plots as inline SVG.

use std::fmt::Write as _;

use super::super::measure::{Outcome, Sample, histogram};
use super::{Report, table};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 240.0;
/// Room for the numbers left of and below a plot.
const LEFT: f64 = 64.0;
const BELOW: f64 = 28.0;
/// The throughput plot's step.
const STEP_MS: u32 = 250;

/// The page.
pub(in crate::load) fn html(
    report: &Report,
    burst: &Outcome,
    sustained: Option<&Outcome>,
) -> String {
    let phase = sustained.unwrap_or(burst);
    let style = include_str!("report.css");
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content='width=device-width'><title>thousand-users</title>\
         <style>{style}</style><main><h1>thousand-users</h1><p>{}</p>",
        escaped(&report.subject)
    );
    page.push_str("<h2>Operations a second</h2>");
    page.push_str(&plot(&throughput(&phase.samples), "s", "operations/s"));
    page.push_str("<h2>Latency by percentile</h2>");
    page.push_str(&percentiles(&phase.samples));
    let _ = write!(page, "<h2>Figures</h2><pre>{}</pre></main></html>", escaped(&table(report)));
    page
}

/// (seconds, operations a second) per step; the last, cut step is left out.
fn throughput(samples: &[Sample]) -> Vec<(f64, f64)> {
    let steps = samples.iter().map(|sample| sample.ended_ms / STEP_MS).max().unwrap_or(0) as usize;
    let mut counts = vec![0_u32; steps.max(1)];
    for sample in samples {
        if let Some(count) = counts.get_mut((sample.ended_ms / STEP_MS) as usize) {
            *count += 1;
        }
    }
    let seconds = f64::from(STEP_MS) / 1_000.0;
    let points = counts.iter().zip(1_u32..);
    points.map(|(count, n)| (f64::from(n) * seconds, f64::from(*count) / seconds)).collect()
}

/// Latency over "nines": each decade of the rest gets the same room.
#[expect(clippy::cast_precision_loss, reason = "below a minute in microseconds")]
fn percentiles(samples: &[Sample]) -> String {
    let histogram = histogram(samples);
    let points: Vec<(f64, f64)> = (0..=80_u32)
        .map(|step| {
            let nines = f64::from(step) / 20.0;
            let quantile = 1.0 - 10_f64.powf(-nines);
            (nines, histogram.value_at_quantile(quantile) as f64 / 1_000.0)
        })
        .collect();
    plot(&points, "nines (1 = 90 %, 2 = 99 %, 3 = 99.9 %)", "ms")
}

/// A line with four marks on each axis.
fn plot(points: &[(f64, f64)], x_unit: &str, y_unit: &str) -> String {
    let most = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).fold(1e-9, f64::max);
    let (x_most, y_most) = (most(|point| point.0), most(|point| point.1) * 1.05);
    let x_at = |x: f64| LEFT + x / x_most * (WIDTH - LEFT - 20.0);
    let y_at = |y: f64| (HEIGHT - BELOW) * (1.0 - y / y_most) + 4.0;
    let mut svg = format!("<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img>");
    for quarter in 0..=4 {
        let part = f64::from(quarter) / 4.0;
        let (x, y) = (x_at(x_most * part), y_at(y_most * part));
        let _ = write!(
            svg,
            "<line class=grid x1={LEFT} x2={WIDTH} y1={y:.1} y2={y:.1} />\
             <text class=end x={:.1} y={:.1}>{:.0}</text>\
             <text class=mid x={x:.1} y={:.1}>{:.1}</text>",
            LEFT - 6.0,
            y + 4.0,
            y_most * part,
            HEIGHT - 10.0,
            x_most * part,
        );
    }
    let line: Vec<String> =
        points.iter().map(|&(x, y)| format!("{:.1},{:.1}", x_at(x), y_at(y))).collect();
    let _ = write!(
        svg,
        "<polyline points='{}' /></svg><p class=axes>across: {x_unit}; up: {y_unit}</p>",
        line.join(" ")
    );
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_counted_per_step() {
        let at =
            |ended_ms| Sample { endpoint: 0, succeeded: true, ended_ms, took_us: 1, cached: None };
        let points = throughput(&[at(0), at(249), at(250), at(500)]);
        assert_eq!(points, [(0.25, 8.0), (0.5, 4.0)]);
    }

    #[test]
    fn nothing_of_the_run_becomes_markup() {
        assert_eq!(escaped("<b>&"), "&lt;b&gt;&amp;");
    }
}
