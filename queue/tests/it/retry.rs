//! Failures: backoff, the last attempt, dead letters and replay.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use escala_queue::{BoxError, Job, Lane, MemoryEngine, Outcome, Queue, ReplayError, RetryConfig};
use parking_lot::Mutex;
use tokio::time::Instant;
use tower::util::service_fn;

use crate::scene::{adds_up, all_free, job, lane, run_for_good, seconds, small};

/// Records at what time which attempt was made.
fn attempts(queue: &Queue, outcome: Outcome) -> Arc<Mutex<Vec<(u32, Duration)>>> {
    let times = Arc::new(Mutex::new(Vec::new()));
    let (record, begin) = (Arc::clone(&times), Instant::now());
    run_for_good(queue, move |job| {
        record.lock().push((job.attempt, begin.elapsed()));
        let outcome = outcome.clone();
        async move { outcome }
    });
    times
}

#[tokio::test(start_paused = true)]
async fn pauses_are_random_below_a_doubling_bound() {
    let retry = RetryConfig::default().max_attempts(6).base(seconds(1)).cap(seconds(4));
    let queue = small().retry(retry).build().unwrap();
    let times = attempts(&queue, Outcome::Retry(None));
    let mut sums = [Duration::ZERO; 5];
    for _ in 0..40 {
        queue.enqueue(job("failing")).await.unwrap();
        queue.wait_idle().await;
        let run = std::mem::take(&mut *times.lock());
        assert_eq!(run.iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        for (index, bound) in [1, 2, 4, 4, 4].into_iter().enumerate() {
            let pause = run[index + 1].1 - run[index].1;
            // A timer counts whole milliseconds and rounds up.
            assert!(pause <= seconds(bound) + Duration::from_millis(2), "{index}: {pause:?}");
            sums[index] += pause;
        }
    }
    // Forty draws from 0 to the bound: far from both ends, unless there is no jitter.
    for (sum, bound) in sums.into_iter().zip([1, 2, 4, 4, 4]) {
        let mean = sum / 40;
        assert!(mean > seconds(bound) / 5 && mean < seconds(bound) * 4 / 5, "{mean:?}");
    }
    let stats = queue.stats();
    assert_eq!(lane(&stats, Lane::Medium).failed_total, 240);
    assert_eq!(lane(&stats, Lane::Medium).retried_total, 200);
    assert_eq!(lane(&stats, Lane::Medium).dead_total, 40);
    adds_up(&stats);
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_choose_the_pause() {
    let queue = small().build().unwrap();
    let times = attempts(&queue, Outcome::Retry(Some(seconds(30))));
    queue.enqueue(job("failing").max_attempts(3)).await.unwrap();
    queue.wait_idle().await;
    let whole: Vec<_> = times.lock().iter().map(|(n, at)| (*n, at.as_secs())).collect();
    assert_eq!(whole, [(1, 0), (2, 30), (3, 60)]);
}

#[tokio::test(start_paused = true)]
async fn a_snooze_does_not_count_as_an_attempt() {
    let queue = small().build().unwrap();
    let begin = Instant::now();
    run_for_good(&queue, move |job| async move {
        assert_eq!(job.attempt, 1);
        if begin.elapsed() < seconds(60) { Outcome::Snooze(seconds(10)) } else { Outcome::Done }
    });
    queue.enqueue(job("not yet").max_attempts(1)).await.unwrap();
    queue.wait_idle().await;
    let stats = queue.stats();
    let medium = lane(&stats, Lane::Medium);
    assert_eq!((medium.snoozed_total, medium.succeeded_total, medium.failed_total), (6, 1, 0));
    adds_up(&stats);
}

#[tokio::test(start_paused = true)]
async fn a_job_is_dead_at_once_if_its_handler_says_so_and_forgotten_if_it_is_pointless() {
    let queue = small().build().unwrap();
    run_for_good(&queue, |job| async move {
        if job.kind == "hopeless" {
            Outcome::Dead("no such account".into())
        } else {
            Outcome::Discard("already settled".into())
        }
    });
    queue.enqueue(job("hopeless")).await.unwrap();
    queue.enqueue(job("pointless")).await.unwrap();
    queue.wait_idle().await;
    let letters = queue.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, "no such account");
    let stats = queue.stats();
    let medium = lane(&stats, Lane::Medium);
    assert_eq!((medium.dead_total, medium.discarded_total, medium.started_total), (1, 1, 2));
    adds_up(&stats);
}

#[derive(Debug, thiserror::Error)]
#[error("settling failed")]
struct Settling(#[source] io::Error);

#[tokio::test(start_paused = true)]
async fn a_dead_letter_tells_the_error_with_its_cause_and_is_replayed_with_all_attempts() {
    let queue = small().build().unwrap();
    let healed = Arc::new(AtomicBool::new(false));
    let ready = Arc::clone(&healed);
    let service = service_fn(move |job: Job| {
        let ready = Arc::clone(&ready);
        async move {
            let amount: u64 = job.parse()?;
            assert_eq!(amount, 12);
            if !ready.load(Ordering::Relaxed) || job.attempt < 2 {
                return Err(BoxError::from(Settling(io::Error::other("no database"))));
            }
            Ok(Outcome::Done)
        }
    });
    drop(queue.run(service, std::future::pending()));
    let job = Job::new("settle", &12).unwrap().lane(Lane::High).max_attempts(3);
    let id = queue.enqueue(job).await.unwrap().id;
    queue.wait_idle().await;

    let letters = queue.dead_letters();
    assert_eq!(letters[0].reason, "settling failed: no database");
    assert_eq!((letters[0].job.id, letters[0].job.attempt), (id, 3));

    healed.store(true, Ordering::Relaxed);
    assert_eq!(queue.replay(id).unwrap().id, id);
    assert!(queue.dead_letters().is_empty());
    assert_eq!(queue.replay(id), Err(ReplayError::NotFound(id)));
    queue.wait_idle().await;
    let stats = queue.stats();
    let high = lane(&stats, Lane::High);
    assert_eq!((high.replayed_total, high.succeeded_total, high.dead_total), (1, 1, 1));
    assert_eq!(high.started_total, 5);
    adds_up(&stats);
}

#[tokio::test(start_paused = true)]
async fn a_replay_needs_a_place_and_an_open_queue_or_the_letter_stays() {
    let queue = small().capacity(Lane::Medium, 1).build().unwrap();
    run_for_good(&queue, |job| async move {
        match &*job.kind {
            "hopeless" => Outcome::Dead(String::new()),
            _ => Outcome::Snooze(seconds(60)),
        }
    });
    let id = queue.enqueue(job("hopeless")).await.unwrap().id;
    queue.wait_idle().await;
    queue.enqueue(job("sleepy")).await.unwrap();
    assert_eq!(queue.replay(id), Err(ReplayError::Full(Lane::Medium)));
    queue.close();
    assert_eq!(queue.replay(id), Err(ReplayError::Closed));
    assert_eq!(queue.dead_letters().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_bounded_and_the_dropped_ones_counted() {
    let queue = Queue::builder(MemoryEngine::default().dead_letters(3)).build().unwrap();
    run_for_good(&queue, |job| async move { Outcome::Dead(job.kind.into_owned()) });
    for kind in 0..5 {
        queue.enqueue(job(kind.to_string())).await.unwrap();
        queue.wait_idle().await;
    }
    let reasons: Vec<_> = queue.dead_letters().iter().map(|it| it.reason.clone()).collect();
    assert_eq!(reasons, ["2", "3", "4"]);
    let stats = queue.stats();
    assert_eq!((stats.dead_letters, stats.dead_letters_dropped_total), (3, 2));
    all_free(&small().capacity(Lane::High, 2).build().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_does_not_fit_ends_as_a_letter_that_does_not_quote_it() {
    let queue = small().build().unwrap();
    let service = service_fn(|job: Job| async move {
        job.parse::<u64>().map(|_| Outcome::Done).map_err(BoxError::from)
    });
    drop(queue.run(service, std::future::pending()));
    let secret = Job::new("secret", "hunter2").unwrap().idempotency_key("token-9").max_attempts(1);
    queue.enqueue(secret).await.unwrap();
    queue.wait_idle().await;
    let letter = &queue.dead_letters()[0];
    assert_eq!(
        letter.reason,
        "the payload does not fit: unexpected type or value at line 1 column 9"
    );
    let shown = format!("{letter:?} {:?} {:?}", queue, queue.stats());
    assert!(!shown.contains("hunter2") && !shown.contains("token-9"), "{shown}");
}
