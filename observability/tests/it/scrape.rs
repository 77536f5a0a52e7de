//! The text of `/metrics`, down to what Prometheus' own tool says of it.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::routing::get as on_get;
use escala_observability::{Check, Observability};

use super::{get, open, series};

/// Some traffic, a source, a check.
async fn busy() -> Observability {
    let obs = open();
    let app: Router =
        Router::new().route("/items/{id}", on_get(|| async { "an item" })).layer(obs.http_layer());
    for path in ["/items/1", "/items/2", "/nothing"] {
        get(&app, path).await;
    }
    obs.source("pool", |emit| {
        emit("size", &[], 10.0);
        emit("acquired_total", &[("lane", "a \"quoted\" \\ lane\n")], 7.0);
        emit("broken", &[], f64::NAN);
    });
    obs.check(Check::new("database", || async { Ok(()) }).critical());
    let _task = obs.run(tokio::time::sleep(Duration::from_millis(30))).await;
    obs
}

#[tokio::test]
async fn every_family_has_help_and_type_and_the_names_are_the_standard_ones() {
    let obs = busy().await;
    let answer = get(&obs.router(), "/metrics").await;
    assert_eq!(answer.header(header::CONTENT_TYPE), "text/plain; version=0.0.4; charset=utf-8");
    let mut families: Vec<(&str, &str)> = answer
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .filter(|(name, _)| !name.starts_with("container_"))
        .collect();
    families.sort_unstable();
    assert_eq!(
        families,
        [
            ("build_info", "gauge"),
            ("escala_pool_acquired_total", "counter"),
            ("escala_pool_size", "gauge"),
            ("health_component_score", "gauge"),
            ("health_score", "gauge"),
            ("healthcheck_duration_seconds", "gauge"),
            ("healthcheck_status", "gauge"),
            ("http_server_active_requests", "gauge"),
            ("http_server_request_duration_seconds", "histogram"),
            ("metrics_dropped_total", "counter"),
            ("process_cpu_seconds_total", "counter"),
            ("process_max_fds", "gauge"),
            ("process_open_fds", "gauge"),
            ("process_resident_memory_bytes", "gauge"),
            ("process_start_time_seconds", "gauge"),
            ("process_threads", "gauge"),
            ("process_virtual_memory_bytes", "gauge"),
        ]
    );
    for (name, _) in families {
        let help = format!("# HELP {name} ");
        assert_eq!(answer.text.matches(&help).count(), 1, "{name}");
    }
}

#[tokio::test]
async fn the_series_read_as_expected() {
    let obs = busy().await;
    for (prefix, lines) in [
        (
            "build_info{",
            vec!["build_info{environment=\"test\",service=\"shop\",version=\"1.2.3\"} 1"],
        ),
        (
            "escala_pool",
            vec![
                "escala_pool_acquired_total{lane=\"a \\\"quoted\\\"  lane\"} 7",
                "escala_pool_size 10",
            ],
        ),
        ("healthcheck_status", vec!["healthcheck_status{check=\"database\"} 1"]),
        ("http_server_active", vec!["http_server_active_requests{http_request_method=\"GET\"} 0"]),
        (
            "metrics_dropped_total{reason=\"series",
            vec!["metrics_dropped_total{reason=\"series_limit\"} 0"],
        ),
    ] {
        assert_eq!(series(&obs, prefix).await, lines);
    }
    let buckets = series(&obs, "http_server_request_duration_seconds_bucket{").await;
    assert_eq!(buckets.len(), 2 * 15, "14 bounds and +Inf for each of two label sets");
}

#[tokio::test]
async fn prometheus_own_tool_finds_nothing_to_say() {
    let obs = busy().await;
    let text = get(&obs.router(), "/metrics").await.text;
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut tool = tool.expect("promtool is needed: install the Debian package `prometheus`");
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

#[tokio::test]
async fn scrapes_in_quick_succession_share_one_text() {
    let obs = open();
    let reads = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&reads);
    obs.source("counted", move |emit| {
        emit("reads_total", &[], counter.fetch_add(1, Ordering::Relaxed) as f64);
    });
    tokio::time::pause();
    let router = obs.router();
    let (a, b) = tokio::join!(get(&router, "/metrics"), get(&router, "/metrics"));
    assert_eq!(a.text, b.text);
    assert_eq!(reads.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_counter_that_starts_again_shows_it() {
    let obs = open();
    let done = Arc::new(AtomicU64::new(500));
    let value = Arc::clone(&done);
    obs.source("queue", move |emit| {
        emit("done_total", &[], value.load(Ordering::Relaxed) as f64);
    });
    assert_eq!(series(&obs, "escala_queue").await, ["escala_queue_done_total 500"]);
    done.store(3, Ordering::Relaxed);
    assert_eq!(series(&obs, "escala_queue").await, ["escala_queue_done_total 3"]);
}
