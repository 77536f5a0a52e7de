//! What a drain waits for besides requests, and what it says of that which it cuts.

use std::time::Duration;

use escala_cluster::{CutKind, Drain, DrainEnd, JobCut};
use futures_util::FutureExt;
use tokio::net::TcpListener;

use crate::client::{Server, config, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_waited_for() {
    let server = Server::start(config()).await;
    let (job, other) = (server.drain.job("settle"), server.drain.job("report"));
    server.drain.begin();
    server.refuses().await;
    // One that comes late, because a request left it behind, counts as well.
    let late = server.drain.job(String::from("late"));
    drop((job, other));
    assert!(!server.running.is_finished());
    assert_eq!(server.drain.stats().jobs_running, 1);
    assert_eq!(late.run(async { 7 }).await, Ok(7));
    let report = server.ended().await;
    assert_eq!((report.end, report.jobs_ended, report.jobs_cut), (DrainEnd::Finished, 3, 0));
    assert!(report.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_at_the_deadline_is_named() {
    let server = Server::start(config().deadline(Duration::from_millis(200))).await;
    let _upgraded = server.upgraded().await;
    let mut hung = server.connect().await;
    hung.ask("/gate?token=secret").await;
    server.until("it is handled", |stats| stats.requests_in_flight == 1).await;
    let (stubborn, obedient) = (server.drain.job("stubborn"), server.drain.job("obedient"));
    let obedient = tokio::spawn(obedient.run(std::future::pending::<()>()));
    server.drain.begin();
    let cut: JobCut = soon("the cut", obedient).await.expect("no panic").expect_err("cut");
    assert_eq!(cut.to_string(), "the drain has cut the job");
    let drain = server.drain.clone();
    let report = server.ended().await;
    assert_eq!((report.end, report.jobs_cut, report.requests_cut), (DrainEnd::Deadline, 2, 1));
    let mut named: Vec<_> = report.cut.iter().map(|cut| (cut.kind, cut.name.as_str())).collect();
    named.sort_by_key(|(_, name)| *name);
    assert_eq!(
        named,
        [
            (CutKind::Upgraded, "GET /echo"),
            (CutKind::Request, "GET /gate"),
            (CutKind::Job, "obedient"),
            (CutKind::Job, "stubborn"),
        ],
    );
    assert!(report.cut.iter().all(|cut| cut.age >= Duration::from_millis(190)), "{report:?}");
    assert!(!report.is_clean() && report.cut_unlisted == 0);
    let line = report.to_string();
    assert!(line.starts_with("drain ended at its deadline after "), "{line}");
    assert!(line.contains("1 requests, 2 connections and 2 jobs cut: "), "{line}");
    assert!(line.contains("request GET /gate (") && !line.contains("secret"), "{line}");

    // Nothing waits for one that comes now, and it is told so.
    assert!(drain.job("too late").run(async { 7 }).await.is_err());
    assert!(stubborn.cut().now_or_never().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_what_is_cut_is_bounded() {
    let server = Server::start(config()).await;
    let jobs: Vec<_> = (0..40).map(|_| server.drain.job("x".repeat(1_000))).collect();
    server.drain.abort();
    let report = server.ended().await;
    assert_eq!((report.jobs_cut, report.cut.len(), report.cut_unlisted), (40, 32, 8));
    assert!(report.cut.iter().all(|cut| cut.name.len() == 78));
    assert!(report.to_string().ends_with(" and 8 more"), "{report}");
    drop(jobs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_began_before_its_server_counts_from_its_begin() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let lame_duck = Duration::from_millis(50);
    let drain = Drain::new(config().lame_duck(lame_duck));
    drain.begin();
    tokio::time::sleep(lame_duck).await;
    let report = Server::on(listener, drain).ended().await;
    assert_eq!(report.end, DrainEnd::Finished);
    assert!(report.elapsed >= lame_duck);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_end_is_the_same_end() {
    let server = Server::start(config()).await;
    server.drain.begin();
    server.drain.begin();
    let drain = server.drain.clone();
    assert_eq!(server.ended().await.end, DrainEnd::Finished);
    drain.abort();
    drain.begin();
    assert_eq!(drain.stats().connections_cut_total, 0);
}
