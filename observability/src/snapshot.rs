//! The dashboard's JSON, whole and in parts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::clock;
use crate::config::{Threshold, Thresholds};
use crate::health::{View, millis};
use crate::history::rate;
use crate::observability::Inner;
use crate::signal::{Readings, Signal};
use crate::system::Sample;
use crate::traffic::Totals;

/// Rows of the routes table: what fits on a screen.
const ROUTES: usize = 12;

/// Everything the page shows.
pub(crate) fn whole(inner: &Arc<Inner>, now: Instant) -> Value {
    let sample = inner.system.sample();
    let totals = inner.http.totals();
    let checks = inner.checks.views(now);
    let sources = inner.sources.json(inner.config.max_source_series);
    let mut root = head(inner, now);
    let (score, cpu, readings, traffic, alerts, history) = {
        let mut monitor = inner.monitor.lock();
        (
            monitor.score(now, &inner.config.thresholds, &checks),
            monitor.cpu,
            monitor.readings,
            traffic(monitor.window.until(now, &totals), &totals),
            monitor.alerts(),
            monitor.history.json(inner.config.metrics_interval),
        )
    };
    root["status"] = json!(score.status.name());
    root["score"] = json!(score);
    root["alerts"] = json!(alerts);
    root["traffic"] = traffic;
    root["traffic"]["routes"] = routes(inner);
    root["cpu"] = cpu_json(cpu, &sample);
    root["memory"] = memory(&sample);
    root["process"] = process(&sample);
    root["health"] = health(&checks);
    root["sources"] = sources;
    root["signals"] = signals(&readings, &inner.config.thresholds);
    root["thresholds"] = json!(inner.config.thresholds);
    root["history"] = history;
    root
}

/// `/dashboard/memory`.
pub(crate) fn memory_page(inner: &Inner, now: Instant) -> Value {
    let sample = inner.system.sample();
    let mut root = head(inner, now);
    root["memory"] = memory(&sample);
    root["process"] = process(&sample);
    root
}

/// `/dashboard/services`: the state of every part.
pub(crate) fn services_page(inner: &Inner, now: Instant) -> Value {
    let mut root = head(inner, now);
    root["health"] = health(&inner.checks.views(now));
    root["services"] = inner.sources.json(inner.config.max_source_series);
    root
}

fn head(inner: &Inner, now: Instant) -> Value {
    let uptime = now.saturating_duration_since(inner.started);
    json!({
        "service": &*inner.service,
        "version": &*inner.version,
        "environment": &*inner.environment,
        "timestamp": clock::rfc3339(SystemTime::now()),
        "uptime": { "seconds": uptime.as_secs(), "text": clock::uptime(uptime) },
    })
}

/// The six signals as last sampled, with their thresholds.
fn signals(readings: &Readings, thresholds: &Thresholds) -> Value {
    let row = |signal: Signal| {
        let Threshold { warning, critical } = thresholds.of(signal);
        json!({
            "name": signal.name(),
            "title": signal.title(),
            "unit": signal.unit(),
            "value": readings.get(signal).map(hundredth),
            "warning": warning,
            "critical": critical,
        })
    };
    Signal::ALL.into_iter().map(row).collect()
}

fn traffic((elapsed, window): (Duration, Totals), totals: &Totals) -> Value {
    json!({
        "requests_total": totals.finished,
        "errors_total": totals.failed,
        "aborted_total": totals.aborted,
        "active": totals.active,
        "window_seconds": tenth(elapsed.as_secs_f64()),
        "requests_per_second": tenth(rate(window.finished, elapsed)),
        "mean_ms": window.mean_ms().map(hundredth),
        "p50_ms": window.quantile_ms(0.5).map(hundredth),
        "p90_ms": window.quantile_ms(0.9).map(hundredth),
        "p99_ms": window.quantile_ms(0.99).map(hundredth),
        "error_rate_percent": window.error_percent().map(hundredth),
    })
}

fn routes(inner: &Inner) -> Value {
    let row = |(method, route, totals): (&str, Arc<str>, Totals)| {
        json!({
            "method": method,
            "route": &*route,
            "requests_total": totals.finished,
            "errors_total": totals.failed,
            "aborted_total": totals.aborted,
            "active": totals.active,
            "mean_ms": totals.mean_ms().map(hundredth),
            "p99_ms": totals.quantile_ms(0.99).map(hundredth),
        })
    };
    inner.http.busiest(ROUTES).into_iter().map(row).collect()
}

fn cpu_json(percent: Option<f64>, sample: &Sample) -> Value {
    json!({
        "percent": percent.map(tenth),
        "cores": sample.cores(),
        "quota_cores": sample.cores_limit,
        "process_seconds_total": sample.cpu_seconds,
        "throttled_seconds_total": sample.throttled_seconds,
    })
}

fn memory(sample: &Sample) -> Value {
    let used = sample.memory();
    json!({
        "percent": sample.memory_percent().map(tenth),
        "used_bytes": used.map(|(used, _)| used),
        "limit_bytes": used.map(|(_, limit)| limit),
        "scope": if sample.memory_limit.is_some() { "container" } else { "machine" },
        "process_resident_bytes": sample.resident_bytes,
        "process_virtual_bytes": sample.virtual_bytes,
    })
}

fn process(sample: &Sample) -> Value {
    json!({
        "threads": sample.threads,
        "open_files": sample.open_fds,
        "max_files": sample.max_fds,
    })
}

fn health(checks: &[View]) -> Value {
    let row = |view: &View| {
        json!({
            "name": &*view.name,
            "status": view.status,
            "critical": view.critical,
            "output": view.why,
            "age_seconds": view.age.map(|age| tenth(age.as_secs_f64())),
            "duration_ms": view.took.map(millis),
        })
    };
    json!({ "checks": checks.iter().map(row).collect::<Vec<_>>() })
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Milliseconds of a fast service and error rates need the second digit.
fn hundredth(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
