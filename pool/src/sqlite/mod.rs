//! Embedded SQLite: threads that read beside one that writes.
//!
//! A closure goes to a thread and its result comes back; the async caller never blocks. The writer
//! runs whatever waits in one transaction and commits once, so many small writes cost as much as
//! one; each closure still succeeds or fails by itself.

mod config;
mod error;
mod job;
mod queue;
mod worker;

use std::fmt;
use std::sync::Arc;

pub use rusqlite;
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

pub use self::config::SqliteConfig;
pub use self::error::JobError;
use self::job::{BoxJob, Call, Caller, Start};
use self::queue::{Queue, Refused};
use crate::error::PoolError;
use crate::event;
use crate::meter::{Meter, Outcome};
use crate::pool::CloseReport;
use crate::stats::{PoolSnapshot, PoolStats};

/// One SQLite file with its threads. Clones share it; the threads end with the last clone.
///
/// # Guarantees
/// A read sees every write of this process that was acknowledged before the read was submitted,
/// also through another pool on the same file. A caller whose write succeeded is answered after
/// the commit. With `synchronous = NORMAL` that survives a crash of the process; a power cut may
/// lose the last commits but never corrupts the file.
///
/// # Cancellation
/// A job whose caller is gone before it starts is skipped. One that has started runs to its end,
/// and a write may be committed unseen.
#[derive(Clone)]
pub struct SqlitePool {
    inner: Arc<Inner>,
}

struct Inner {
    config: SqliteConfig,
    reads: Arc<Queue<BoxJob>>,
    /// `None` in a pool that only reads.
    writes: Option<Arc<Queue<BoxJob>>>,
    meter: Arc<Meter>,
    /// Threads alive.
    threads: watch::Receiver<usize>,
}

impl SqlitePool {
    /// Opens the file and starts the threads.
    ///
    /// # Errors
    /// [`PoolError::Config`]; [`PoolError::Sqlite`] if the file cannot be opened;
    /// [`PoolError::Connect`] if a thread cannot be started.
    pub async fn open(config: SqliteConfig) -> Result<Self, PoolError> {
        config.validate()?;
        let (threads, alive) = watch::channel(0);
        let queue = || Arc::new(Queue::new(config.max_waiters));
        // Made whole before the threads, so that a failure half-way ends those that run.
        let inner = Arc::new(Inner {
            reads: queue(),
            writes: (!config.read_only).then(queue),
            meter: Arc::new(Meter::default()),
            threads: alive,
            config,
        });
        // The writer first: it creates the file and turns the write-ahead log on.
        if let Some(writes) = &inner.writes {
            start("escala-writer", &inner.config, true, writes, &threads).await?;
        }
        for _ in 0..inner.config.readers {
            start("escala-reader", &inner.config, false, &inner.reads, &threads).await?;
        }
        Ok(Self { inner })
    }

    /// Runs a closure on a reader. Use `prepare_cached` in it.
    ///
    /// # Errors
    /// [`JobError::Job`] with the closure's own error, else [`JobError::Pool`].
    pub async fn read<T, E, F>(&self, closure: F) -> Result<T, JobError<E>>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.inner.call(&self.inner.reads, self.inner.config.readers, closure).await
    }

    /// Runs a closure on the writer, inside a transaction that it shares with others. It must not
    /// end that transaction; an `Err` rolls back what this closure wrote and nothing else.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`PoolError::ReadOnly`]; an error of the commit, which every
    /// closure of the group is told.
    pub async fn write<T, E, F>(&self, closure: F) -> Result<T, JobError<E>>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let writes = self.inner.writes.as_ref().ok_or(JobError::Pool(PoolError::ReadOnly))?;
        self.inner.call(writes, 1, closure).await
    }

    /// The figures of this moment.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.inner.stats()
    }

    /// Refuses new jobs and waits for those that wait and run, at most `close_timeout`; after that
    /// the jobs still waiting fail with [`PoolError::Closed`]. May be called again.
    pub async fn close(&self) -> CloseReport {
        let inner = &self.inner;
        inner.close();
        let mut threads = inner.threads.clone();
        let ended = threads.wait_for(|alive| *alive == 0);
        let abandoned = match timeout(inner.config.close_timeout, ended).await {
            // All ended, or the last one just now took the sender with it.
            Ok(_) => 0,
            Err(_elapsed) => inner.abandon(),
        };
        if abandoned > 0 {
            event::abandoned(abandoned);
        }
        CloseReport { abandoned }
    }
}

