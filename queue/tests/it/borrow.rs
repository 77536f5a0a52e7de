//! Floors, lending and the reserve of the high lane, as seen from outside.

use escala_queue::{Job, Lane, MemoryEngine, Outcome, Queue};
use tokio::time::sleep;

use crate::scene::{adds_up, job, lane, run_for_good, seconds};

fn documented() -> Queue {
    Queue::builder(MemoryEngine::default()).documented_lanes().build().expect("documented")
}

async fn second(_: Job) -> Outcome {
    sleep(seconds(1)).await;
    Outcome::Done
}

#[tokio::test(start_paused = true)]
async fn idle_workers_help_and_one_of_high_stays_free() {
    let queue = documented();
    run_for_good(&queue, second);
    for _ in 0..100 {
        queue.enqueue(job("flood").lane(Lane::Low)).await.unwrap();
    }
    sleep(seconds(1) / 2).await;
    let stats = queue.stats();
    assert_eq!(lane(&stats, Lane::Low).running, 9, "ten workers less the reserve");
    assert_eq!(lane(&stats, Lane::Low).borrowed_total, 7);

    queue.enqueue(job("late but high").lane(Lane::High)).await.unwrap();
    sleep(seconds(1) / 10).await;
    assert_eq!(lane(&queue.stats(), Lane::High).running, 1, "it did not wait for anybody");
    queue.wait_idle().await;
    adds_up(&queue.stats());
}

#[tokio::test(start_paused = true)]
async fn every_lane_has_its_floor_while_all_are_full() {
    let queue = documented();
    for lane in Lane::ALL {
        for _ in 0..100 {
            queue.enqueue(job("full").lane(lane)).await.unwrap();
        }
    }
    run_for_good(&queue, second);
    for _ in 0..20 {
        sleep(seconds(1)).await;
        let running: Vec<_> = queue.stats().lanes.iter().map(|lane| lane.running).collect();
        assert_eq!(running, [4, 3, 2, 1]);
    }
    assert!(queue.stats().lanes.iter().all(|lane| lane.borrowed_total == 0));
}

#[tokio::test(start_paused = true)]
async fn a_worker_borrows_from_the_most_urgent_lane_that_has_work() {
    let queue = documented();
    for _ in 0..50 {
        queue.enqueue(job("high").lane(Lane::High)).await.unwrap();
        queue.enqueue(job("background").lane(Lane::Background)).await.unwrap();
    }
    run_for_good(&queue, second);
    sleep(seconds(1) / 2).await;
    let running: Vec<_> = queue.stats().lanes.iter().map(|lane| lane.running).collect();
    assert_eq!(running, [9, 0, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_borrowed_job_keeps_the_timeout_of_its_own_lane() {
    let queue = documented();
    run_for_good(&queue, |job| async move {
        // Longer than every lane's timeout but background's.
        sleep(seconds(50)).await;
        if job.lane == Lane::Background { Outcome::Done } else { Outcome::Dead(String::new()) }
    });
    for _ in 0..3 {
        queue.enqueue(job("slow").lane(Lane::Background)).await.unwrap();
    }
    for _ in 0..5 {
        queue.enqueue(job("slow").lane(Lane::High).max_attempts(1)).await.unwrap();
    }
    queue.wait_idle().await;
    let stats = queue.stats();
    let (high, background) = (lane(&stats, Lane::High), lane(&stats, Lane::Background));
    assert!(high.borrowed_total > 0 && background.borrowed_total > 0, "{stats:?}");
    assert_eq!((background.succeeded_total, background.timed_out_total), (3, 0));
    assert_eq!((high.succeeded_total, high.timed_out_total), (0, 5));
    assert_eq!(high.run_mean_ms.round(), 5_000.0);
}
