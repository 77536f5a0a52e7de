//! The private `metrics` recorder: handles for what the HTTP layer pushes.
//!
//! Nothing global is installed, so several `Observability` values live in one process and tests
//! run side by side. Figures that are pulled (process, sources, health) do not pass through here:
//! the exporter keeps a series for ever and never lets a counter fall, while a node that left must
//! vanish and a restarted part must show its reset.

use metrics::{Counter, Histogram, Key, Label, Level, Metadata, Recorder as _, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Bounds of the duration histogram in seconds: the advice of OpenTelemetry's semantic
/// conventions 1.44 for `http.server.request.duration`.
pub(crate) const DURATION_BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// `http.server.request.duration` in Prometheus spelling.
pub(crate) const DURATION: &str = "http_server_request_duration_seconds";
/// Requests without a full answer.
pub(crate) const ABORTED: &str = "http_server_requests_aborted_total";

const METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// Registers handles and renders them.
pub(crate) struct Recorder {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        // Buckets for every histogram: one without would silently become a summary.
        let recorder = PrometheusBuilder::new()
            .set_buckets(&DURATION_BOUNDS)
            .expect("the bounds are not empty")
            .build_recorder();
        let handle = recorder.handle();
        recorder.describe_histogram(
            DURATION.into(),
            Some(Unit::Seconds),
            "Duration of HTTP requests, from the first line to the end of the body.".into(),
        );
        recorder.describe_counter(
            ABORTED.into(),
            None,
            "HTTP requests that ended without a full answer, by phase and cause.".into(),
        );
        Self { recorder, handle }
    }

    pub(crate) fn counter(&self, name: &'static str, labels: Vec<Label>) -> Counter {
        self.recorder.register_counter(&Key::from_parts(name, labels), &METADATA)
    }

    pub(crate) fn histogram(&self, name: &'static str, labels: Vec<Label>) -> Histogram {
        self.recorder.register_histogram(&Key::from_parts(name, labels), &METADATA)
    }

    /// Moves recorded samples into their buckets. Until then each takes 16 bytes.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    pub(crate) fn render(&self) -> String {
        self.handle.render()
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

/// A label whose value is already clean.
pub(crate) fn label(key: &'static str, value: impl Into<SharedString>) -> Label {
    Label::new(key, value)
}
