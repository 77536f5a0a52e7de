//! The line behind its lock, the tasks that work it off, and the figures.
//!
//! A task is started when somebody enters and fewer than `max_in_flight` run. It works until the
//! line is empty, and is not the caller's: nobody's batch ends with somebody else's future.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::config::BatchConfig;
use super::error::BatchError;
use super::line::{Batch, Index, Line, Place, Together};
use super::stats::BatchStats;
use crate::manager::caught;

pub(super) type Answer<O> = Result<O, BatchError>;
/// Those who wait for an item, and what it came to.
pub(super) type Reply<O> = (Together<oneshot::Sender<Answer<O>>>, Answer<O>);
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
type Taken<T, O, I> = Batch<T, oneshot::Sender<Answer<O>>, <I as Index<T>>::Routes>;
type Seat<O> = (Place, oneshot::Receiver<Answer<O>>);

/// What clones, callers and tasks of a batcher share.
pub(super) struct Engine<T, O, I: Index<T>> {
    state: Mutex<State<T, O, I>>,
    config: BatchConfig,
    /// Tasks at most.
    max_lanes: usize,
    work: Box<dyn Fn(Lane<T, O, I>) -> Task + Send + Sync>,
}

/// One lock for all, so that a snapshot always adds up.
struct State<T, O, I> {
    line: Line<T, oneshot::Sender<Answer<O>>, I>,
    stats: BatchStats,
}

impl<T, O, I> Engine<T, O, I>
where
    T: Send + 'static,
    O: Send + 'static,
    I: Index<T> + Send + 'static,
{
    /// `work` is what a task does with its lane; `usual` is how many there are if the configuration
    /// does not say.
    pub(super) fn new<F>(
        config: BatchConfig,
        usual: usize,
        work: impl Fn(Lane<T, O, I>) -> F + Send + Sync + 'static,
    ) -> Arc<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let state = State { line: Line::default(), stats: BatchStats::default() };
        let work = Box::new(move |lane| Box::pin(work(lane)) as Task);
        let max_lanes = config.max_in_flight.unwrap_or(usual);
        Arc::new(Self { state: Mutex::new(state), config, max_lanes, work })
    }

    /// Brings one item.
    pub(super) fn enter(self: &Arc<Self>, item: T) -> Result<Pending<O>, BatchError> {
        let seat = self.admit(1, |state| Ok(state.enter(item)))?;
        Ok(self.pending(seat))
    }

    /// Brings several items: all or none, and into one batch if they fit.
    pub(super) fn enter_all(
        self: &Arc<Self>,
        items: Vec<T>,
    ) -> Result<Vec<Pending<O>>, BatchError> {
        let count = items.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        // Filled from outside, so that nothing is lost if an item panics; dropped after the lock.
        let (mut items, mut seats, mut left) =
            (items.into_iter(), Vec::with_capacity(count), Vec::new());
        let enter = |state: &mut State<T, O, I>| {
            let joined = state.stats.deduplicated_total;
            let all = || items.by_ref().for_each(|item| seats.push(state.enter(item)));
            let entered = catch_unwind(AssertUnwindSafe(all));
            if entered.is_err() {
                left.extend(seats.iter().map(|(place, _)| state.line.leave(*place)));
                state.stats.deduplicated_total = joined;
            }
            entered
        };
        self.admit(count, enter)?;
        Ok(seats.into_iter().map(|seat| self.pending(seat)).collect())
    }

    /// Lets so many in, and starts a task for them if there may be one more. A panic that `enter`
    /// caught goes on when the lock is free.
    fn admit<R>(
        self: &Arc<Self>,
        count: usize,
        enter: impl FnOnce(&mut State<T, O, I>) -> thread::Result<R>,
    ) -> Result<R, BatchError> {
        let mut state = self.state.lock();
        if state.line.waiting() + count > self.config.max_waiters {
            state.stats.started_total += count as u64;
            state.stats.rejected_total += count as u64;
            return Err(BatchError::TooManyWaiters { limit: self.config.max_waiters });
        }
        let lanes = state.stats.lanes;
        let runtime = (lanes < self.max_lanes).then(|| Handle::try_current().ok()).flatten();
        if runtime.is_none() && lanes == 0 {
            state.stats.started_total += count as u64;
            state.stats.failed_total += count as u64;
            return Err(BatchError::Abandoned);
        }
        // Counted afterwards, since the hash of a key is the caller's code and may panic.
        let entered = match enter(&mut state) {
            Ok(entered) => entered,
            Err(payload) => {
                drop(state);
                resume_unwind(payload);
            }
        };
        state.stats.started_total += count as u64;
        state.stats.in_flight += count;
        state.stats.lanes += usize::from(runtime.is_some());
        drop(state);
        if let Some(runtime) = runtime {
            self.start(&runtime);
        }
        Ok(entered)
    }

    fn pending(self: &Arc<Self>, (place, answer): Seat<O>) -> Pending<O> {
        let engine: Arc<dyn Settle> = Arc::<Self>::clone(self);
        Pending { answer, place, engine: Some(engine) }
    }

    pub(super) fn stats(&self) -> BatchStats {
        let state = self.state.lock();
        BatchStats { waiting: state.line.waiting(), ..state.stats }
    }
}

