//! Embedded SQLite: threads that read beside one that writes.
//!
//! A closure goes to a thread and its result comes back; the async caller never blocks. The writer
//! runs whatever waits in one transaction and commits once, so many small writes cost as much as
//! one; each closure still succeeds or fails by itself.

mod backup;
mod brief;
mod busy;
mod checkpoint;
mod config;
mod error;
mod job;
mod meter;
mod queue;
mod row;
mod verbs;
mod worker;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
pub use rusqlite;
use rusqlite::Connection;
pub use rusqlite::ToSql;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::timeout;

use self::brief::Inline;
pub use self::config::{SqliteConfig, Synchronous};
pub use self::error::JobError;
use self::job::{BoxJob, Call, Caller, Start};
use self::meter::Meter;
use self::queue::{Queue, Refused};
pub use self::row::{Column, SqliteRow};
pub use self::verbs::Params;
use self::worker::Jobs;
use crate::error::PoolError;
use crate::event::{self, Hook, PoolEvent};
use crate::pool::CloseReport;
use crate::stats::{PoolSnapshot, PoolStats};

/// One SQLite file with its threads. Clones share it; the threads end with the last clone.
///
/// The verbs [`query`](Self::query) and [`execute`](Self::execute) and their like run one statement,
/// as those of the PostgreSQL pool do. [`write`](Self::write) is the transaction: its closure holds
/// the writer, sees what it has written, and is committed or rolled back as a whole.
/// [`read`](Self::read) is for several reads, or one whose rows should not be copied.
///
/// # Guarantees
/// A read sees every write of this process that was acknowledged before the read was submitted,
/// also through another pool on the same file. A caller whose write succeeded is answered after
/// the commit; what that survives depends on [`Synchronous`].
///
/// # Cost
/// A call goes to a thread and back, which takes as long as two threads take to wake: 6 to 25 µs
/// beside SQLite's own 3 µs for a point read. (A thread that looks for work for a while before it
/// sleeps was tried: it is slower as soon as the cores have something else to do.) So a `query*`
/// whose text is known to be short runs on the caller's thread, see
/// [`inline_steps`](SqliteConfig::inline_steps).
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
    reads: Arc<Jobs>,
    /// `None` in a pool that only reads.
    writes: Option<Arc<Jobs>>,
    /// `None` if all reads go to threads.
    inline: Option<Inline>,
    meter: Arc<Meter>,
    /// Threads alive.
    threads: watch::Receiver<usize>,
    /// One backup at a time.
    backups: Arc<Semaphore>,
    /// Tells a backup to end.
    closed: Arc<AtomicBool>,
}

impl SqlitePool {
    /// Opens the file and starts the threads.
    ///
    /// # Errors
    /// [`PoolError::Config`]; [`PoolError::Sqlite`] if the file cannot be opened;
    /// [`PoolError::Connect`] if a thread cannot be started.
    pub async fn open(config: SqliteConfig) -> Result<Self, PoolError> {
        Self::builder(config).open().await
    }

    /// A pool of its parts.
    pub fn builder(config: SqliteConfig) -> SqlitePoolBuilder {
        SqlitePoolBuilder { config, hook: None }
    }

    async fn open_with(config: SqliteConfig, hook: Option<Hook>) -> Result<Self, PoolError> {
        config.validate()?;
        let (count, alive) = watch::channel(0);
        let threads = Threads { count, last: Arc::default() };
        let queue = || Arc::new(Queue::new(config.max_waiters));
        // Made whole before the threads, so that a failure half-way ends those that run.
        let inner = Arc::new(Inner {
            reads: queue(),
            writes: (!config.read_only).then(queue),
            inline: Inline::new(config.inline_steps),
            meter: Arc::new(Meter::new(hook)),
            threads: alive,
            backups: Arc::new(Semaphore::new(1)),
            closed: Arc::default(),
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
    #[track_caller]
    pub fn read<T, E, F>(
        &self,
        closure: F,
    ) -> impl Future<Output = Result<T, JobError<E>>> + Send + use<'_, T, E, F>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let inner = &self.inner;
        inner.call(&inner.reads, inner.config.readers, closure, Location::caller())
    }

    /// Runs a closure as a transaction on the writer. It shares the commit with others, and must not
    /// end it; an `Err` rolls back what this closure wrote and nothing else.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`PoolError::ReadOnly`]; an error of the commit, which every
    /// closure of the group is told. If that is a deferred constraint, closures that shared the
    /// commit get [`PoolError::GroupFailed`], which may be tried again: nobody can say which of them
    /// broke it, so for a while each closure is committed alone.
    #[track_caller]
    pub fn write<T, E, F>(
        &self,
        closure: F,
    ) -> impl Future<Output = Result<T, JobError<E>>> + Send + use<'_, T, E, F>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let place = Location::caller();
        async move {
            let writes = self.inner.writes.as_ref().ok_or(JobError::Pool(PoolError::ReadOnly))?;
            self.inner.call(writes, 1, closure, place).await
        }
    }

    /// The figures of this moment.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.inner.stats()
    }

