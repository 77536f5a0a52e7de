//! What was measured: a few bytes an operation while it runs, histograms afterwards.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::plan::ENDPOINTS;

/// One finished operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) endpoint: u8,
    pub(super) succeeded: bool,
    /// Since the phase began.
    pub(super) ended_ms: u32,
    pub(super) took_us: u32,
    /// Whether the server's cache answered, where the server says so.
    pub(super) cached: Option<bool>,
}

impl Sample {
    pub(super) fn new(endpoint: u8, succeeded: bool, ended: Duration, took: Duration) -> Self {
        let ended_ms = u32::try_from(ended.as_millis()).unwrap_or(u32::MAX);
        let took_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        Self { endpoint, succeeded, ended_ms, took_us, cached: None }
    }
}

/// How many operations are under way, and how many were at most.
#[derive(Debug, Default)]
pub(super) struct Concurrency {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Concurrency {
    /// Counts one until it is dropped.
    pub(super) fn enter(&self) -> impl Drop + '_ {
        struct Leave<'a>(&'a AtomicUsize);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
        Leave(&self.now)
    }

    pub(super) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

/// Everything a phase yields.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) users: usize,
    pub(super) samples: Vec<Sample>,
    pub(super) peak_concurrent: usize,
    pub(super) total: Duration,
    /// Distinct failures with their counts.
    pub(super) failures: BTreeMap<String, u64>,
}

impl Outcome {
    pub(super) fn succeeded(&self) -> usize {
        self.samples.iter().filter(|sample| sample.succeeded).count()
    }

    pub(super) fn summary(&self) -> Summary {
        let succeeded = self.succeeded();
        Summary {
            users: self.users,
            operations: self.samples.len(),
            succeeded,
            failed: self.samples.len() - succeeded,
            peak_concurrent: self.peak_concurrent,
            throughput_per_second: rounded(per_second(self.samples.len(), self.total)),
            latency: Latency::of(&histogram(&self.samples)),
            total_seconds: rounded(self.total.as_secs_f64()),
            failures: self.failures.clone(),
            endpoints: self.endpoints(),
            cached: self.pages(true),
            uncached: self.pages(false),
        }
    }

    /// Latencies of the pages that the server says its cache had, or had not.
    fn pages(&self, cached: bool) -> Option<Latency> {
        let samples: Vec<Sample> =
            self.samples.iter().filter(|s| s.cached == Some(cached)).copied().collect();
        (!samples.is_empty()).then(|| Latency::of(&histogram(&samples)))
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let of = |index: usize, name: &'static str| {
            let samples: Vec<Sample> =
                self.samples.iter().filter(|s| usize::from(s.endpoint) == index).copied().collect();
            (!samples.is_empty()).then(|| Endpoint {
                name,
                operations: samples.len(),
                failed: samples.iter().filter(|sample| !sample.succeeded).count(),
                latency: Latency::of(&histogram(&samples)),
            })
        };
        ENDPOINTS.iter().enumerate().filter_map(|(index, name)| of(index, name)).collect()
    }
}

/// A phase in figures; latencies in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    pub(super) users: usize,
    pub(super) operations: usize,
    pub(super) succeeded: usize,
    pub(super) failed: usize,
    pub(super) peak_concurrent: usize,
    pub(super) throughput_per_second: f64,
    #[serde(flatten)]
    pub(super) latency: Latency,
    pub(super) total_seconds: f64,
    pub(super) endpoints: Vec<Endpoint>,
    /// Pages from the server's HTTP cache.
    pub(super) cached: Option<Latency>,
    /// Pages that were not in it.
    pub(super) uncached: Option<Latency>,
    pub(super) failures: BTreeMap<String, u64>,
}

/// One endpoint in figures.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Endpoint {
    pub(super) name: &'static str,
    pub(super) operations: usize,
    pub(super) failed: usize,
    #[serde(flatten)]
    pub(super) latency: Latency,
}

/// From the request's first byte to the answer's last, checked.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Latency {
    pub(super) mean_ms: f64,
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
}

impl Latency {
    #[expect(clippy::cast_precision_loss, reason = "below a minute in microseconds")]
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |quantile| rounded(histogram.value_at_quantile(quantile) as f64 / 1_000.0);
        Self {
            mean_ms: rounded(histogram.mean() / 1_000.0),
            p50_ms: ms(0.5),
            p90_ms: ms(0.9),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
        }
    }
}

/// For microseconds in three digits.
pub(super) fn empty() -> Histogram<u64> {
    // A sample holds at most an hour and some; the bounds take all of it.
    Histogram::new_with_bounds(1, u64::from(u32::MAX), 3)
        .expect("the bounds are in order and three digits are allowed")
}

/// How long each took.
pub(super) fn histogram(samples: &[Sample]) -> Histogram<u64> {
    let mut histogram = empty();
    for sample in samples {
        histogram.saturating_record(u64::from(sample.took_us));
    }
    histogram
}

#[expect(clippy::cast_precision_loss, reason = "a count of operations is far below 2^52")]
fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Three digits after the point: more would be noise.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_adds_up() {
        let sample = |endpoint, succeeded, took_us| {
            let cached = (endpoint == 0).then_some(took_us < 2_000);
            Sample { endpoint, succeeded, ended_ms: 1, took_us, cached }
        };
        let outcome = Outcome {
            users: 2,
            samples: vec![sample(0, true, 1_000), sample(0, true, 3_000), sample(2, false, 8_000)],
            peak_concurrent: 2,
            total: Duration::from_millis(1_500),
            failures: BTreeMap::from([("why".to_owned(), 1)]),
        };
        let summary = outcome.summary();
        assert_eq!((summary.operations, summary.succeeded, summary.failed), (3, 2, 1));
        assert!((summary.throughput_per_second - 2.0).abs() < 1e-9);
        assert!((summary.latency.mean_ms - 4.0).abs() < 0.02, "{:?}", summary.latency);
        assert!((summary.latency.p50_ms - 3.0).abs() < 0.01, "{:?}", summary.latency);
        assert!((summary.latency.p999_ms - 8.0).abs() < 0.01, "{:?}", summary.latency);
        let names: Vec<_> = summary.endpoints.iter().map(|e| (e.name, e.operations)).collect();
        assert_eq!(names, [(ENDPOINTS[0], 2), (ENDPOINTS[2], 1)]);
        let p50 = |latency: Option<Latency>| latency.expect("there are some").p50_ms;
        assert!((p50(summary.cached) - 1.0).abs() < 0.01, "{:?}", summary.cached);
        assert!((p50(summary.uncached) - 3.0).abs() < 0.01, "{:?}", summary.uncached);
    }

    #[test]
    fn concurrency_keeps_its_peak() {
        let concurrency = Concurrency::default();
        let first = concurrency.enter();
        let second = concurrency.enter();
        drop((first, second));
        let third = concurrency.enter();
        assert_eq!(concurrency.peak(), 2);
        drop(third);
    }
}
