//! The sums hold at every moment: under cancellation at every step, under storms, on two threads.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use escala_queue::{
    BoxError, Job, Lane, MemoryEngine, Outcome, Overflow, Queue, QueueStats, RetryConfig,
};
use futures_util::future::BoxFuture;
use tokio::time::sleep;
use tower::Service;

use crate::scene::{adds_up, all_free, job, lane, seconds, small};

/// Where the attempt is when its worker is aborted.
#[derive(Clone, Copy, Debug)]
enum Step {
    NotReady,
    FirstPoll,
    LaterPoll,
    BetweenAttempts,
    Snoozing,
    Finished,
}

/// A service that stops at the given step.
#[derive(Clone)]
struct Stalling(Step);

impl Service<Job> for Stalling {
    type Response = Outcome;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Outcome, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if matches!(self.0, Step::NotReady) { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn call(&mut self, _: Job) -> Self::Future {
        let step = self.0;
        Box::pin(async move {
            match step {
                Step::NotReady => panic!("called without being ready"),
                Step::FirstPoll => pending().await,
                Step::LaterPoll => {
                    sleep(seconds(1)).await;
                    pending().await
                }
                Step::BetweenAttempts => Ok(Outcome::Retry(Some(seconds(3_600)))),
                Step::Snoozing => Ok(Outcome::Snooze(seconds(3_600))),
                Step::Finished => Ok(Outcome::Done),
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_at_any_step_loses_no_job_and_no_count() {
    for step in [
        Step::NotReady,
        Step::FirstPoll,
        Step::LaterPoll,
        Step::BetweenAttempts,
        Step::Snoozing,
        Step::Finished,
    ] {
        let lanes = small().grace(Duration::ZERO);
        let queue =
            Lane::ALL.into_iter().fold(lanes, |it, lane| it.capacity(lane, 3)).build().unwrap();
        for lane in Lane::ALL {
            queue.enqueue(job("one").lane(lane)).await.unwrap();
            queue.enqueue(job("two").lane(lane)).await.unwrap();
        }
        let report = queue.run(Stalling(step), sleep(seconds(3))).join().await;
        let stats = queue.stats();
        adds_up(&stats);
        let cancelled: u64 = stats.lanes.iter().map(|lane| lane.cancelled_total).sum();
        assert_eq!(cancelled, report.aborted as u64, "{step:?}");
        let running = matches!(step, Step::FirstPoll | Step::LaterPoll);
        assert_eq!(report.aborted, if running { 4 } else { 0 }, "{step:?}");
        assert_eq!(report.remaining, if matches!(step, Step::Finished) { 0 } else { 8 });
        assert!(stats.lanes.iter().all(|lane| lane.running == 0 && lane.workers_alive == 0));

        // What is left is all there and all places come back.
        drop(queue.run(Stalling(Step::Finished), pending()));
        queue.wait_idle().await;
        let done: u64 = queue.stats().lanes.iter().map(|lane| lane.succeeded_total).sum();
        assert_eq!(done, 8, "{step:?}");
        queue.wait_idle().await;
        adds_up(&queue.stats());
    }
}

#[tokio::test]
async fn a_runtime_that_goes_away_gives_jobs_back() {
    let queue = small().capacity(Lane::Medium, 1).build().unwrap();
    queue.enqueue(job("survivor")).await.unwrap();
    let elsewhere = queue.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            drop(elsewhere.run(Stalling(Step::FirstPoll), pending()));
            while lane(&elsewhere.stats(), Lane::Medium).running == 0 {
                tokio::task::yield_now().await;
            }
        });
    });
    tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    let stats = queue.stats();
    adds_up(&stats);
    let medium = lane(&stats, Lane::Medium);
    assert_eq!((medium.depth, medium.running, medium.cancelled_total), (1, 0, 1));
    assert_eq!(medium.workers_alive, 0);
    drop(queue.run(Stalling(Step::Finished), pending()));
    queue.wait_idle().await;
    assert_eq!(lane(&queue.stats(), Lane::Medium).succeeded_total, 1);
}

/// Every figure that must not fall.
fn counters(stats: &QueueStats) -> Vec<(String, f64)> {
    let mut counters = Vec::new();
    stats.visit(&mut |name, labels, value| {
        if name.ends_with("_total") {
            counters.push((format!("{name}{labels:?}"), value));
        }
    });
    counters
}

/// A panic that the hook does not print: thousands of them would hide a real one.
fn quiet_panic(message: &'static str) -> ! {
    std::panic::resume_unwind(Box::new(message))
}

/// Ends in every way there is, by the toss of a die.
#[derive(Clone)]
struct Storm(Arc<AtomicUsize>);

impl Service<Job> for Storm {
    type Response = Outcome;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Outcome, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if fastrand::u8(..8) == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Job) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        let die = fastrand::u8(..12);
        if die == 0 {
            quiet_panic("a panic in call");
        }
        Box::pin(async move {
            match die {
                1 => quiet_panic("a panic in the future"),
                2 => Err("an error".into()),
                3 => Ok(Outcome::Retry(Some(Duration::ZERO))),
                4 => Ok(Outcome::Snooze(Duration::from_micros(500))),
                5 => Ok(Outcome::Discard("no point".into())),
                6 => Ok(Outcome::Dead("no hope".into())),
                7 => pending().await,
                8 => {
                    tokio::task::yield_now().await;
                    Ok(Outcome::Done)
                }
                _ => Ok(Outcome::Done),
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn figures_add_up_and_never_fall_in_a_storm() {
    let fast = RetryConfig::default().base(Duration::from_millis(1)).cap(Duration::from_millis(2));
    let builder = Queue::builder(MemoryEngine::default().dead_letters(50))
        .retry(fast)
        .overflow(Overflow::Wait(seconds(60)))
        .grace(Duration::ZERO);
    let queue = Lane::ALL
        .into_iter()
        .fold(builder, |it, lane| it.capacity(lane, 40).timeout(lane, Duration::from_millis(2)))
        .build()
        .unwrap();
    let called = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));

    let watcher = std::thread::spawn({
        let (queue, over) = (queue.clone(), Arc::clone(&over));
        move || {
            let mut before = counters(&queue.stats());
            while !over.load(Ordering::Relaxed) {
                let stats = queue.stats();
                adds_up(&stats);
                for lane in &stats.lanes {
                    assert!(lane.depth + lane.delayed + lane.running <= lane.capacity);
                }
                let now = counters(&stats);
                for (old, new) in before.iter().zip(&now) {
                    assert!(old.1 <= new.1, "{old:?} fell to {new:?}");
                }
                before = now;
                std::thread::yield_now();
            }
        }
    });
    let producers: Vec<_> = Lane::ALL
        .into_iter()
        .map(|lane| {
            let queue = queue.clone();
            tokio::spawn(async move {
                for n in 0..500 {
                    let job = job("storm").lane(lane).idempotency_key(format!("{lane}{}", n / 2));
                    queue.enqueue(job).await.unwrap();
                }
            })
        })
        .collect();
    // Short runs one after another, each of them cut off, before one that finishes.
    for _ in 0..20 {
        let stop = sleep(Duration::from_millis(5));
        let report = queue.run(Storm(Arc::clone(&called)), stop).join().await;
        assert_eq!(report.stuck, 0);
    }
    drop(queue.run(Storm(Arc::clone(&called)), pending()));
    for producer in producers {
        producer.await.unwrap();
    }
    queue.wait_idle().await;
    over.store(true, Ordering::Relaxed);
    watcher.join().unwrap();

    let stats = queue.stats();
    adds_up(&stats);
    let sum =
        |figure: fn(&escala_queue::LaneStats) -> u64| stats.lanes.iter().map(figure).sum::<u64>();
    assert_eq!(sum(|lane| lane.enqueued_total), 1_000);
    assert_eq!(sum(|lane| lane.duplicates_total), 1_000);
    // A worker aborted between claim and call has started an attempt that nobody saw.
    let seen = called.load(Ordering::Relaxed) as u64;
    assert!(sum(|lane| lane.started_total) >= seen);
    assert!(sum(|lane| lane.started_total) - seen <= sum(|lane| lane.cancelled_total));
    assert!(stats.dead_letters <= 50);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_panics_costs_no_worker_and_no_place() {
    let queue = small().capacity(Lane::Medium, 500).capacity(Lane::High, 7).build().unwrap();
    let workers = queue
        .run(crate::scene::handler(|_| async { quiet_panic("always") }), sleep(seconds(100_000)));
    for _ in 0..500 {
        queue.enqueue(job("doomed")).await.unwrap();
    }
    queue.wait_idle().await;
    let stats = queue.stats();
    let medium = lane(&stats, Lane::Medium);
    assert_eq!((medium.failed_total, medium.dead_total, stats.dead_letters), (2_500, 500, 500));
    assert!(stats.lanes.iter().all(|lane| lane.workers_alive == 1));
    assert_eq!(queue.dead_letters()[0].reason, "the handler panicked: always");
    assert_eq!(workers.join().await.remaining, 0);
    all_free(&queue).await;
}
