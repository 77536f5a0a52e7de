//! What the tests share: small queues, jobs, a log of what ran, and the sums that must hold.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use escala_queue::{Job, Lane, LaneStats, MemoryEngine, Outcome, Queue, QueueBuilder, QueueStats};
use parking_lot::Mutex;
use tower::Service;
use tower::util::service_fn;

/// One worker a lane, and no chance in the retries but what a test asks for.
pub(crate) fn small() -> QueueBuilder {
    Lane::ALL
        .into_iter()
        .fold(Queue::builder(MemoryEngine::default()), |builder, lane| builder.workers(lane, 1))
}

pub(crate) fn job(kind: impl Into<String>) -> Job {
    Job::new(kind.into(), &()).expect("a unit has a JSON form")
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A handler that cannot fail, from a closure.
pub(crate) fn handler<F, T>(
    run: F,
) -> impl Service<
    Job,
    Response = Outcome,
    Error = Infallible,
    Future = impl Future<Output = Result<Outcome, Infallible>> + Send,
> + Clone
+ Send
+ 'static
where
    F: Fn(Job) -> T + Clone + Send + 'static,
    T: Future<Output = Outcome> + Send,
{
    service_fn(move |job| {
        let outcome = run(job);
        async move { Ok(outcome.await) }
    })
}

/// Kinds of jobs in the order in which they were started.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn note(&self, entry: impl Into<String>) {
        self.0.lock().push(entry.into());
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

/// Runs the queue for as long as the runtime lives.
pub(crate) fn run_for_good<F, T>(queue: &Queue, run: F)
where
    F: Fn(Job) -> T + Clone + Send + 'static,
    T: Future<Output = Outcome> + Send + 'static,
{
    drop(queue.run(handler(run), pending()));
}

pub(crate) fn lane(stats: &QueueStats, lane: Lane) -> &LaneStats {
    stats.lanes.iter().find(|stats| stats.lane == lane).expect("all lanes are there")
}

/// The three sums that hold at every moment.
pub(crate) fn adds_up(stats: &QueueStats) {
    for lane in &stats.lanes {
        assert_eq!(
            lane.enqueued_total + lane.replayed_total,
            (lane.depth + lane.delayed + lane.running) as u64
                + lane.succeeded_total
                + lane.discarded_total
                + lane.dead_total,
            "jobs of {lane:?}"
        );
        assert_eq!(
            lane.started_total,
            lane.succeeded_total
                + lane.failed_total
                + lane.timed_out_total
                + lane.snoozed_total
                + lane.discarded_total
                + lane.cancelled_total
                + lane.running as u64,
            "attempts of {lane:?}"
        );
        assert_eq!(
            lane.failed_total + lane.timed_out_total,
            lane.retried_total + lane.dead_total,
            "failures of {lane:?}"
        );
    }
}

/// Nothing is held any more, and every place of every lane can be taken again.
pub(crate) async fn all_free(queue: &Queue) {
    let stats = queue.stats();
    adds_up(&stats);
    for lane in &stats.lanes {
        assert_eq!((lane.depth, lane.delayed, lane.running), (0, 0, 0), "{lane:?}");
        for _ in 0..lane.capacity {
            queue.enqueue(job("place").lane(lane.lane)).await.expect("a free place");
        }
        let more = queue.enqueue(job("one more").lane(lane.lane)).await;
        assert!(more.is_err_and(|error| error.is_full()));
    }
}
