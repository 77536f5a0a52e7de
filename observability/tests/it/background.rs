//! The background task: samples, alerts, its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get as on_get;
use escala_observability::{AlertEvent, Change, Exit, Level, Observability, Signal};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::{builder, get, open};

/// A service whose queue is as long as the number says, and everything its sink was told.
fn queued() -> (Observability, Arc<AtomicU64>, Arc<Mutex<Vec<AlertEvent>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&told);
    let obs = builder()
        .sink(|_: &AlertEvent| panic!("a broken sink"))
        .sink(move |event: &AlertEvent| sink.lock().push(event.clone()))
        .build()
        .unwrap();
    let depth = Arc::new(AtomicU64::new(0));
    let value = Arc::clone(&depth);
    obs.signal(Signal::QueueSize, move || value.load(Ordering::Relaxed) as f64);
    // Whatever this machine is doing stays out of the test.
    obs.signal(Signal::Cpu, || 1.0);
    obs.signal(Signal::Memory, || 1.0);
    (obs, depth, told)
}

#[tokio::test(start_paused = true)]
async fn a_long_queue_warns_escalates_and_is_resolved() {
    let (obs, depth, told) = queued();
    let _task = obs.run(std::future::pending());
    sleep(Duration::from_secs(1)).await;
    depth.store(1_500, Ordering::Relaxed);
    sleep(Duration::from_secs(9)).await;
    assert_eq!((obs.alerts().len(), told.lock().len()), (0, 0), "held for ten seconds first");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(obs.alerts()[0].message, "queue size 1500 (threshold warning 1000)");
    depth.store(6_000, Ordering::Relaxed);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(obs.alerts()[0].level, Level::Critical);
    assert_eq!(obs.health_score().status, escala_observability::Status::Warn);
    depth.store(0, Ordering::Relaxed);
    sleep(Duration::from_secs(20)).await;
    assert!(obs.alerts().is_empty());
    let told: Vec<_> = told.lock().iter().map(|e| (e.change, e.alert.level)).collect();
    assert_eq!(
        told,
        [
            (Change::Raised, Level::Warning),
            (Change::Raised, Level::Critical),
            (Change::Resolved, Level::Critical)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn one_bad_sample_tells_nobody() {
    let (obs, depth, told) = queued();
    let _task = obs.run(std::future::pending());
    for _ in 0..20 {
        depth.store(9_000, Ordering::Relaxed);
        sleep(Duration::from_secs(5)).await;
        depth.store(0, Ordering::Relaxed);
        sleep(Duration::from_secs(5)).await;
    }
    assert!(told.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn errors_and_response_time_are_measured_from_the_traffic() {
    let (obs, _, _) = queued();
    let app: Router = Router::new()
        .route("/slow", on_get(|| sleep(Duration::from_secs(2))))
        .route("/bad", on_get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .layer(obs.http_layer());
    let _task = obs.run(std::future::pending());
    get(&app, "/bad").await;
    for _ in 0..9 {
        get(&app, "/slow").await;
        get(&app, "/bad").await;
    }
    sleep(Duration::from_secs(6)).await;
    let few = obs.snapshot()["signals"].clone();
    assert!(few[2]["value"].is_null() && few[3]["value"].is_null(), "19 say nothing: {few}");
    get(&app, "/slow").await;
    sleep(Duration::from_secs(6)).await;
    let json = obs.snapshot();
    let signal = |at: usize| json["signals"][at]["value"].as_f64();
    assert_eq!(signal(2), Some(1_000.0), "ten at 2 s, ten at once: {}", json["signals"]);
    assert_eq!(signal(3), Some(50.0));
    assert_eq!(json["traffic"]["error_rate_percent"], 50.0);
    assert_eq!(json["status"], "warn");
    let route = &json["traffic"]["routes"][0];
    assert_eq!((&route["route"], &route["errors_total"]), (&"/bad".into(), &10.into()));
    // A minute later the window has left them behind.
    sleep(Duration::from_secs(66)).await;
    let json = obs.snapshot();
    assert!(json["signals"][2]["value"].is_null(), "{}", json["signals"]);
    assert_eq!(json["traffic"]["requests_total"], 20);
}

#[tokio::test(start_paused = true)]
async fn the_history_keeps_the_last_five_minutes() {
    let (obs, depth, _) = queued();
    let _task = obs.run(std::future::pending());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(obs.snapshot()["history"]["score"], serde_json::json!([100.0]));
    depth.store(1_000, Ordering::Relaxed);
    sleep(Duration::from_secs(3_600)).await;
    let history = obs.snapshot()["history"].clone();
    for line in ["requests_per_second", "mean_ms", "p99_ms", "active", "cpu_percent", "score"] {
        assert_eq!(history[line].as_array().map(Vec::len), Some(60), "{line}");
    }
    assert_eq!(history["cpu_percent"][0], 1.0);
}

#[tokio::test(start_paused = true)]
async fn the_task_says_why_it_ended() {
    let obs = open();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let task = obs.run(async move { drop(stopped.await) });
    sleep(Duration::from_secs(1)).await;
    assert_eq!(obs.run(std::future::pending()).await, Exit::AlreadyRunning);
    assert!(!task.is_finished());
    drop(stop);
    assert_eq!(task.await, Exit::Shutdown);
    let again = obs.run(std::future::pending());
    sleep(Duration::from_secs(1)).await;
    again.abort();
    assert_eq!(again.await, Exit::Aborted);
    let last = obs.run(std::future::pending());
    let router = obs.router();
    drop(obs);
    sleep(Duration::from_secs(60)).await;
    assert!(!last.is_finished(), "the router still shows it");
    drop(router);
    assert_eq!(last.await, Exit::Dropped);
}

#[tokio::test(start_paused = true)]
async fn closures_that_panic_stop_nothing() {
    let obs = open();
    obs.signal(Signal::Cpu, || panic!("a broken signal"));
    obs.signal(Signal::Memory, || f64::NAN);
    obs.source("broken", |_| panic!("a broken source"));
    let task = obs.run(std::future::pending());
    sleep(Duration::from_secs(30)).await;
    assert!(!task.is_finished());
    let json = obs.snapshot();
    assert!(json["signals"][0]["value"].is_null() && json["signals"][1]["value"].is_null());
    assert_eq!(json["status"], "pass");
}

#[tokio::test(start_paused = true)]
async fn liveness_fails_when_the_heart_stops_and_only_then() {
    let obs = open();
    assert_eq!(get(&obs.router(), "/livez").await.status, StatusCode::OK, "never started");
    // A source of signals that blocks the loop, as a deadlock would.
    let (entered, seen) = std::sync::mpsc::channel();
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let blocked = AtomicU64::new(0);
    let other = std::thread::spawn({
        let obs = obs.clone();
        move || {
            obs.signal(Signal::QueueSize, move || {
                if blocked.fetch_add(1, Ordering::Relaxed) == 0 {
                    entered.send(()).unwrap();
                    let _ = gate.lock().recv();
                }
                0.0
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let runtime = runtime.unwrap();
            runtime.block_on(async { obs.run(sleep(Duration::from_millis(50))).await })
        }
    });
    seen.recv().unwrap();
    assert_eq!(get(&obs.router(), "/livez").await.status, StatusCode::OK);
    sleep(Duration::from_secs(60)).await;
    let answer = get(&obs.router(), "/livez").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    drop(release);
    assert_eq!(other.join().unwrap(), Exit::Shutdown);
    assert_eq!(get(&obs.router(), "/livez").await.status, StatusCode::OK, "ended in order");
}
