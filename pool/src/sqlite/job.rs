//! A closure on its way to a thread, and its answer on the way back.

use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::meter::Meter;
use crate::error::{PoolError, panic_message};

/// What the caller is sent: the closure's own result, or why there is none.
pub(super) type Answer<T, E> = Result<Result<T, E>, PoolError>;

/// A job as the threads see it.
pub(super) type BoxJob = Box<dyn Job + Send>;

pub(super) trait Job {
    /// Whether its caller is still there, at this moment.
    fn is_wanted(&self) -> bool;
    /// Starts the job, unless its caller is gone.
    fn claim(&self) -> bool;
    /// Runs the closure; a panic stays inside.
    fn run(self: Box<Self>, conn: &Connection) -> Done;
    /// Answers without running; a panic of what is dropped stays inside, as it does below.
    fn refuse(self: Box<Self>, error: PoolError);
    /// Drops a job that nobody wants.
    fn skip(self: Box<Self>);
}

/// What closures hold and return is dropped on a thread that others need too.
fn contained(drops: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(drops)) {
        // Its own drop could panic again.
        std::mem::forget(payload);
    }
}

/// A job that ran and has not been answered.
pub(super) struct Done {
    /// Whether what it wrote is to be kept.
    pub(super) keep: bool,
    answer: Box<dyn FnOnce(Result<(), PoolError>) + Send>,
}

impl Done {
    /// Answers the caller. An error in place of the commit replaces only a success.
    pub(super) fn answer(self, committed: Result<(), PoolError>) {
        contained(|| (self.answer)(committed));
    }
}

/// The right to decide how a job's wait ends. It is used once: by the thread that starts the job,
/// or by the caller who leaves or times out. So a job that its caller gave up never runs.
#[derive(Debug)]
pub(super) struct Start {
    taken: AtomicBool,
    meter: Arc<Meter>,
    pub(super) began: Instant,
    place: &'static Location<'static>,
}

impl Start {
    pub(super) fn new(meter: Arc<Meter>, place: &'static Location<'static>) -> Self {
        meter.start();
        Self { taken: AtomicBool::new(false), meter, began: Instant::now(), place }
    }

    fn is_open(&self) -> bool {
        !self.taken.load(Ordering::Acquire)
    }

    /// False if the wait has ended before. Else its end is to be told by one of those below.
    pub(super) fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::AcqRel)
    }

    pub(super) fn failed(&self, error: &PoolError) {
        self.meter.failed(error, self.began.elapsed(), self.place);
    }
}

/// Ends a wait as cancelled that nothing else has ended.
#[derive(Debug)]
pub(super) struct Caller(pub(super) Arc<Start>);

impl Drop for Caller {
    fn drop(&mut self) {
        if self.0.take() {
            self.0.meter.cancelled();
        }
    }
}

pub(super) struct Call<F, T, E> {
    pub(super) start: Arc<Start>,
    pub(super) closure: F,
    pub(super) reply: oneshot::Sender<Answer<T, E>>,
}

impl<F, T, E> Job for Call<F, T, E>
where
    F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    fn is_wanted(&self) -> bool {
        self.start.is_open()
    }

    fn claim(&self) -> bool {
        let first = self.start.take();
        if first {
            self.start.meter.acquired(self.start.began.elapsed(), self.start.place);
        }
        first
    }

    fn run(self: Box<Self>, conn: &Connection) -> Done {
        let Self { start, closure, reply } = *self;
        let begun = Instant::now();
        // What a panic leaves half done is in the database, where it is rolled back.
        let result = catch_unwind(AssertUnwindSafe(|| closure(conn)));
        let result = result.map_err(|payload| {
            let message = panic_message(&*payload);
            contained(|| drop(payload));
            PoolError::Panicked { message }
        });
        let keep = matches!(result, Ok(Ok(_)));
        let answer = Box::new(move |committed: Result<(), PoolError>| {
            start.meter.returned(begun.elapsed(), start.place);
            let answer = match (result, committed) {
                (Ok(Ok(_)), Err(error)) => Err(error),
                (result, _) => result,
            };
            // A caller who left does not want it.
            drop(reply.send(answer));
        });
        Done { keep, answer }
    }

    fn refuse(self: Box<Self>, error: PoolError) {
        if self.start.take() {
            self.start.failed(&error);
        }
        let Self { closure, reply, .. } = *self;
        drop(reply.send(Err(error)));
        contained(|| drop(closure));
    }

    fn skip(self: Box<Self>) {
        contained(|| drop(self));
    }
}
