//! Short reads on their caller's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use escala_pool::sqlite::rusqlite::Connection;
use escala_pool::{PoolError, PoolStats, SqliteConfig, SqlitePool};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::{block, file, insert, open};
use crate::scripted::assert_adds_up;

const LOOKUP: &str = "select count(*) from t where id = ?1";
/// As long as its value says.
const COUNT: &str = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1) \
                     select max(i) from n";

/// Reads until a read ran on this thread; a busy machine may delay that.
async fn learn(pool: &SqlitePool, sql: &str) {
    let before = pool.stats().inline_total;
    while pool.stats().inline_total == before {
        pool.query_one(sql, &[&3]).await.unwrap();
    }
}

/// A thread answers before it is idle again.
async fn all_idle(pool: &SqlitePool) -> PoolStats {
    let idle = async {
        while pool.stats().available < 3 {
            yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), idle).await.unwrap();
    pool.stats()
}

#[tokio::test]
async fn a_read_known_to_be_short_runs_on_its_callers_thread() {
    let (_folder, path) = file();
    let pool = open(&path).await;
    learn(&pool, LOOKUP).await;
    let before = pool.stats();
    for id in 0..100 {
        pool.write(move |tx| insert(tx, id)).await.unwrap();
        let row = pool.query_one(LOOKUP, &[&id]).await.unwrap();
        assert_eq!(row.get::<i64>(0), 1, "it sees what was acknowledged");
    }
    let after = all_idle(&pool).await;
    assert!(after.inline_total > before.inline_total);
    // Each is one job, wherever it ran.
    assert_eq!(after.started_total - before.started_total, 200);
    assert_eq!((after.leased, after.waiting), (0, 0));
    assert_adds_up(&after);
    // An error is the one that a reader would give.
    let error = pool.query_one("select id from t where id = ?1", &[&-1]).await.unwrap_err();
    assert!(matches!(error, PoolError::RowCount { found: 0 }), "{error}");
}

#[tokio::test]
async fn a_read_that_turns_out_to_be_long_is_ended_and_run_on_a_reader() {
    let (_folder, path) = file();
    let pool = open(&path).await;
    let (before, after) = loop {
        learn(&pool, COUNT).await;
        let before = pool.stats();
        let row = pool.query_one(COUNT, &[&50_000]).await.unwrap();
        assert_eq!(row.get::<i64>(0), 50_000);
        let after = pool.stats();
        // On a busy machine the last one here took so long that this one was not tried.
        if after.moved_total > before.moved_total {
            break (before, after);
        }
    };
    assert_eq!(after.inline_total, before.inline_total);
    assert_eq!(after.started_total - before.started_total, 1);
    // The next goes to a reader at once, and after a short one it is tried again.
    pool.query_one(COUNT, &[&50_000]).await.unwrap();
    assert_eq!(pool.stats().moved_total, after.moved_total);
    learn(&pool, COUNT).await;
    assert_adds_up(&pool.stats());
}

#[tokio::test]
async fn nobody_overtakes_those_who_wait() {
    let (_folder, path) = file();
    open(&path).await.close().await;
    let pool = SqlitePool::open(SqliteConfig::new(&path).readers(1)).await.unwrap();
    learn(&pool, LOOKUP).await;
    let before = pool.stats().inline_total;
    let hold = block(&pool, false).await;
    let read = pool.query_one(LOOKUP, &[&1]);
    let (read, ()) = tokio::join!(read, async {
        assert_eq!(pool.stats().waiting, 1, "the only reader is in use");
        drop(hold);
    });
    read.unwrap();
    assert_eq!(pool.stats().inline_total, before);
}

#[tokio::test]
async fn a_task_that_only_reads_lets_others_run() {
    let (_folder, path) = file();
    let pool = open(&path).await;
    learn(&pool, LOOKUP).await;
    let done = Arc::new(AtomicBool::new(false));
    let other = Arc::clone(&done);
    // On the same thread.
    tokio::spawn(async move { other.store(true, Ordering::Relaxed) });
    let reads = async {
        while !done.load(Ordering::Relaxed) {
            pool.query_one(LOOKUP, &[&1]).await.unwrap();
        }
    };
    timeout(Duration::from_secs(10), reads).await.unwrap();
}

#[tokio::test]
async fn a_short_read_leaves_no_transaction_open() {
    let (_folder, path) = file();
    let pool = open(&path).await;
    learn(&pool, LOOKUP).await;
    while pool.stats().moved_total == 0 {
        learn(&pool, COUNT).await;
        pool.query_one(COUNT, &[&50_000]).await.unwrap();
    }
    pool.write(|tx| insert(tx, 1)).await.unwrap();
    let other = Connection::open(&path).unwrap();
    let busy = "pragma wal_checkpoint(truncate)";
    let busy: i64 = other.query_row(busy, [], |row| row.get(0)).unwrap();
    assert_eq!(busy, 0, "a reader would keep the log");
}

#[tokio::test]
async fn after_close_nothing_runs_here() {
    let (_folder, path) = file();
    let pool = open(&path).await;
    learn(&pool, LOOKUP).await;
    assert_eq!(pool.close().await.abandoned, 0);
    let error = pool.query_one(LOOKUP, &[&1]).await.unwrap_err();
    assert!(matches!(error, PoolError::Closed), "{error}");
    assert_adds_up(&pool.stats());
}

#[tokio::test]
async fn all_reads_go_to_readers_when_it_is_turned_off() {
    let (_folder, path) = file();
    open(&path).await.close().await;
    let pool = SqlitePool::open(SqliteConfig::new(&path).inline_steps(0)).await.unwrap();
    for id in 0..20 {
        pool.query_one(LOOKUP, &[&id]).await.unwrap();
    }
    assert_eq!((pool.stats().inline_total, pool.stats().acquired_total), (0, 20));
    let config = SqliteConfig::new(&path).inline_steps(100_001);
    assert!(config.validate().unwrap_err().to_string().starts_with("inline_steps"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_that_read_here_and_on_readers_all_see_their_own_writes() {
    let (_folder, path) = file();
    let pool = open(&path).await;
    learn(&pool, LOOKUP).await;
    let tasks: Vec<_> = (0..64_i64)
        .map(|task| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for round in 0..20 {
                    let id = task * 100 + round;
                    pool.write(move |tx| insert(tx, id)).await?;
                    let found = pool.query_one(LOOKUP, &[&id]).await?.get::<i64>(0);
                    let counted = pool.query_one(COUNT, &[&(1 + id % 500)]).await?;
                    assert_eq!((found, counted.get::<i64>(0)), (1, 1 + id % 500));
                }
                Ok::<_, PoolError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let stats = all_idle(&pool).await;
    assert!(stats.inline_total > 0);
    assert_eq!(stats.waiting, 0);
    assert_adds_up(&stats);
    assert_eq!(pool.close().await.abandoned, 0);
}
