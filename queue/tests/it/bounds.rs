//! Full lanes, waiting for a place, idempotency keys and closing.

use std::pin::pin;
use std::time::Duration;

use escala_queue::{EnqueueError, Job, Lane, MemoryEngine, Outcome, Overflow, Queue};
use tokio::time::{Instant, sleep};
use tokio_test::{assert_pending, assert_ready, task};

use crate::scene::{Log, adds_up, all_free, job, lane, run_for_good, seconds, small};

#[tokio::test(start_paused = true)]
async fn a_full_lane_gives_the_job_back() {
    let queue = small().capacity(Lane::High, 2).build().unwrap();
    for _ in 0..2 {
        queue.enqueue(job("fits").lane(Lane::High)).await.unwrap();
    }
    let refused = Job::new("refused", "payload").unwrap().lane(Lane::High);
    let error = queue.enqueue(refused.clone()).await.unwrap_err();
    assert!(error.is_full() && error.is_retryable() && !error.is_timeout() && !error.is_closed());
    assert_eq!(error.to_string(), "lane high is full: 2 jobs");
    let back = error.into_job();
    assert_eq!((back.id, back.payload), (refused.id, refused.payload));
    queue.enqueue(job("another lane")).await.unwrap();
    assert_eq!(lane(&queue.stats(), Lane::High).rejected_total, 1);
    adds_up(&queue.stats());
}

