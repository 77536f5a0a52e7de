//! Stopping: running jobs get their grace, aborted ones lose nothing, and what ends the workers.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use escala_queue::{Lane, Outcome};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::scene::{Log, adds_up, handler, job, lane, run_for_good, seconds, small};

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_running_jobs_and_takes_no_more() {
    let queue = small().grace(seconds(10)).build().unwrap();
    for n in 0..8 {
        queue.enqueue(job(n.to_string()).lane(Lane::High)).await.unwrap();
    }
    let begin = Instant::now();
    let workers = queue.run(
        handler(|_| async {
            sleep(seconds(4)).await;
            Outcome::Done
        }),
        sleep(seconds(1)),
    );
    let report = workers.join().await;
    assert_eq!(begin.elapsed().as_secs(), 4);
    assert_eq!((report.aborted, report.stuck, report.remaining), (0, 0, 4));
    let stats = queue.stats();
    let high = lane(&stats, Lane::High);
    assert_eq!((high.succeeded_total, high.depth, high.cancelled_total), (4, 4, 0));
    assert!(stats.lanes.iter().all(|lane| lane.workers_alive == 0));
    adds_up(&stats);
}

#[tokio::test(start_paused = true)]
async fn an_endless_grace_is_no_overflow() {
    let queue = small().grace(Duration::MAX).build().unwrap();
    queue.enqueue(job("slow")).await.unwrap();
    let slow = handler(|_| async {
        sleep(seconds(9)).await;
        Outcome::Done
    });
    let report = queue.run(slow, sleep(seconds(1))).join().await;
    assert_eq!((report.aborted, report.remaining), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_aborted_job_stays_in_its_place_and_has_lost_no_attempt() {
    let queue = small().timeout(Lane::High, seconds(600)).grace(seconds(3)).build().unwrap();
    for kind in ["a", "b", "c"] {
        queue.enqueue(job(kind).lane(Lane::High).max_attempts(1)).await.unwrap();
    }
    let begin = Instant::now();
    let workers = queue.run(
        handler(|_| async {
            sleep(seconds(60)).await;
            Outcome::Done
        }),
        sleep(seconds(1)),
    );
    let report = workers.join().await;
    assert_eq!(begin.elapsed().as_secs(), 4);
    assert_eq!((report.aborted, report.stuck, report.remaining), (3, 0, 3));
    let stats = queue.stats();
    assert_eq!(lane(&stats, Lane::High).cancelled_total, 3);
    assert_eq!(lane(&stats, Lane::High).depth, 3);
    adds_up(&stats);

    // The queue is run again: same order, and the only attempt is still there.
    let queue_of_one = queue.clone();
    let log = Log::default();
    let seen = log.clone();
    run_for_good(&queue_of_one, move |job| {
        seen.note(format!("{}{}", job.kind, job.attempt));
        async { Outcome::Done }
    });
    queue.wait_idle().await;
    assert_eq!(log.entries(), ["a1", "b1", "c1"]);
    adds_up(&queue.stats());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_workers_handle_does_not_stop_them() {
    let queue = small().build().unwrap();
    run_for_good(&queue, |_| async { Outcome::Done });
    sleep(seconds(1)).await;
    queue.enqueue(job("still served")).await.unwrap();
    queue.wait_idle().await;
    assert_eq!(lane(&queue.stats(), Lane::Medium).succeeded_total, 1);
}

#[tokio::test(start_paused = true)]
async fn workers_of_a_closed_queue_finish_what_is_there_and_end() {
    let queue = small().build().unwrap();
    queue.enqueue(job("late").delay(seconds(100))).await.unwrap();
    queue.enqueue(job("flaky")).await.unwrap();
    let workers = queue.run(
        handler(|job| async move {
            let flaky = job.kind == "flaky" && job.attempt < 3;
            if flaky { Outcome::Retry(None) } else { Outcome::Done }
        }),
        std::future::pending(),
    );
    queue.close();
    assert_eq!(workers.join().await.remaining, 0);
    assert_eq!(lane(&queue.stats(), Lane::Medium).succeeded_total, 2);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_closes_the_queue() {
    let queue = small().build().unwrap();
    let log = Log::default();
    let seen = log.clone();
    let workers = queue.run(
        handler(move |job| {
            seen.note(&*job.kind);
            async { Outcome::Done }
        }),
        std::future::pending(),
    );
    let other = queue.clone();
    drop(queue);
    other.enqueue(job("through the other handle").delay(seconds(9))).await.unwrap();
    drop(other);
    assert_eq!(workers.join().await.remaining, 0);
    assert_eq!(log.entries(), ["through the other handle"]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_signal_that_panics_has_fired() {
    let queue = small().build().unwrap();
    let workers = queue.run(handler(|_| async { Outcome::Done }), async { panic!("signal") });
    assert_eq!(workers.join().await.remaining, 0);
    assert!(queue.stats().lanes.iter().all(|lane| lane.workers_alive == 0));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_service_that_is_not_ready() {
    let queue = small().build().unwrap();
    let (service, mut handle) = tower_test::mock::pair::<escala_queue::Job, Outcome>();
    handle.allow(0);
    queue.enqueue(job("waiting")).await.unwrap();
    let begin = Instant::now();
    let report = queue.run(service, sleep(seconds(2))).join().await;
    assert_eq!(begin.elapsed().as_secs(), 2);
    assert_eq!((report.aborted, report.remaining), (0, 1));
    adds_up(&queue.stats());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_its_thread_is_reported_as_stuck() {
    let queue = small().grace(seconds(0)).build().unwrap();
    let (release, held) = mpsc::channel::<()>();
    let (began, begun) = oneshot::channel();
    let parts = Arc::new(Mutex::new(Some((held, began))));
    let (stop, stopped) = oneshot::channel::<()>();
    let workers = queue.run(
        handler(move |_| {
            let parts = parts.lock().take();
            async move {
                if let Some((held, began)) = parts {
                    began.send(()).unwrap();
                    // Resolves when the other end is dropped.
                    let _ = held.recv();
                }
                Outcome::Done
            }
        }),
        async {
            let _ = stopped.await;
        },
    );
    queue.enqueue(job("blocking")).await.unwrap();
    begun.await.unwrap();
    stop.send(()).unwrap();
    let report = workers.join().await;
    assert_eq!((report.stuck, report.remaining), (1, 1));
    assert_eq!(lane(&queue.stats(), Lane::Medium).running, 1);
    drop(release);
    queue.wait_idle().await;
    adds_up(&queue.stats());
    assert_eq!(lane(&queue.stats(), Lane::Medium).succeeded_total, 1);
}
