//! The threads: readers run one job at a time, the writer runs a group and commits once.

use std::iter;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::time::Instant;

use super::brief::Brief;
use super::busy::Patience;
use super::checkpoint::Checkpoints;
use super::config::SqliteConfig;
use super::job::{BoxJob, Done};
use super::queue::{Queue, Taken};
use crate::error::{Cause, PoolError};
use crate::stats::{PoolSnapshot, PoolStats};

/// Jobs in one transaction. At some microseconds a job this bounds what the first one waits for
/// the last; larger groups gain little, since the commit is shared by 256 already.
const GROUP: usize = 256;

/// The pause before what SQLite does not wait for is tried again.
const AGAIN: Duration = Duration::from_millis(5);

/// A connection, with what belongs to it wherever it is used.
pub(super) struct Session {
    pub(super) conn: Connection,
    /// Keeps a read short. The writer's session has none, nor has any if all reads go to threads.
    pub(super) brief: Option<Brief>,
}

/// What waits for the readers, or for the writer.
pub(super) type Jobs = Queue<BoxJob, Session>;

/// Opens the session of a thread that reads.
pub(super) fn open_reader(config: &SqliteConfig) -> rusqlite::Result<Session> {
    let (mut conn, patience) = open(config, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // Opening does not touch the file, and a missing table is not found before it is read.
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let brief = Brief::install(&mut conn, patience, config)?;
    Ok(Session { conn, brief })
}

/// Opens the session of the writer.
pub(super) fn open_writer(config: &SqliteConfig) -> rusqlite::Result<(Session, Checkpoints)> {
    let access = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let (mut conn, patience) = open(config, access)?;
    // Readers and the writer do not block each other.
    while_busy(config.busy_timeout, || {
        conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
    })?;
    conn.execute_batch(&format!(
        "PRAGMA synchronous = {}; PRAGMA journal_size_limit = {}; PRAGMA foreign_keys = ON;",
        config.synchronous.pragma(),
        config.max_log,
    ))?;
    // Whoever has never read does not remove the log when the last connection is closed.
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let checkpoints = Checkpoints::new(&mut conn, config, patience)?;
    Ok((Session { conn, brief: None }, checkpoints))
}

fn open(config: &SqliteConfig, access: OpenFlags) -> rusqlite::Result<(Connection, Patience)> {
    // Without the `URI` flag a path is a path, and without a mutex since one thread at a time uses
    // it.
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(&config.path, flags)?;
    let patience = Patience::install(&mut conn, config.busy_timeout)?;
    conn.set_prepared_statement_cache_capacity(config.statement_cache);
    conn.execute_batch(&format!(
        "PRAGMA cache_size = -{}; PRAGMA mmap_size = {}; PRAGMA temp_store = {};",
        config.cache_size / 1024,
        config.mmap_size,
        if config.temp_in_memory { "MEMORY" } else { "DEFAULT" },
    ))?;
    Ok((conn, patience))
}

/// Tries until another process lets go: SQLite does not wait for some locks, lest two processes
/// wait for each other.
fn while_busy<T>(
    longest: Duration,
    mut attempt: impl FnMut() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let deadline = Instant::now() + longest;
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && Instant::now() < deadline => sleep(AGAIN),
            result => return result,
        }
    }
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}

/// Runs jobs until the queue is closed and empty.
pub(super) fn read(mut session: Session, queue: &Jobs) {
    let _broken = CloseOnPanic(queue);
    while let Ok(Taken { job, session: taken, .. }) = queue.pop(session) {
        session = taken;
        if job.claim() {
            let done = job.run(&session.conn);
            // A transaction left open would show the next job an old state for ever.
            rollback(&session.conn);
            done.answer(Ok(()));
        } else {
            job.skip();
        }
    }
}

/// Commits groups of jobs until the queue is closed and empty; gives the session back.
pub(super) fn write(
    mut session: Session,
    mut checkpoints: Checkpoints,
    config: &SqliteConfig,
    queue: &Jobs,
) -> Session {
    let _broken = CloseOnPanic(queue);
    let mut done = Vec::with_capacity(GROUP);
    // Jobs that are still to run alone.
    let mut alone = 0_usize;
    loop {
        let Taken { job: first, session: taken, behind } = match queue.pop(session) {
            Ok(taken) => taken,
            Err(session) => return session,
        };
        session = taken;
        let conn = &session.conn;
        // What comes meanwhile is of the next group. What waits stays in the queue until its turn,
        // where it can be turned away.
        let most = if alone > 0 { 0 } else { behind.min(GROUP - 1) };
        alone = alone.saturating_sub(1);
        let others = (0..most).map_while(|_| queue.try_pop());
        let committed =
            run_group(conn, config.busy_timeout, iter::once(first).chain(others), &mut done);
        let shared = done.len() > 1;
        if shared && committed.as_ref().is_err_and(is_constraint) {
            // Those who try again are not to meet the one that was at fault in one group again.
            alone = GROUP;
        }
        for job in done.drain(..) {
            job.answer(match &committed {
                Ok(()) => Ok(()),
                Err(error) => Err(uncommitted(error, shared)),
            });
        }
        checkpoints.run(conn);
    }
}