#[tokio::test(start_paused = true)]
async fn running_and_delayed_jobs_hold_their_place() {
    let queue = small().capacity(Lane::Medium, 2).build().unwrap();
    run_for_good(&queue, |_| async {
        sleep(seconds(5)).await;
        Outcome::Done
    });
    queue.enqueue(job("running")).await.unwrap();
    queue.enqueue(job("delayed").delay(seconds(20))).await.unwrap();
    sleep(seconds(1)).await;
    assert!(queue.enqueue(job("third")).await.unwrap_err().is_full());
    sleep(seconds(5)).await;
    queue.enqueue(job("third")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn waiting_callers_get_places_in_their_order() {
    let wait = Overflow::Wait(seconds(60));
    let queue = small().capacity(Lane::High, 1).overflow(wait).build().unwrap();
    queue.enqueue(job("0").lane(Lane::High)).await.unwrap();
    let mut waiting: Vec<_> =
        (1..=3).map(|n| task::spawn(queue.enqueue(job(n.to_string()).lane(Lane::High)))).collect();
    for caller in &mut waiting {
        assert_pending!(caller.poll());
    }
    // The first in line gives up; its place in line goes to the next.
    drop(waiting.remove(0));
    let log = Log::default();
    let seen = log.clone();
    run_for_good(&queue, move |job| {
        seen.note(&*job.kind);
        async {
            sleep(seconds(1)).await;
            Outcome::Done
        }
    });
    sleep(seconds(1) * 3 / 2).await;
    assert_ready!(waiting[0].poll()).unwrap();
    assert_pending!(waiting[1].poll());
    sleep(seconds(1) * 3 / 2).await;
    assert_ready!(waiting[1].poll()).unwrap();
    drop(waiting);
    queue.wait_idle().await;
    assert_eq!(log.entries(), ["0", "2", "3"]);
    adds_up(&queue.stats());
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_at_the_limit_with_the_job() {
    let wait = Overflow::Wait(seconds(5));
    let queue = small().capacity(Lane::Low, 1).overflow(wait).build().unwrap();
    queue.enqueue(job("first").lane(Lane::Low)).await.unwrap();
    let begin = Instant::now();
    let error = queue.enqueue(job("second").lane(Lane::Low)).await.unwrap_err();
    assert_eq!(begin.elapsed().as_secs(), 5);
    assert!(error.is_timeout() && error.is_full() && error.is_retryable());
    assert_eq!(error.to_string(), "lane low was full for 5s");
    assert_eq!(error.into_job().kind, "second");
    assert_eq!(lane(&queue.stats(), Lane::Low).rejected_total, 1);
}

#[tokio::test(start_paused = true)]
async fn an_enqueue_dropped_at_any_step_holds_nothing() {
    let wait = Overflow::Wait(seconds(60));
    let queue = small().capacity(Lane::High, 1).overflow(wait).build().unwrap();

    drop(queue.enqueue(job("never polled").lane(Lane::High)));
    assert_eq!(lane(&queue.stats(), Lane::High).enqueued_total, 0);

    queue.enqueue(job("holder").lane(Lane::High)).await.unwrap();
    let mut caller = task::spawn(queue.enqueue(job("waiting").lane(Lane::High)));
    assert_pending!(caller.poll());
    drop(caller);

    // Woken with a place in hand, and dropped before it is polled again.
    let mut caller = task::spawn(queue.enqueue(job("woken").lane(Lane::High)));
    assert_pending!(caller.poll());
    run_for_good(&queue, |_| async { Outcome::Done });
    queue.wait_idle().await;
    assert!(caller.is_woken());
    drop(caller);

    let stats = queue.stats();
    assert_eq!(lane(&stats, Lane::High).enqueued_total, 1);
    assert_eq!(lane(&stats, Lane::High).rejected_total, 0);
    queue.enqueue(job("last").lane(Lane::High)).await.unwrap();
    queue.wait_idle().await;
    adds_up(&queue.stats());
}

#[tokio::test(start_paused = true)]
async fn a_key_is_unique_within_its_kind_for_its_lifetime() {
    let queue = small().build().unwrap();
    run_for_good(&queue, |_| async { Outcome::Done });
    let keyed = |kind: &str| job(kind).idempotency_key(7);
    let first = queue.enqueue(keyed("settle")).await.unwrap();
    assert!(!first.duplicate);
    let again = queue.enqueue(keyed("settle")).await.unwrap();
    assert_eq!((again.id, again.duplicate), (first.id, true));
    assert!(!queue.enqueue(keyed("refund")).await.unwrap().duplicate);
    assert!(!queue.enqueue(job("settle").idempotency_key("8")).await.unwrap().duplicate);

    queue.wait_idle().await;
    assert!(queue.enqueue(keyed("settle")).await.unwrap().duplicate, "finished, but remembered");
    sleep(seconds(3_600)).await;
    assert!(!queue.enqueue(keyed("settle")).await.unwrap().duplicate);
    queue.wait_idle().await;
    let stats = queue.stats();
    let medium = lane(&stats, Lane::Medium);
    assert_eq!((medium.enqueued_total, medium.duplicates_total), (4, 2));
    assert_eq!(stats.idempotency_keys, 1);
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_needs_no_place_and_two_waiting_callers_enqueue_one_job() {
    let wait = Overflow::Wait(seconds(60));
    let queue = small().capacity(Lane::Medium, 1).overflow(wait).build().unwrap();
    let first = queue.enqueue(job("k").idempotency_key("a")).await.unwrap();
    let again = queue.enqueue(job("k").idempotency_key("a")).await.unwrap();
    assert_eq!((again.id, again.duplicate), (first.id, true));

    let mut one = task::spawn(queue.enqueue(job("k").idempotency_key("b")));
    let mut two = task::spawn(queue.enqueue(job("k").idempotency_key("b")));
    assert_pending!(one.poll());
    assert_pending!(two.poll());
    run_for_good(&queue, |_| async { Outcome::Done });
    queue.wait_idle().await;
    let one = assert_ready!(one.poll()).unwrap();
    queue.wait_idle().await;
    let two = assert_ready!(two.poll()).unwrap();
    assert_eq!((one.duplicate, two.duplicate, two.id), (false, true, one.id));
    assert_eq!(lane(&queue.stats(), Lane::Medium).succeeded_total, 2);
}

#[tokio::test(start_paused = true)]
async fn keys_are_bounded_and_a_refused_job_leaves_none() {
    let engine = MemoryEngine::default().key_capacity(2).key_lifetime(Duration::MAX);
    let queue = Queue::builder(engine).capacity(Lane::Medium, 4).build().unwrap();
    for key in 0..3 {
        queue.enqueue(job("k").idempotency_key(key)).await.unwrap();
    }
    let stats = queue.stats();
    assert_eq!((stats.idempotency_keys, stats.idempotency_keys_evicted_total), (2, 1));
    assert!(!queue.enqueue(job("k").idempotency_key(0)).await.unwrap().duplicate);

    assert!(queue.enqueue(job("k").idempotency_key("new")).await.unwrap_err().is_full());
    run_for_good(&queue, |_| async { Outcome::Done });
    queue.wait_idle().await;
    assert!(!queue.enqueue(job("k").idempotency_key("new")).await.unwrap().duplicate);
}

#[tokio::test(start_paused = true)]
async fn a_closed_queue_gives_jobs_back_also_to_those_that_wait() {
    let wait = Overflow::Wait(seconds(60));
    let queue = small().capacity(Lane::Medium, 1).overflow(wait).build().unwrap();
    queue.enqueue(job("kept").idempotency_key("k")).await.unwrap();
    let mut waiting = task::spawn(queue.enqueue(job("waiting")));
    assert_pending!(waiting.poll());
    queue.close();
    assert!(waiting.is_woken());
    let error = assert_ready!(waiting.poll()).unwrap_err();
    assert!(error.is_closed() && !error.is_retryable());
    assert_eq!(error.into_job().kind, "waiting");
    for late in [job("late"), job("kept").idempotency_key("k")] {
        let error = queue.enqueue(late).await.unwrap_err();
        assert!(matches!(error, EnqueueError::Closed { .. }));
    }
    let stats = queue.stats();
    assert!(stats.closed);
    let medium = lane(&stats, Lane::Medium);
    assert_eq!((medium.rejected_total, medium.duplicates_total), (0, 0), "closed is not full");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_idle_covers_delayed_and_retried_jobs() {
    let queue = small().capacity(Lane::High, 3).capacity(Lane::Background, 1).build().unwrap();
    queue.wait_idle().await;
    run_for_good(&queue, |job| async move {
        if job.attempt == 1 { Outcome::Retry(Some(seconds(20))) } else { Outcome::Done }
    });
    queue.enqueue(job("late").delay(seconds(10))).await.unwrap();
    let begin = Instant::now();
    let mut idle = pin!(queue.wait_idle());
    tokio::select! {
        () = &mut idle => panic!("a job is delayed"),
        () = sleep(seconds(29)) => {}
    }
    idle.await;
    assert_eq!(begin.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn every_place_comes_back() {
    let queue = small().capacity(Lane::High, 3).capacity(Lane::Medium, 2).build().unwrap();
    let workers = queue.run(
        crate::scene::handler(|job| async move {
            match (&*job.kind, job.attempt) {
                ("panic", _) => panic!("as told"),
                ("retry", 1) => Outcome::Retry(None),
                ("snooze", _) => Outcome::Discard("enough".into()),
                ("dead", _) => Outcome::Dead(String::new()),
                ("slow", _) => {
                    sleep(seconds(3_600)).await;
                    Outcome::Done
                }
                _ => Outcome::Done,
            }
        }),
        sleep(seconds(4_000)),
    );
    for kind in ["panic", "retry", "snooze", "dead", "slow", "done"] {
        for lane in [Lane::High, Lane::Medium] {
            queue.enqueue(job(kind).lane(lane)).await.unwrap();
        }
        queue.wait_idle().await;
    }
    assert_eq!(workers.join().await.remaining, 0);
    let small_lanes = small().capacity(Lane::Low, 5).build().unwrap();
    drop(small_lanes);
    all_free(&queue).await;
}
