//! The handle: enqueue, look, replay, close.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{SemaphorePermit, TryAcquireError};
use tokio::time::{Instant, timeout};
use tower_service::Service;

use crate::builder::QueueBuilder;
use crate::config::{Overflow, QueueConfig};
use crate::engine::{DeadLetter, Engine};
use crate::error::{BoxError, EnqueueError, ReplayError};
use crate::id::JobId;
use crate::job::{Job, Outcome, Receipt};
use crate::lane::Lane;
use crate::shared::Shared;
use crate::stats::QueueStats;
use crate::worker::Workers;

/// A queue of jobs in four lanes. Clones are handles to the same queue.
///
/// When the last handle is dropped the queue is closed: nobody could enqueue any more. Workers
/// finish what is there, retries included, and then end. A service that itself holds a handle keeps
/// the queue open; its workers end by their shutdown signal.
#[derive(Clone)]
pub struct Queue {
    handle: Arc<Handle>,
}

/// Apart from `Shared`, which the workers hold too, so that the last handle can be told.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Queue {
    /// Begins a queue on this engine, with the documented lanes until they are changed.
    pub fn builder<E: Engine>(engine: E) -> QueueBuilder {
        QueueBuilder::new(engine.into_memory())
    }

    pub(crate) fn from_shared(shared: Shared) -> Self {
        Self { handle: Arc::new(Handle { shared: Arc::new(shared) }) }
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// The settings the queue was built with.
    #[must_use]
    pub fn config(&self) -> &QueueConfig {
        &self.shared().config
    }

    /// Puts a job in its lane.
    ///
    /// A job with the kind and key of an earlier one is not enqueued: the receipt then says
    /// `duplicate` and carries the earlier job's id. That holds even if the lane is full.
    ///
    /// # Errors
    /// The lane is full, or stayed full for the time of [`Overflow::Wait`], or the queue is
    /// closed. The error holds the job.
    ///
    /// # Cancellation
    /// Dropping the future before it has resolved drops the job, which was not enqueued. It holds
    /// no place in the lane; other waiting callers keep their order.
    ///
    /// # Cost
    /// One lock, two clock reads, no allocation but the growth of a ring; with an idempotency key
    /// two locks and the key's copies.
    pub async fn enqueue(&self, mut job: Job) -> Result<Receipt, EnqueueError> {
        let shared = self.shared();
        if job.idempotency_key.is_some() {
            // Before a place is asked for: a duplicate needs none.
            let earlier = shared.change(|core| {
                if core.closed { None } else { core.store.duplicate(&job, Instant::now()) }
            });
            if let Some(receipt) = earlier {
                return Ok(receipt);
            }
        }
        let (place, job) = match self.place(job.lane).await {
            Ok(place) => {
                job.enqueued_at = SystemTime::now();
                job.max_attempts.get_or_insert(shared.config.retry.max_attempts);
                (place, job)
            }
            Err(refusal) => return Err(self.refused(refusal, job)),
        };
        let now = Instant::now();
        shared.change(|core| {
            if core.closed {
                return Err(EnqueueError::Closed { job: Box::new(job) });
            }
            // Asked again: the same key may have come in while this call waited for a place.
            if let Some(receipt) = core.store.duplicate(&job, now) {
                return Ok(receipt);
            }
            place.forget();
            Ok(core.store.push(job, now))
        })
    }

    /// Runs the jobs on `service` until `shutdown` resolves; must be called within a runtime.
    ///
    /// Spawns one task for each dedicated worker of each lane, with a clone of the service each,
    /// and one that keeps the time and stops them. A worker makes its clone ready before it takes
    /// a job and calls that clone; a clone that was made ready for nothing is replaced, so that an
    /// idle worker does not sit on, say, a permit of a concurrency limit.
    ///
    /// A queue may be run again after a stop, and by several services at once.
    ///
    /// # Stopping
    /// When `shutdown` resolves, workers take no more jobs; running attempts have the configured
    /// grace; then they are aborted and their jobs, the attempt uncounted, stay in the queue. The
    /// workers also end by themselves once the queue is closed and empty.
    ///
    /// # Panics
    /// Outside a tokio runtime, or in one whose timers are disabled.
    #[expect(clippy::needless_pass_by_value, reason = "a caller is done with what it hands over")]
    pub fn run<S, F>(&self, service: S, shutdown: F) -> Workers
    where
        S: Service<Job, Response = Outcome> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        F: Future<Output = ()> + Send + 'static,
    {
        Workers::start(&self.handle.shared, &service, shutdown)
    }

    /// The figures of this moment. They add up, since they are read under one lock.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        let shared = self.shared();
        let now = Instant::now();
        shared.read(|core| {
            let lanes = Lane::ALL.map(|lane| {
                let mut stats = core.store.lane_stats(lane, now);
                stats.workers = shared.config.lane(lane).workers;
                stats.workers_alive = core.scheduler.present(lane);
                stats.capacity = shared.config.lane(lane).capacity;
                stats
            });
            let (dead_letters, dead_letters_dropped_total) = core.store.letter_count();
            let (idempotency_keys, idempotency_keys_evicted_total) = core.store.key_count();
            QueueStats {
                lanes: lanes.into(),
                dead_letters,
                dead_letters_dropped_total,
                idempotency_keys,
                idempotency_keys_evicted_total,
                service_errors_total: core.service_errors,
                closed: core.closed,
            }
        })
    }

    /// The dead letters, the oldest first. Copies one pointer a letter under the lock.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<Arc<DeadLetter>> {
        self.shared().read(|core| core.store.letters())
    }

    /// Makes a dead letter a job again, at the end of its lane, with all its attempts before it.
    ///
    /// Searches the letters from the oldest on, so replaying all of them in order is cheap.
    ///
    /// # Errors
    /// There is no such letter, the job's lane is full, or the queue is closed. The letter stays.
    pub fn replay(&self, id: JobId) -> Result<Receipt, ReplayError> {
        let shared = self.shared();
        shared.change(|core| {
            let lane = core.store.lane_of_letter(id).ok_or(ReplayError::NotFound(id))?;
            let place = shared.places[lane].try_acquire().map_err(|error| match error {
                TryAcquireError::NoPermits => ReplayError::Full(lane),
                TryAcquireError::Closed => ReplayError::Closed,
            })?;
            let receipt = core.store.replay(id, Instant::now());
            let receipt = receipt.ok_or(ReplayError::NotFound(id))?;
            place.forget();
            Ok(receipt)
        })
    }

    /// Resolves at a moment when no job is ready, delayed or running. Without workers that is
    /// never, unless the queue is empty.
    pub async fn wait_idle(&self) {
        self.shared().until_idle().await;
    }

    /// Takes no more jobs: later and waiting enqueues get theirs back. Jobs already in the queue
    /// are run to their end; after the last one the workers end by themselves.
    pub fn close(&self) {
        self.shared().close();
    }

    async fn place(&self, lane: Lane) -> Result<SemaphorePermit<'_>, Refusal> {
        let places = &self.shared().places[lane];
        match (places.try_acquire(), self.config().overflow) {
            (Ok(place), _) => Ok(place),
            (Err(TryAcquireError::Closed), _) => Err(Refusal::Closed),
            (Err(TryAcquireError::NoPermits), Overflow::Reject) => Err(Refusal::Full),
            (Err(TryAcquireError::NoPermits), Overflow::Wait(limit)) => {
                match timeout(limit, places.acquire()).await {
                    Ok(place) => place.map_err(|_| Refusal::Closed),
                    Err(_) => Err(Refusal::TimedOut(limit)),
                }
            }
        }
    }

    fn refused(&self, refusal: Refusal, job: Job) -> EnqueueError {
        let lane = job.lane;
        let job = Box::new(job);
        if !matches!(refusal, Refusal::Closed) {
            self.shared().change(|core| core.store.rejected(lane));
        }
        match refusal {
            Refusal::Closed => EnqueueError::Closed { job },
            Refusal::Full => {
                EnqueueError::Full { lane, capacity: self.config().lane(lane).capacity, job }
            }
            Refusal::TimedOut(waited) => EnqueueError::TimedOut { lane, waited, job },
        }
    }
}

/// Settings only: jobs and keys are nobody's business in a log.
impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("config", self.config()).finish_non_exhaustive()
    }
}

/// Why there was no place.
#[derive(Clone, Copy)]
enum Refusal {
    Closed,
    Full,
    TimedOut(Duration),
}
