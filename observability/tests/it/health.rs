//! The health endpoints, with checks that pass, fail, hang, panic and go stale.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::{StatusCode, header};
use escala_observability::{Check, Credentials, Observability, Signal, Status};
use tokio::time::sleep;

use super::{builder, get, open};

const OK: StatusCode = StatusCode::OK;
const DOWN: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

async fn status(obs: &Observability, path: &str) -> StatusCode {
    get(&obs.router(), path).await.status
}

/// A critical check that says what the switch says, every 10 s.
fn switched(up: &Arc<AtomicBool>) -> Check {
    let up = Arc::clone(up);
    Check::new("database", move || {
        let up = up.load(Ordering::Relaxed);
        async move { if up { Ok(()) } else { Err("refused by pg://ops:hunter2@db/main".into()) } }
    })
    .critical()
    .interval(Duration::from_secs(10))
}

#[tokio::test(start_paused = true)]
async fn startup_ends_with_the_first_result_of_every_critical_check() {
    let obs = open();
    let up = Arc::new(AtomicBool::new(true));
    obs.check(switched(&up));
    for path in ["/startupz", "/readyz", "/health/ready", "/api/v1/health/ready"] {
        assert_eq!(status(&obs, path).await, DOWN, "{path}");
    }
    assert_eq!(status(&obs, "/health").await, OK, "in doubt is not failed");
    assert_eq!(obs.health_score().value, 79.0);
    // Whatever this machine is doing stays out of the test.
    obs.signal(Signal::Cpu, || 1.0);
    obs.signal(Signal::Memory, || 1.0);
    let _task = obs.run(std::future::pending());
    sleep(Duration::from_millis(10)).await;
    for path in ["/startupz", "/readyz", "/health", "/health/ready", "/api/v1/health/ready"] {
        assert_eq!(status(&obs, path).await, OK, "{path}");
    }
    assert_eq!(obs.health_score().value, 100.0, "a doubt is not an illness to recover from");
}

#[tokio::test(start_paused = true)]
async fn a_failed_critical_check_takes_ready_and_health_but_never_live() {
    let obs = open();
    let up = Arc::new(AtomicBool::new(true));
    obs.check(switched(&up));
    let _task = obs.run(std::future::pending());
    sleep(Duration::from_millis(10)).await;
    up.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(20)).await;
    for path in ["/readyz", "/health", "/api/v1/health"] {
        assert_eq!(status(&obs, path).await, DOWN, "{path}");
    }
    for path in ["/livez", "/health/live", "/api/v1/health/live", "/startupz"] {
        assert_eq!(status(&obs, path).await, OK, "{path}");
    }
    let score = obs.health_score();
    assert!(score.value < 40.0 && score.status == Status::Fail);
    assert_eq!(score.limiting.unwrap().component, "database");
    // Tried every second while failing.
    up.store(true, Ordering::Relaxed);
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(status(&obs, "/readyz").await, OK);
}