impl Inner {
    async fn call<T, E, F>(
        &self,
        queue: &Queue<BoxJob>,
        threads: usize,
        closure: F,
    ) -> Result<T, JobError<E>>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let start = Arc::new(Start::new(Arc::clone(&self.meter)));
        let caller = Caller(Arc::clone(&start));
        let (reply, mut answer) = oneshot::channel();
        if let Err(refused) = queue.push(Box::new(Call { start, closure, reply })) {
            let error = match refused {
                Refused::Full => PoolError::TooManyWaiters { limit: self.config.max_waiters },
                Refused::Closed => PoolError::Closed,
            };
            caller.0.settle(Outcome::of(&error));
            return Err(JobError::Pool(error));
        }
        let answer = match timeout(self.config.acquire_timeout, &mut answer).await {
            Ok(answer) => answer,
            Err(_elapsed) if caller.0.settle(Outcome::TimedOut) => {
                let waited = self.config.acquire_timeout;
                let mut pool = PoolSnapshot::from(&self.stats());
                // Of the threads that this job could have run on.
                pool.max_size = threads;
                let error = PoolError::AcquireTimeout { waited, pool, cause: None };
                return Err(JobError::Pool(error));
            }
            // It has started, so its result counts.
            Err(_elapsed) => answer.await,
        };
        match answer {
            Ok(Ok(result)) => result.map_err(JobError::Job),
            Ok(Err(error)) => Err(JobError::Pool(error)),
            // Only a thread that ended drops a job unanswered.
            Err(_gone) => Err(JobError::Pool(PoolError::Closed)),
        }
    }

    fn stats(&self) -> PoolStats {
        let mut stats = self.meter.snapshot();
        stats.size = *self.threads.borrow();
        stats.available = self.queues().map(|queue| queue.idle()).sum();
        stats.leased = stats.size.saturating_sub(stats.available);
        stats.max_size = self.config.readers + usize::from(self.writes.is_some());
        stats
    }

    fn queues(&self) -> impl Iterator<Item = &Arc<Queue<BoxJob>>> {
        [&self.reads].into_iter().chain(&self.writes)
    }

    fn close(&self) {
        self.queues().for_each(|queue| queue.close());
    }

    /// Turns away what waits. The threads that are left end after the job they run.
    fn abandon(&self) -> usize {
        let waiting: Vec<BoxJob> = self.queues().flat_map(|queue| queue.discard()).collect();
        let abandoned = waiting.len() + *self.threads.borrow();
        waiting.into_iter().for_each(|job| job.refuse(PoolError::Closed));
        abandoned
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for SqlitePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlitePool")
            .field("config", &self.inner.config)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Starts a thread and waits until its connection is open.
async fn start(
    name: &str,
    config: &SqliteConfig,
    writes: bool,
    queue: &Arc<Queue<BoxJob>>,
    threads: &watch::Sender<usize>,
) -> Result<(), PoolError> {
    let (opened, ready) = oneshot::channel();
    let (config, queue, threads) = (config.clone(), Arc::clone(queue), threads.clone());
    let run = move || {
        // Before the connection, so that it is closed when the thread no longer counts.
        let _alive = Alive::new(threads);
        let conn = match worker::open(&config, writes) {
            Ok(conn) => conn,
            Err(error) => return drop(opened.send(Err(PoolError::Sqlite(error)))),
        };
        if opened.send(Ok(())).is_err() {
            return;
        }
        if writes { worker::write(&conn, &queue) } else { worker::read(&conn, &queue) }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| PoolError::Connect(Arc::new(error)))?;
    ready.await.unwrap_or(Err(PoolError::Closed))
}

/// Counts a thread while it lives.
struct Alive(watch::Sender<usize>);

impl Alive {
    fn new(threads: watch::Sender<usize>) -> Self {
        threads.send_modify(|alive| *alive += 1);
        Self(threads)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_modify(|alive| *alive -= 1);
    }
}
