//! SQLite files: groups of writes, what closures do wrong, the end.

mod files;
mod inline;
mod verbs;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use escala_pool::sqlite::rusqlite::{self, Connection};
use escala_pool::{JobError, PoolError, PoolEvent, SqliteConfig, SqlitePool};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::scripted::assert_adds_up;

fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    (folder, path)
}

async fn open(path: &Path) -> SqlitePool {
    let pool = SqlitePool::open(SqliteConfig::new(path)).await.unwrap();
    pool.write(|tx| tx.execute_batch("create table if not exists t (id integer primary key)"))
        .await
        .unwrap();
    pool
}

fn insert(tx: &Connection, id: i64) -> rusqlite::Result<i64> {
    tx.prepare_cached("insert into t values (?1)")?.execute([id])?;
    Ok(id)
}

fn count(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("select count(*) from t")?.query_row([], |row| row.get(0))
}

/// Occupies a thread until the sender is dropped; returns when it has begun.
async fn block(pool: &SqlitePool, writer: bool) -> mpsc::Sender<()> {
    let (hold, released) = mpsc::channel::<()>();
    let (begun, begins) = tokio::sync::oneshot::channel();
    let pool = pool.clone();
    let wait = move |_: &Connection| -> rusqlite::Result<()> {
        begun.send(()).unwrap();
        // An error: the sender is gone.
        assert!(released.recv().is_err());
        Ok(())
    };
    tokio::spawn(
        async move { if writer { pool.write(wait).await } else { pool.read(wait).await } },
    );
    begins.await.unwrap();
    hold
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_read_and_write_and_each_sees_its_own_write() {
    let (_folder, path) = file();
    let pool = open(&path).await;
    // Another process would lock the file just so.
    let other = open(&path).await;
    let tasks: Vec<_> = (0..64_i64)
        .map(|task| {
            let (pool, other) = (pool.clone(), other.clone());
            tokio::spawn(async move {
                for round in 0..20 {
                    let id = task * 100 + round;
                    let writer = if round % 5 == 0 { &other } else { &pool };
                    // A transaction that reads first keeps the state it saw, which the other pool
                    // makes old unless the lock was taken at the beginning.
                    writer.write(move |tx| count(tx).and_then(|_| insert(tx, id))).await?;
                    let reader = if round % 2 == 0 { &other } else { &pool };
                    let found: bool = reader
                        .read(move |conn| {
                            conn.prepare_cached("select 1 from t where id = ?1")?.exists([id])
                        })
                        .await?;
                    assert!(found, "an acknowledged write is seen");
                }
                Ok::<_, PoolError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(pool.read(count).await.unwrap(), 64 * 20);
    assert_adds_up(&pool.stats());
}

#[derive(Debug, PartialEq)]
enum Domain {
    NoFunds,
    Down,
}

impl From<rusqlite::Error> for Domain {
    fn from(_: rusqlite::Error) -> Self {
        Self::Down
    }
}

impl From<PoolError> for Domain {
    fn from(_: PoolError) -> Self {
        Self::Down
    }
}

#[tokio::test]
async fn a_closure_that_fails_or_panics_rolls_back_itself_only() {
    let (_folder, path) = file();
    let pool = open(&path).await;
    // While the writer is held, the jobs gather into one group.
    let hold = block(&pool, true).await;
    let good = pool.write(|tx| insert(tx, 1));
    let refused = pool.write(|tx| {
        insert(tx, 2)?;
        Err::<(), _>(Domain::NoFunds)
    });
    let panicked = pool.write(|tx| -> rusqlite::Result<()> {
        insert(tx, 3)?;
        panic!("on purpose")
    });
    let failed = pool.write(|tx| insert(tx, 1));
    let last = pool.write(|tx| insert(tx, 5));
    let (good, refused, panicked, failed, last, ()) =
        tokio::join!(good, refused, panicked, failed, last, async { drop(hold) });
    assert_eq!((good.unwrap(), last.unwrap()), (1, 5));
    assert_eq!(refused.unwrap_err().flatten(), Domain::NoFunds);
    let error = PoolError::from(panicked.unwrap_err());
    assert_eq!(error.to_string(), "the closure panicked: on purpose");
    let error = PoolError::from(failed.unwrap_err());
    assert!(error.source().unwrap().is::<rusqlite::Error>());
    assert!(!error.is_connection() && !error.is_retryable());
    let ids: String = pool
        .read(|conn| conn.query_row("select group_concat(id) from t", [], |row| row.get(0)))
        .await
        .unwrap();
    assert_eq!(ids, "1,5");
}

#[tokio::test]
async fn a_panic_on_a_reader_is_contained() {
    let (_folder, path) = file();
    let pool = SqlitePool::open(SqliteConfig::new(&path).readers(1)).await.unwrap();
    let error = pool.read(|_| -> rusqlite::Result<()> { panic!("on purpose") }).await.unwrap_err();
    assert!(matches!(error, JobError::Pool(PoolError::Panicked { .. })), "{error}");
    let one: i64 =
        pool.read(|conn| conn.query_row("select 1", [], |row| row.get(0))).await.unwrap();
    assert_eq!((one, pool.stats().size), (1, 2));
}

#[tokio::test]
async fn a_closure_that_ends_the_shared_transaction_is_an_error_for_all_it_touched() {
    let (_folder, path) = file();
    let pool = open(&path).await;
    for (id, end) in [(1, "rollback"), (2, "rollback; savepoint escala_pool_job; select 1")] {
        let hold = block(&pool, true).await;
        let before = pool.write(|tx| insert(tx, 9));
        let rogue = pool.write(|tx| tx.execute_batch(end));
        let after = pool.write(move |tx| insert(tx, id));
        let (before, rogue, after, ()) = tokio::join!(before, rogue, after, async { drop(hold) });
        assert!(matches!(before, Err(JobError::Pool(PoolError::GroupEnded))), "{end}");
        assert!(matches!(rogue, Err(JobError::Pool(PoolError::GroupEnded))), "{end}");
        assert_eq!(after.unwrap(), id);
        assert_eq!(pool.read(count).await.unwrap(), id);
    }
}

#[tokio::test]
async fn a_deferred_constraint_blames_nobody_in_a_group_and_the_one_at_fault_alone() {
    let (_folder, path) = file();
    let pool = open(&path).await;
    let child = "create table c (id integer references t (id) deferrable initially deferred)";
    pool.write(move |tx| tx.execute_batch(child)).await.unwrap();
    let orphan = |tx: &Connection| tx.execute("insert into c values (7)", []);
    let hold = block(&pool, true).await;
    let (good, bad) = (pool.write(|tx| insert(tx, 1)), pool.write(orphan));
    let (good, bad, ()) = tokio::join!(good, bad, async { drop(hold) });
    for error in [PoolError::from(good.unwrap_err()), PoolError::from(bad.unwrap_err())] {
        assert!(matches!(error, PoolError::GroupFailed(_)), "{error:?}");
        assert!(error.is_retryable() && !error.is_data() && !error.is_connection());
        assert!(error.source().unwrap().is::<rusqlite::Error>());
    }
    assert_eq!(pool.read(count).await.unwrap(), 0);
    // Tried again at the same time, they do not meet.
    let hold = block(&pool, true).await;
    let (good, bad) = (pool.write(|tx| insert(tx, 1)), pool.write(orphan));
    let (good, bad, ()) = tokio::join!(good, bad, async { drop(hold) });
    assert_eq!(good.unwrap(), 1);
    let error = PoolError::from(bad.unwrap_err());
    assert!(error.is_data() && !error.is_retryable(), "{error:?}");
    assert_eq!(pool.read(count).await.unwrap(), 1);
}

#[tokio::test]
async fn a_closure_that_fails_with_a_savepoint_open_keeps_nothing() {
    let (_folder, path) = file();
    let pool = open(&path).await;
    for name in ["job", "x"] {
        let failed = pool.write(move |tx| {
            insert(tx, 1)?;
            tx.execute_batch(&format!("savepoint {name}"))?;
            insert(tx, 1).map(drop)
        });
        failed.await.unwrap_err();
        assert_eq!(pool.read(count).await.unwrap(), 0, "{name}");
    }
    pool.write(|tx| insert(tx, 2)).await.unwrap();
}

#[tokio::test]
async fn a_reader_left_in_a_transaction_does_not_show_old_rows() {
    let (_folder, path) = file();
    open(&path).await.close().await;
    let pool = SqlitePool::open(SqliteConfig::new(&path).readers(1)).await.unwrap();
    pool.read(|conn| {
        conn.execute_batch("begin")?;
        count(conn)
    })
    .await
    .unwrap();
    pool.write(|tx| insert(tx, 1)).await.unwrap();
    assert_eq!(pool.read(count).await.unwrap(), 1);
}

#[tokio::test]
async fn a_job_whose_caller_left_before_it_started_is_skipped() {
    let (_folder, path) = file();
    let pool = open(&path).await;
    let hold = block(&pool, true).await;
    let write = pool.write(|tx| insert(tx, 1));
    assert!(timeout(Duration::from_millis(10), write).await.is_err());
    assert_eq!(pool.stats().cancelled_total, 1);
    drop(hold);
    pool.write(|tx| insert(tx, 2)).await.unwrap();
    assert_eq!(pool.read(count).await.unwrap(), 1);
    assert_adds_up(&pool.stats());
}

#[tokio::test]
async fn a_job_that_waits_too_long_or_behind_too_many_is_refused() {
    let (_folder, path) = file();
    let config = SqliteConfig::new(&path).readers(1).max_waiters(1);
    let config = config.acquire_timeout(Duration::from_millis(500));
    let pool = SqlitePool::open(config).await.unwrap();
    let hold = block(&pool, false).await;
    let job = |conn: &Connection| conn.query_row("select 1", [], |row| row.get::<_, i64>(0));
    let (first, second) = tokio::join!(pool.read(job), pool.read(job));
    let first = PoolError::from(first.unwrap_err());
    assert!(matches!(first, PoolError::AcquireTimeout { .. }), "{first}");
    let second = PoolError::from(second.unwrap_err());
    assert!(matches!(second, PoolError::TooManyWaiters { limit: 1 }), "{second}");
    assert!(first.is_saturated() && second.is_saturated());
    drop(hold);
    let stats = pool.stats();
    assert_eq!((stats.timed_out_total, stats.rejected_total, stats.waiting), (1, 1, 0));
    assert_adds_up(&stats);
    // The job that timed out still fills the queue until the thread skips it.
    while pool.stats().available < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(pool.read(job).await.unwrap(), 1);
}

#[tokio::test]
async fn a_pool_without_a_writer_follows_another_and_cannot_write() {
    let (_folder, path) = file();
    let writer = open(&path).await;
    let config = SqliteConfig::new(&path).readers(1).read_only();
    let reader = SqlitePool::open(config).await.unwrap();
    assert_eq!(reader.stats().max_size, 1);
    for id in 1..=20 {
        writer.write(move |tx| insert(tx, id)).await.unwrap();
        assert_eq!(reader.read(count).await.unwrap(), id);
    }
    let error = PoolError::from(reader.write(|tx| insert(tx, 99)).await.unwrap_err());
    assert!(matches!(error, PoolError::ReadOnly), "{error}");
    let error = PoolError::from(reader.read(|conn| insert(conn, 99)).await.unwrap_err());
    assert!(matches!(error, PoolError::Sqlite(_)), "{error}");
}

#[tokio::test]
async fn close_finishes_what_was_accepted() {
    let (_folder, path) = file();
    let pool = open(&path).await;
    let hold = block(&pool, true).await;
    let waiting = pool.write(|tx| insert(tx, 1));
    let (written, report, ()) = tokio::join!(waiting, pool.close(), async { drop(hold) });
    assert_eq!((written.unwrap(), report.abandoned), (1, 0));
    assert_eq!(pool.stats().size, 0);
    let error = PoolError::from(pool.read(count).await.unwrap_err());
    assert!(matches!(error, PoolError::Closed) && error.is_connection());
    assert_eq!(open(&path).await.read(count).await.unwrap(), 1);
}

#[tokio::test]
async fn close_gives_up_at_its_deadline_and_says_what_is_left() {
    let (_folder, path) = file();
    let config = SqliteConfig::new(&path).close_timeout(Duration::from_secs(1));
    let pool = SqlitePool::open(config).await.unwrap();
    let hold = block(&pool, true).await;
    let waiting = pool.write(|tx| tx.execute_batch("create table u (id)"));
    let (waited, report) = tokio::join!(waiting, pool.close());
    assert!(matches!(waited, Err(JobError::Pool(PoolError::Closed))));
    // The job that waits and the writer that runs.
    assert_eq!(report.abandoned, 2);
    drop(hold);
    assert_eq!(pool.close().await.abandoned, 0);
    assert_adds_up(&pool.stats());
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_says_why() {
    let (folder, path) = file();
    let error = SqlitePool::open(SqliteConfig::new(&path).read_only()).await.unwrap_err();
    assert!(matches!(error, PoolError::Sqlite(_)) && error.is_connection(), "{error:?}");
    std::fs::write(&path, "this is no database, only text of some length").unwrap();
    let error = SqlitePool::open(SqliteConfig::new(&path)).await.unwrap_err();
    assert!(error.is_connection(), "{error:?}");
    for (config, field) in [
        (SqliteConfig::new(":memory:"), "path"),
        (SqliteConfig::new(folder.path().join("x")).readers(0), "readers"),
    ] {
        let error = SqlitePool::open(config).await.unwrap_err();
        assert!(error.source().unwrap().to_string().starts_with(field), "{error:?}");
    }
}

#[tokio::test]
async fn close_turns_away_at_its_deadline_what_waits_behind_a_closure_that_runs() {
    let (_folder, path) = file();
    let config = SqliteConfig::new(&path).close_timeout(Duration::from_secs(1));
    let pool = SqlitePool::open(config).await.unwrap();
    let first = block(&pool, true).await;
    // These become one group, whose first closure does not end.
    let (hold, released) = mpsc::channel::<()>();
    let (begun, begins) = tokio::sync::oneshot::channel();
    let stuck = pool.write(move |_| -> rusqlite::Result<()> {
        begun.send(()).unwrap();
        assert!(released.recv().is_err());
        Ok(())
    });
    let behind = pool.write(|tx| tx.execute_batch("create table u (id)"));
    let ends = async {
        drop(first);
        begins.await.unwrap();
        pool.close().await.abandoned
    };
    let refused_first = async {
        let (behind, abandoned) = tokio::join!(behind, ends);
        drop(hold);
        (behind, abandoned)
    };
    let both = async { tokio::join!(stuck, refused_first) };
    let (stuck, (behind, abandoned)) = timeout(Duration::from_secs(30), both).await.unwrap();
    stuck.unwrap();
    assert!(matches!(behind, Err(JobError::Pool(PoolError::Closed))));
    // The job that waits and the writer that runs.
    assert_eq!(abandoned, 2);
    assert_adds_up(&pool.stats());
}

#[tokio::test]
async fn the_hook_is_told_of_waits_holds_and_refusals() {
    let (_folder, path) = file();
    type Line = (&'static str, Duration, &'static str);
    let log: Arc<Mutex<Vec<Line>>> = Arc::default();
    let told = Arc::clone(&log);
    let hook = move |event: &PoolEvent<'_>| {
        let (what, took, place) = match event {
            PoolEvent::Acquired { waited, place } => ("acquired", *waited, place),
            PoolEvent::AcquireFailed { waited, place, error } => {
                assert!(error.is_saturated());
                ("failed", *waited, place)
            }
            PoolEvent::Returned { held, place } => ("returned", *held, place),
            other => unreachable!("{other:?}"),
        };
        told.lock().push((what, took, place.file()));
        panic!("on purpose");
    };
    let config = SqliteConfig::new(&path).readers(1).acquire_timeout(Duration::from_millis(500));
    let pool = SqlitePool::builder(config).on_event(hook).open().await.unwrap();
    let hold = block(&pool, false).await;
    let late = pool.query_one("select 1", &[]).await.unwrap_err();
    assert!(late.is_timeout());
    drop(hold);
    for _ in 0..200 {
        pool.query_one("select 1", &[]).await.unwrap();
    }
    assert_eq!(pool.close().await.abandoned, 0);
    let log = log.lock();
    let count = |what| log.iter().filter(|line| line.0 == what).count() as u64;
    let stats = pool.stats();
    // 200 reads and the one that blocked the reader.
    assert_eq!((count("acquired"), count("failed"), count("returned")), (201, 1, 201));
    assert_eq!(stats.acquired_total, 201);
    assert!(log[0].2.ends_with("sqlite.rs"), "where `read` was called: {}", log[0].2);
    let failed = log.iter().find(|line| line.0 == "failed").unwrap();
    assert!(failed.1 >= Duration::from_millis(500), "{failed:?}");
    // The blocked read held its thread for as long as the other waited.
    assert!(stats.hold_seconds_total >= 0.5, "{stats:?}");
    let held: Duration = log.iter().filter(|line| line.0 == "returned").map(|line| line.1).sum();
    assert!((held.as_secs_f64() - stats.hold_seconds_total).abs() < 1e-6);
    assert_adds_up(&stats);
}

/// Panics when it is dropped.
struct Brittle;

impl Drop for Brittle {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

#[tokio::test]
async fn what_panics_when_a_closure_is_dropped_unrun_stays_inside() {
    let (_folder, path) = file();
    let pool = open(&path).await;
    let hold = block(&pool, true).await;
    let brittle = Brittle;
    let skipped = pool.write(move |_| -> rusqlite::Result<()> {
        std::mem::forget(brittle);
        Ok(())
    });
    assert!(timeout(Duration::from_millis(10), skipped).await.is_err());
    // The answer of one that runs, whose caller has left.
    let (begun, begins) = tokio::sync::oneshot::channel();
    let (left, leaves) = mpsc::channel::<()>();
    let mut unseen = Box::pin(pool.write(move |_| -> rusqlite::Result<Brittle> {
        begun.send(()).unwrap();
        assert!(leaves.recv().is_err());
        Ok(Brittle)
    }));
    drop(hold);
    tokio::select! {
        _ = &mut unseen => unreachable!("it waits for the caller to leave"),
        begun = begins => begun.unwrap(),
    }
    drop(unseen);
    drop(left);
    assert_eq!(pool.write(|tx| insert(tx, 1)).await.unwrap(), 1);
    assert_eq!(pool.stats().size, 3);
}