#[tokio::test(start_paused = true)]
async fn results_expire_when_the_background_task_is_gone() {
    let obs = open();
    obs.check(switched(&Arc::new(AtomicBool::new(true))));
    // Whatever this machine is doing stays out of the test.
    obs.signal(Signal::Cpu, || 1.0);
    obs.signal(Signal::Memory, || 1.0);
    let task = obs.run(std::future::pending());
    sleep(Duration::from_millis(10)).await;
    task.abort();
    sleep(Duration::from_secs(29)).await;
    assert_eq!(get(&obs.router(), "/health").await.json()["status"], "pass");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(get(&obs.router(), "/health").await.json()["status"], "warn");
    assert_eq!(status(&obs, "/readyz").await, OK, "stale is not failed");
    sleep(Duration::from_secs(70)).await;
    assert_eq!(get(&obs.router(), "/health").await.json()["status"], "fail");
    assert_eq!(status(&obs, "/readyz").await, DOWN);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_or_panics_fails_and_holds_up_nobody() {
    let obs = open();
    let hung = Arc::new(AtomicUsize::new(0));
    let runs = Arc::clone(&hung);
    obs.check(
        Check::new("hangs", move || {
            runs.fetch_add(1, Ordering::Relaxed);
            std::future::pending()
        })
        .interval(Duration::from_secs(10))
        .timeout(Duration::from_secs(2)),
    );
    obs.check(Check::new("panics", || async { panic!("a broken check") }));
    obs.check(Check::new("passes", || async { Ok(()) }));
    let _task = obs.run(std::future::pending());
    sleep(Duration::from_millis(10)).await;
    let checks = get(&obs.router(), "/health").await.json()["checks"].clone();
    assert_eq!(checks["passes:responseTime"][0]["status"], "pass");
    assert_eq!(checks["panics:responseTime"][0]["output"], "the check panicked");
    assert_eq!(checks["hangs:responseTime"][0]["output"], "no result yet");
    assert_eq!(hung.load(Ordering::Relaxed), 1, "no second run beside the first");
    sleep(Duration::from_secs(3)).await;
    let checks = get(&obs.router(), "/health").await.json()["checks"].clone();
    assert_eq!(checks["hangs:responseTime"][0]["output"], "timed out after 2s");
    assert_eq!(status(&obs, "/readyz").await, OK, "none of them is critical");
}

#[tokio::test(start_paused = true)]
async fn a_run_never_takes_longer_than_its_interval() {
    let obs = open();
    let check = Check::new("hangs", std::future::pending).timeout(Duration::from_secs(60));
    obs.check(check.interval(Duration::from_secs(1)));
    let _task = obs.run(std::future::pending());
    sleep(Duration::from_millis(1_100)).await;
    let checks = get(&obs.router(), "/health").await.json()["checks"].clone();
    assert_eq!(checks["hangs:responseTime"][0]["output"], "timed out after 1s");
}

#[tokio::test(start_paused = true)]
async fn all_checks_run_side_by_side() {
    let obs = open();
    for name in ["a", "b", "c", "d"] {
        let slow = || async {
            sleep(Duration::from_secs(3)).await;
            Ok(())
        };
        obs.check(Check::new(name, slow).critical());
    }
    let _task = obs.run(std::future::pending());
    sleep(Duration::from_millis(3_100)).await;
    assert_eq!(status(&obs, "/readyz").await, OK);
}

#[tokio::test(start_paused = true)]
async fn a_check_added_later_runs_at_once() {
    let obs = open();
    let _task = obs.run(std::future::pending());
    // Between two samples, so that only the new check can wake the task.
    sleep(Duration::from_secs(62)).await;
    obs.check(switched(&Arc::new(AtomicBool::new(true))));
    assert_eq!(status(&obs, "/readyz").await, DOWN);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(status(&obs, "/readyz").await, OK);
}

#[tokio::test]
async fn every_gate_must_be_open() {
    let obs = open();
    let draining = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&draining);
    obs.ready_when(|| true);
    obs.ready_when(move || !gate.load(Ordering::Relaxed));
    assert_eq!(status(&obs, "/readyz").await, OK);
    draining.store(true, Ordering::Relaxed);
    let answer = get(&obs.router(), "/readyz").await;
    assert_eq!(answer.status, DOWN);
    assert_eq!(answer.json()["output"], "a readiness gate is closed");
    assert_eq!(status(&obs, "/livez").await, OK, "a draining process is alive");
    obs.ready_when(|| panic!("a broken gate"));
    draining.store(false, Ordering::Relaxed);
    assert_eq!(status(&obs, "/readyz").await, DOWN, "a gate that panics is closed");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    obs.ready_when(move || count.fetch_add(1, Ordering::Relaxed) == 0);
    assert_eq!(status(&obs, "/livez").await, OK);
    assert_eq!(asked.load(Ordering::Relaxed), 0, "liveness asks no gate");
}

#[tokio::test(start_paused = true)]
async fn the_document_follows_the_draft_and_hides_passwords() {
    let obs = open();
    obs.check(switched(&Arc::new(AtomicBool::new(false))));
    let _task = obs.run(std::future::pending());
    sleep(Duration::from_millis(10)).await;
    let answer = get(&obs.router(), "/health").await;
    assert_eq!(answer.header(header::CONTENT_TYPE), "application/health+json");
    assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    let json = answer.json();
    assert_eq!(json["status"], "fail");
    assert_eq!(json["serviceId"], "shop");
    assert_eq!(json["releaseId"], "1.2.3");
    assert_eq!(json["output"], "check database: refused by pg://***@db/main");
    let check = &json["checks"]["database:responseTime"][0];
    assert_eq!(check["componentId"], "database");
    assert_eq!(check["observedUnit"], "ms");
    assert!(check["observedValue"].is_number());
    assert!(check["time"].as_str().is_some_and(|t| t.ends_with('Z')));
    assert!(json["checks"]["uptime"][0]["observedValue"].is_u64());
}

#[tokio::test(start_paused = true)]
async fn strangers_learn_the_status_and_nothing_else() {
    let obs = builder().credentials(Some(Credentials::new("ops", "s3cret"))).build().unwrap();
    obs.check(switched(&Arc::new(AtomicBool::new(false))));
    let _task = obs.run(std::future::pending());
    sleep(Duration::from_millis(10)).await;
    for path in ["/health", "/readyz", "/startupz", "/livez", "/api/v1/health"] {
        let json = get(&obs.router(), path).await.json();
        let fields: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["status"], "{path}");
    }
    assert_eq!(status(&obs, "/health").await, DOWN);
}
