//! The body of `/metrics`: what was pushed, then what is pulled at this moment.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::exposition::Families;
use crate::health::CheckStatus;
use crate::observability::Inner;
use crate::system::Sample;

/// Scrapes within this time get the same text: a second Prometheus, or a curious client in a
/// loop, costs no further rendering.
const FRESH: Duration = Duration::from_millis(500);

/// The last text and when it was made.
#[derive(Debug, Default)]
pub(crate) struct Cached(Option<(Instant, Bytes)>);

/// The text, made on a blocking thread: 1,000 histograms take 35 ms. Concurrent scrapes wait for
/// the one that renders.
///
/// `None` when rendering panicked or the runtime is ending.
pub(crate) async fn text(inner: &Arc<Inner>) -> Option<Bytes> {
    let mut cached = inner.scrape.lock().await;
    if let Some((at, text)) = &cached.0
        && at.elapsed() < FRESH
    {
        return Some(text.clone());
    }
    let shared = Arc::clone(inner);
    let text = tokio::task::spawn_blocking(move || render(&shared)).await.ok()?;
    let text = Bytes::from(text);
    cached.0 = Some((Instant::now(), text.clone()));
    Some(text)
}

fn render(inner: &Inner) -> String {
    let mut families = Families::default();
    build(inner, &mut families);
    process(&inner.system.sample(), &mut families);
    traffic(inner, &mut families);
    health(inner, &mut families);
    inner.sources.export(inner.config.max_source_series, &mut families);
    let mut text = inner.http.recorder().render();
    families.write(&mut text);
    text
}

fn build(inner: &Inner, families: &mut Families) {
    let labels = [
        ("service", &*inner.service),
        ("version", &*inner.version),
        ("environment", &*inner.environment),
    ];
    families.add("build_info", "What is running; always 1.", &labels, 1.0);
}

fn process(sample: &Sample, families: &mut Families) {
    let whole = |n: Option<u64>| n.map(|n| n as f64);
    for (name, help, value) in [
        (
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            sample.cpu_seconds,
        ),
        ("process_open_fds", "Number of open file descriptors.", whole(sample.open_fds)),
        ("process_max_fds", "Maximum number of open file descriptors.", whole(sample.max_fds)),
        (
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            whole(sample.resident_bytes),
        ),
        (
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes.",
            whole(sample.virtual_bytes),
        ),
        (
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            sample.start_seconds,
        ),
        ("process_threads", "Number of OS threads in the process.", whole(sample.threads)),
        ("container_cpu_limit_cores", "CPU quota of the container in cores.", sample.cores_limit),
        (
            "container_cpu_throttled_seconds_total",
            "Time the container was held back by its CPU quota.",
            sample.throttled_seconds,
        ),
        (
            "container_memory_limit_bytes",
            "Memory limit of the container.",
            whole(sample.memory_limit),
        ),
        (
            "container_memory_working_set_bytes",
            "Memory of the container that cannot be given back at once.",
            whole(sample.working_set),
        ),
    ] {
        if let Some(value) = value {
            families.add(name, help, &[], value);
        }
    }
}

fn traffic(inner: &Inner, families: &mut Families) {
    let help = "HTTP requests under way.";
    for (method, active) in inner.http.active() {
        let labels = [("http_request_method", method)];
        families.add("http_server_active_requests", help, &labels, active as f64);
    }
}

fn health(inner: &Inner, families: &mut Families) {
    let now = Instant::now();
    for check in inner.checks.views(now) {
        let labels = [("check", &*check.name)];
        let status = match check.status {
            CheckStatus::Pass => 1.0,
            CheckStatus::Warn | CheckStatus::Unknown => 0.5,
            CheckStatus::Fail => 0.0,
        };
        let help = "Health check: 1 passes, 0.5 is in doubt, 0 fails.";
        families.add("healthcheck_status", help, &labels, status);
        if let Some(took) = check.took {
            let help = "Duration of the health check's last run.";
            families.add("healthcheck_duration_seconds", help, &labels, took.as_secs_f64());
        }
    }
    let score = inner.score(now);
    families.add("health_score", "Health of the whole, 0 to 100.", &[], score.value);
    for part in score.components {
        if let Some(value) = part.score {
            let labels = [("component", part.name.as_str())];
            let help = "Health of one component, 0 to 100.";
            families.add("health_component_score", help, &labels, value);
        }
    }
}
