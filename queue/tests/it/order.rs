//! In which order jobs are run, and that a large backlog drains.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use escala_queue::{Lane, Outcome};
use tokio::time::sleep;

use crate::scene::{Log, adds_up, job, lane, run_for_good, seconds, small};

#[tokio::test(start_paused = true)]
async fn a_lane_is_first_in_first_out_with_urgent_jobs_in_front() {
    let queue = small().build().unwrap();
    for kind in ["a", "b", "c"] {
        queue.enqueue(job(kind).lane(Lane::High)).await.unwrap();
    }
    for kind in ["u", "v"] {
        queue.enqueue(job(kind).lane(Lane::High).urgent()).await.unwrap();
    }
    // Ready only after those that were enqueued later without a delay.
    queue.enqueue(job("late").lane(Lane::High).delay(seconds(50))).await.unwrap();
    let log = Log::default();
    let seen = log.clone();
    run_for_good(&queue, move |job| {
        seen.note(&*job.kind);
        async {
            sleep(seconds(1)).await;
            Outcome::Done
        }
    });
    queue.wait_idle().await;
    assert_eq!(log.entries(), ["u", "v", "a", "b", "c", "late"]);
}

#[tokio::test(start_paused = true)]
async fn delayed_jobs_become_ready_in_the_order_of_their_time() {
    let queue = small().build().unwrap();
    let log = Log::default();
    let seen = log.clone();
    run_for_good(&queue, move |job| {
        seen.note(&*job.kind);
        async { Outcome::Done }
    });
    for (kind, delay) in [("30", 30), ("10", 10), ("20", 20), ("0", 0)] {
        queue.enqueue(job(kind).delay(seconds(delay))).await.unwrap();
    }
    sleep(seconds(15)).await;
    assert_eq!(log.entries(), ["0", "10"]);
    assert_eq!(lane(&queue.stats(), Lane::Medium).delayed, 2);
    queue.wait_idle().await;
    assert_eq!(log.entries(), ["0", "10", "20", "30"]);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_jobs_due_at_once_are_all_run() {
    let queue = small().build().unwrap();
    run_for_good(&queue, |_| async { Outcome::Done });
    for _ in 0..1_000 {
        queue.enqueue(job("due").delay(seconds(7))).await.unwrap();
    }
    queue.wait_idle().await;
    assert_eq!(lane(&queue.stats(), Lane::Medium).succeeded_total, 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_full_backlog_in_every_lane_drains() {
    let queue = small().documented_lanes().build().unwrap();
    for lane in Lane::ALL {
        for _ in 0..10_000 {
            queue.enqueue(job("backlog").lane(lane)).await.unwrap();
        }
        assert!(queue.enqueue(job("more").lane(lane)).await.unwrap_err().is_full());
    }
    let ran = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ran);
    run_for_good(&queue, move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Outcome::Done }
    });
    queue.wait_idle().await;
    assert_eq!(ran.load(Ordering::Relaxed), 40_000);
    adds_up(&queue.stats());
    for lane in Lane::ALL {
        queue.enqueue(job("room again").lane(lane)).await.unwrap();
    }
}
