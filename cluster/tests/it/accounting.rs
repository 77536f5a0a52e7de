//! Every call let in is counted as ended exactly once, however it ends and at whatever step.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use escala_cluster::{Breaker, BreakerLayer, BreakerStats, Outcome};
use tokio::sync::Semaphore;
use tokio::time::advance;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::states::{breaker, config};

fn ended(stats: &BreakerStats) -> u64 {
    stats.succeeded_total
        + stats.failed_total
        + stats.throttled_total
        + stats.ignored_total
        + stats.cancelled_total
        + stats.abandoned_total
        + stats.panicked_total
}

fn check(stats: &BreakerStats, asked: u64, in_flight: u64) {
    assert_eq!(stats.admitted_total + stats.rejected_total, asked, "{stats:?}");
    assert_eq!(stats.in_flight, in_flight, "{stats:?}");
    assert_eq!(stats.admitted_total, ended(stats) + in_flight, "{stats:?}");
}

/// Answers as the request says, after one wait.
async fn backend(request: &'static str) -> Result<&'static str, &'static str> {
    tokio::task::yield_now().await;
    match request {
        "error" => Err("down"),
        "panic" => std::panic::resume_unwind(Box::new("a bug")),
        "hang" => std::future::pending().await,
        other => Ok(other),
    }
}

// Every way to end a call, with the future dropped before it is polled, after the first poll, and
// at the end.
#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_step_is_counted_once() {
    for (request, state) in [("fine", false), ("error", false), ("ignore", false), ("hang", true)] {
        for polls in 0..3 {
            let breaker = breaker(config());
            let layer = BreakerLayer::new(breaker.clone()).classify(
                |result: Result<&&'static str, &&'static str>| match result {
                    Ok(&"ignore") => Outcome::Ignored,
                    Ok(_) => Outcome::Success,
                    Err(_) => Outcome::Failure,
                },
            );
            let mut service = layer.layer(service_fn(backend));
            let mut call =
                tokio_test::task::spawn(service.ready().await.expect("ready").call(request));
            check(&breaker.stats(), 1, 1);
            let mut done = false;
            for _ in 0..polls {
                done = done || call.poll().is_ready();
            }
            assert_eq!(done, polls == 2 && !state, "{request} {polls}");
            check(&breaker.stats(), 1, u64::from(!done));
            advance(Duration::from_millis(1)).await;
            drop(call);
            let stats = breaker.stats();
            check(&stats, 1, 0);
            assert_eq!(stats.cancelled_total, u64::from(!done), "{request} {polls}");
        }
    }
}

#[tokio::test]
async fn aborted_and_panicking_tasks_are_counted_under_load() {
    let config = config().consecutive_failures(None).minimum_calls(100_000);
    // A task that stands still has not abandoned its call.
    let breaker = breaker(config.abandoned_after(None));
    let service = BreakerLayer::new(breaker.clone()).layer(service_fn(backend));
    let requests = ["fine", "error", "panic", "hang"];
    let mut tasks = Vec::new();
    for index in 0..400 {
        let call = service.clone().oneshot(requests[index % 4]);
        tasks.push((index, tokio::spawn(call)));
        if index % 3 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for (index, task) in tasks {
        if index % 4 == 3 {
            task.abort();
        }
        // Ended one way or another.
        drop(task.await);
    }
    let stats = breaker.stats();
    assert_eq!((stats.succeeded_total, stats.failed_total, stats.panicked_total), (100, 100, 100));
    // A task that is aborted before its first run never asks.
    check(&stats, 300 + stats.cancelled_total, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_never_shows_more_ends_than_starts() {
    let breaker = breaker(config());
    let stop = Arc::new(Semaphore::new(0));
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (breaker, stop) = (breaker.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                while stop.available_permits() == 0 {
                    for _ in 0..100 {
                        breaker.admit().expect("closed").succeeded();
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for _ in 0..20_000 {
        let stats = breaker.stats();
        // More ends than starts would wrap around (and panic in this build, before it gets here).
        assert!(stats.in_flight <= stats.admitted_total, "{stats:?}");
    }
    stop.add_permits(1);
    for caller in callers {
        caller.await.expect("no panic");
    }
    check(&breaker.stats(), breaker.stats().admitted_total, 0);
}

#[tokio::test(start_paused = true)]
async fn every_figure_is_handed_out_under_its_name() {
    let breaker = breaker(config());
    breaker.admit().expect("closed").succeeded();
    let mut seen = std::collections::BTreeMap::new();
    breaker.stats().visit(&mut |name, labels, value| {
        assert_eq!(labels, [("breaker", "test")]);
        assert!(seen.insert(name.to_owned(), value).is_none(), "{name} comes twice");
    });
    assert_eq!(seen["admitted_total"], 1.0);
    assert_eq!(seen["succeeded_total"], 1.0);
    assert_eq!(seen["state"], 0.0);
    assert_eq!(seen.len(), 26);
    breaker.force_open();
    breaker.stats().visit(&mut |name, _, value| {
        if name == "state" {
            assert_eq!(value, 2.0);
        }
    });
}

/// The direct interface counts like the layer.
#[test]
fn a_permit_outside_of_a_runtime_counts_too() {
    let breaker: Breaker = breaker(config().abandoned_after(Duration::ZERO));
    drop(breaker.admit().expect("closed"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _permit = breaker.admit().expect("closed");
        std::panic::resume_unwind(Box::new("a bug"))
    }));
    let _: Result<Infallible, _> = panicked;
    let stats = breaker.stats();
    assert_eq!((stats.abandoned_total, stats.panicked_total, stats.cancelled_total), (1, 1, 0));
}