    /// Refuses new jobs and waits for those that wait and run, at most `close_timeout`; after that
    /// the jobs still waiting fail with [`PoolError::Closed`]. A backup under way is given up. May
    /// be called again.
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
        queue: &Jobs,
        threads: usize,
        closure: F,
        place: &'static Location<'static>,
    ) -> Result<T, JobError<E>>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let start = Arc::new(Start::new(Arc::clone(&self.meter), place));
        let caller = Caller(Arc::clone(&start));
        let (reply, mut answer) = oneshot::channel();
        if let Err(refused) = queue.push(Box::new(Call { start, closure, reply })) {
            let error = match refused {
                Refused::Full => PoolError::TooManyWaiters { limit: self.config.max_waiters },
                Refused::Closed => PoolError::Closed,
            };
            if caller.0.take() {
                caller.0.failed(&error);
            }
            return Err(JobError::Pool(error));
        }
        let answer = match timeout(self.config.acquire_timeout, &mut answer).await {
            Ok(answer) => answer,
            Err(_elapsed) if caller.0.take() => {
                let waited = self.config.acquire_timeout;
                let mut pool = PoolSnapshot::from(&self.stats());
                // Of the threads that this job could have run on.
                pool.max_size = threads;
                let error = PoolError::AcquireTimeout { waited, pool, cause: None };
                caller.0.failed(&error);
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

    fn queues(&self) -> impl Iterator<Item = &Arc<Jobs>> {
        [&self.reads].into_iter().chain(&self.writes)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.backups.close();
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

/// Makes a [`SqlitePool`].
#[must_use]
pub struct SqlitePoolBuilder {
    config: SqliteConfig,
    hook: Option<Hook>,
}

impl SqlitePoolBuilder {
    /// Calls `hook` with the waits of jobs and how long they held their thread, commit included:
    /// [`PoolEvent::Acquired`], [`AcquireFailed`](PoolEvent::AcquireFailed) and
    /// [`Returned`](PoolEvent::Returned), with the place of a [`read`](SqlitePool::read) or
    /// [`write`](SqlitePool::write), or that of the verb in this crate. It is called outside of all
    /// locks, mostly on the thread that serves all others, so it shall not block; a panic of it
    /// stays inside.
    pub fn on_event(mut self, hook: impl Fn(&PoolEvent<'_>) + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// As [`SqlitePool::open`].
    ///
    /// # Errors
    /// As there.
    pub async fn open(self) -> Result<SqlitePool, PoolError> {
        SqlitePool::open_with(self.config, self.hook).await
    }
}

impl fmt::Debug for SqlitePoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlitePoolBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What a thread does until its queue is closed.
type Work = Box<dyn FnOnce(&Alive)>;

/// Starts a thread and waits until its connection is open.
async fn start(
    name: &str,
    config: &SqliteConfig,
    writes: bool,
    queue: &Arc<Jobs>,
    threads: &Threads,
) -> Result<(), PoolError> {
    let (opened, ready) = oneshot::channel();
    let (config, queue) = (config.clone(), Arc::clone(queue));
    let alive = Alive::new(threads);
    let run = move || {
        let work: rusqlite::Result<Work> = if writes {
            worker::open_writer(&config).map(|(session, checkpoints)| -> Work {
                Box::new(move |alive| {
                    let session = worker::write(session, checkpoints, &config, &queue);
                    alive.close_last(session.conn);
                })
            })
        } else {
            worker::open_reader(&config)
                .map(|session| -> Work { Box::new(move |_| worker::read(session, &queue)) })
        };
        let (work, result) = match work {
            Ok(work) => (Some(work), Ok(())),
            Err(error) => (None, Err(PoolError::Sqlite(error))),
        };
        if opened.send(result).is_ok()
            && let Some(work) = work
        {
            work(&alive);
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| PoolError::Connect(Arc::new(error)))?;
    ready.await.unwrap_or(Err(PoolError::Closed))
}

/// The threads of a pool that are alive.
#[derive(Clone)]
struct Threads {
    count: watch::Sender<usize>,
    /// The writer's connection when the writer has ended before others.
    last: Arc<Mutex<Option<Connection>>>,
}

/// Counts a thread while it lives, with its connection.
struct Alive(Threads);

impl Alive {
    fn new(threads: &Threads) -> Self {
        threads.count.send_modify(|alive| *alive += 1);
        Self(threads.clone())
    }

    /// Leaves a connection to whichever thread ends last. SQLite moves the log into the database
    /// and removes it with the last connection, and one that only reads cannot do that.
    fn close_last(&self, conn: Connection) {
        *self.0.last.lock() = Some(conn);
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let mut last = false;
        self.0.count.send_modify(|alive| {
            last = *alive == 1;
            *alive -= usize::from(!last);
        });
        if last {
            // Closed before it no longer counts, and outside the locks: it moves the log into the
            // database, which takes its time.
            let conn = self.0.last.lock().take();
            drop(conn);
            self.0.count.send_modify(|alive| *alive -= 1);
        }
    }
}