impl<T, O, I: Index<T>> Engine<T, O, I> {
    /// Starts a task for a lane that is counted already.
    fn start(self: &Arc<Self>, runtime: &Handle) {
        let lane = Lane { engine: Arc::clone(self), worked: false, left: false };
        runtime.spawn((self.work)(lane));
    }
}

impl<T, O, I: Index<T>> State<T, O, I> {
    fn enter(&mut self, item: T) -> Seat<O> {
        let (sender, answer) = oneshot::channel();
        let place = self.line.enter(item, sender);
        self.stats.deduplicated_total += u64::from(place.joined());
        (place, answer)
    }
}

impl<T, O, I: Index<T>> fmt::Debug for Engine<T, O, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let stats = BatchStats { waiting: state.line.waiting(), ..state.stats };
        f.debug_struct("Engine").field("config", &self.config).field("stats", &stats).finish()
    }
}

/// How a caller's wait ends, whatever it waits for.
trait Settle: Send + Sync {
    fn answered(&self, succeeded: bool);
    fn left(&self, place: Place);
}

impl<T, O, I> Settle for Engine<T, O, I>
where
    T: Send,
    O: Send,
    I: Index<T> + Send,
{
    fn answered(&self, succeeded: bool) {
        let stats = &mut self.state.lock().stats;
        stats.in_flight -= 1;
        if succeeded {
            stats.succeeded_total += 1;
        } else {
            stats.failed_total += 1;
        }
    }

    fn left(&self, place: Place) {
        let mut state = self.state.lock();
        state.stats.in_flight -= 1;
        state.stats.cancelled_total += 1;
        let left = state.line.leave(place);
        // What leaves is the user's, and dropped outside the lock.
        drop(state);
        drop(left);
    }
}

/// The wait for an answer. Dropped before its end, it gives its place up.
#[must_use]
pub(super) struct Pending<O> {
    answer: oneshot::Receiver<Answer<O>>,
    place: Place,
    /// `Some` until the wait has ended.
    engine: Option<Arc<dyn Settle>>,
}

impl<O> Future for Pending<O> {
    type Output = Answer<O>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        // Only a task that ended before its time drops a waiter unanswered.
        let answer = answer.unwrap_or(Err(BatchError::Abandoned));
        if let Some(engine) = self.engine.take() {
            engine.answered(answer.is_ok());
        }
        Poll::Ready(answer)
    }
}

impl<O> Drop for Pending<O> {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.left(self.place);
        }
    }
}

/// The right of a task to take batches out of the line, one after the other.
#[must_use]
pub(super) struct Lane<T, O, I: Index<T>> {
    engine: Arc<Engine<T, O, I>>,
    /// Its task began.
    worked: bool,
    left: bool,
}

impl<T, O, I: Index<T>> Lane<T, O, I> {
    pub(super) fn config(&self) -> &BatchConfig {
        &self.engine.config
    }

    /// Ends the lane if nobody waits. Whoever enters afterwards starts another.
    pub(super) fn end(&mut self) -> bool {
        self.worked = true;
        let mut state = self.engine.state.lock();
        if state.line.is_empty() {
            state.stats.lanes -= 1;
            self.left = true;
        }
        self.left
    }

    /// The next batch; `None` if those who waited have left.
    pub(super) fn take(&self) -> Option<Taken<T, O, I>> {
        let mut state = self.engine.state.lock();
        let batch = state.line.take(self.engine.config.max_batch)?;
        state.stats.batches_total += 1;
        state.stats.keys_total += batch.items.len() as u64;
        Some(batch)
    }

    /// Counts a batch that failed.
    pub(super) fn failed(&self) {
        self.engine.state.lock().stats.batch_failures_total += 1;
    }
}

impl<T, O, I: Index<T>> Drop for Lane<T, O, I> {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let mut state = self.engine.state.lock();
        // A panic of the caller's own `Clone` ended the task, and others still wait: hand over. Not
        // from a task that never began, since the next one would not either: the runtime has ended.
        if self.worked
            && thread::panicking()
            && !state.line.is_empty()
            && let Ok(runtime) = Handle::try_current()
        {
            drop(state);
            self.engine.start(&runtime);
            return;
        }
        state.stats.lanes -= 1;
        // The runtime ends. Another lane may be in another runtime; else nobody comes any more.
        let abandoned = if state.stats.lanes == 0 { state.line.take(usize::MAX) } else { None };
        drop(state);
        drop(abandoned);
    }
}

/// Runs a call of the source: in time, and so that a panic does not take the waiters along.
pub(super) async fn guarded<R>(
    deadline: Instant,
    config: &BatchConfig,
    call: impl Future<Output = Answer<R>>,
) -> Answer<R> {
    match timeout_at(deadline, caught(call)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(message)) => Err(BatchError::Panicked { message }),
        Err(_elapsed) => Err(BatchError::TimedOut { after: config.timeout }),
    }
}

/// The source's error, to be shared.
pub(super) fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> BatchError {
    BatchError::Failed(Arc::from(error.into()))
}

/// Answers those who wait for one item; the last one gets the original.
pub(super) fn answer<O: Clone>((mut waiters, answer): Reply<O>) {
    let last = waiters.pop();
    // Whoever has gone needs no answer.
    for waiter in waiters {
        drop(waiter.send(answer.clone()));
    }
    if let Some(last) = last {
        drop(last.send(answer));
    }
}