/// A thread that unwinds leaves its queue closed and empty: nobody would come for what is in it.
struct CloseOnPanic<'a>(&'a Jobs);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
            self.0.discard().into_iter().for_each(|job| job.refuse(PoolError::Closed));
        }
    }
}

/// Runs a group in one transaction. Whoever is in `done` waits for the result of the commit.
fn run_group(
    conn: &Connection,
    busy_timeout: Duration,
    mut group: impl Iterator<Item = BoxJob>,
    done: &mut Vec<Done>,
) -> rusqlite::Result<()> {
    while let Some(job) = group.next() {
        if !job.is_wanted() {
            job.skip();
            continue;
        }
        // Immediate: a transaction that reads first and writes later would fail at once when
        // another process wrote in between, without waiting for `busy_timeout`.
        if conn.is_autocommit()
            && let Err(error) = conn.execute_batch("BEGIN IMMEDIATE")
        {
            if is_busy(&error) {
                // The others of the group have waited as long.
                let locked: Vec<BoxJob> = iter::once(job).chain(group).collect();
                refuse_locked(locked, busy_timeout, &error);
                break;
            }
            job.refuse(PoolError::Sqlite(error));
            continue;
        }
        if !job.claim() {
            job.skip();
            continue;
        }
        match run_one(conn, job) {
            Ok(job) => done.push(job),
            Err(job) => {
                for job in done.drain(..).chain([job]) {
                    job.answer(Err(PoolError::GroupEnded));
                }
            }
        }
    }
    if conn.is_autocommit() {
        return Ok(());
    }
    let committed = execute(conn, "COMMIT");
    rollback(conn);
    committed
}

/// What a job is told whose commit failed. A constraint that is checked at the commit says nothing
/// about one job of several: SQLite does not tell which of them broke it.
fn uncommitted(error: &rusqlite::Error, shared: bool) -> PoolError {
    if shared && is_constraint(error) {
        PoolError::GroupFailed(copy(error))
    } else {
        PoolError::Sqlite(copy(error))
    }
}

fn is_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}

/// Another process kept the lock: it is as if the one connection that writes stayed in use.
fn refuse_locked(jobs: Vec<BoxJob>, waited: Duration, error: &rusqlite::Error) {
    let mut stats = PoolStats::default();
    (stats.size, stats.max_size, stats.leased, stats.waiting) = (1, 1, 1, jobs.len());
    let pool = PoolSnapshot::from(&stats);
    for job in jobs {
        let cause: Option<Cause> = Some(Arc::new(copy(error)));
        job.refuse(PoolError::AcquireTimeout { waited, pool, cause });
    }
}

/// Runs a job in a savepoint of its own, under a name that no closure uses: SQLite goes back to the
/// last one of a name, which would be one that the closure left open. `Err` if the transaction is gone: the job ended it, or an
/// error such as a full disk made SQLite roll it back.
fn run_one(conn: &Connection, job: BoxJob) -> Result<Done, Done> {
    let opened = execute(conn, "SAVEPOINT escala_pool_job");
    let job = job.run(conn);
    let undone = if job.keep { Ok(()) } else { execute(conn, "ROLLBACK TO escala_pool_job") };
    match opened.and(undone).and_then(|()| execute(conn, "RELEASE escala_pool_job")) {
        Ok(()) if !conn.is_autocommit() => Ok(job),
        _ => {
            rollback(conn);
            Err(job)
        }
    }
}

/// Ends a transaction that is open; what fails here fails in the next `BEGIN` too.
fn rollback(conn: &Connection) {
    if !conn.is_autocommit() {
        drop(execute(conn, "ROLLBACK"));
    }
}

fn execute(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}

/// The same error for every job of a group; SQLite's own is the only kind that can be.
fn copy(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, text) => {
            rusqlite::Error::SqliteFailure(*code, text.clone())
        }
        other => rusqlite::Error::ToSqlConversionFailure(other.to_string().into()),
    }
}
