//! Single reads that share connections: everybody gets their own answer, and nobody waits for
//! somebody else's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use escala_pool::{PgPool, PoolConfig, PoolError};
use testkit::PgCluster;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{backend, cluster};
use crate::scripted::assert_adds_up;

const ECHO: &str = "select $1::int8";

async fn pool(pg: &PgCluster, max_size: usize, pipelines: usize) -> PgPool {
    let config = PoolConfig::new(pg.primary().url()).max_size(max_size).min_idle(0);
    PgPool::connect(config.pipelines(pipelines)).await.unwrap()
}

async fn echo(pool: &PgPool, value: i64) {
    let row = pool.query_one(ECHO, &[&value]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), value);
}

/// Reads at once until a pipeline serves them.
async fn open_pipeline(pool: &PgPool) {
    while pool.stats().pipelines == 0 {
        tokio::join!(echo(pool, 1), echo(pool, 2), echo(pool, 3));
    }
}

/// Waits until nobody uses a connection.
pub(super) async fn all_idle(pool: &PgPool) {
    let idle = async {
        loop {
            let stats = pool.stats();
            if stats.pipelines == 0 && stats.leased == 0 && stats.size == stats.available {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = timeout(Duration::from_secs(20), idle).await;
    assert!(waited.is_ok(), "{:?}", pool.stats());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_gets_their_own_answer() {
    let pg = cluster().await;
    let pool = pool(&pg, 10, 2).await;
    let mut tasks = JoinSet::new();
    for task in 0..64_i64 {
        let pool = pool.clone();
        tasks.spawn(async move {
            for round in 0..200 {
                echo(&pool, task * 1000 + round).await;
            }
        });
    }
    tasks.join_all().await;
    let stats = pool.stats();
    assert!(stats.pipelined_total > 6_000, "{stats:?}");
    assert_adds_up(&stats);
    all_idle(&pool).await;
    // Nobody finds a connection that refuses writes.
    let size = pool.stats().size;
    let mut held = Vec::new();
    for _ in 0..size {
        let lease = pool.acquire().await.unwrap();
        let row = lease.query_one("show default_transaction_read_only", &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "off");
        held.push(lease);
    }
}

#[tokio::test]
async fn a_lone_caller_opens_no_pipeline() {
    let pg = cluster().await;
    let pool = pool(&pg, 4, 2).await;
    for value in 0..50 {
        echo(&pool, value).await;
    }
    assert_eq!(pool.stats().pipelined_total, 0);
    assert_eq!(pool.stats().size, 1);
}

#[tokio::test]
async fn a_slow_statement_holds_nobody_up() {
    let pg = cluster().await;
    let pool = pool(&pg, 4, 1).await;
    open_pipeline(&pool).await;
    let before = pool.stats().pipelined_total;
    let slow = pool.query("select pg_sleep(5), 1", &[]);
    tokio::pin!(slow);
    // Sent, on the pipeline.
    assert!(timeout(Duration::from_millis(1), slow.as_mut()).await.is_err());
    assert_eq!(pool.stats().pipelined_total, before + 1);
    let began = Instant::now();
    let reads = async {
        for value in 0..20 {
            tokio::join!(echo(&pool, value), echo(&pool, -value));
        }
    };
    tokio::select! {
        _ = slow.as_mut() => unreachable!("it sleeps longer than all reads together"),
        () = reads => {}
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(pool.stats().moved_total > 0);
    // It began anew on a connection of its own, and the pipeline it left goes on.
    slow.await.unwrap();
    open_pipeline(&pool).await;
    // From now on it goes there at once.
    let before = pool.stats().pipelined_total;
    assert!(
        timeout(Duration::from_millis(20), pool.query("select pg_sleep(5), 1", &[])).await.is_err()
    );
    assert_eq!(pool.stats().pipelined_total, before);
    all_idle(&pool).await;
    assert_adds_up(&pool.stats());
}

#[tokio::test]
async fn a_write_inside_a_read_works_and_runs_once() {
    let pg = cluster().await;
    let pool = pool(&pg, 4, 1).await;
    pool.batch_execute(
        "create table t (id int8 primary key);
         create function put(int8) returns int8 language sql as
         'insert into t values ($1) returning id'",
    )
    .await
    .unwrap();
    open_pipeline(&pool).await;
    let put = "select put($1)";
    for id in 0..5_i64 {
        // Twice would be a duplicate key.
        assert_eq!(pool.query_one(put, &[&id]).await.unwrap().get::<_, i64>(0), id);
    }
    // Once, and once more if the server stood still so long meanwhile.
    let moved = pool.stats().moved_total;
    assert!((1..=2).contains(&moved), "{moved}: its text is known from then on");
    let with = "with new as (insert into t values ($1) returning id) select id from new";
    assert_eq!(pool.query_one(with, &[&7_i64]).await.unwrap().get::<_, i64>(0), 7);
    let locking = "select id from t where id = $1 for update";
    pool.query_one(locking, &[&7_i64]).await.unwrap();
    let count = pool.query_one("select count(*) from t", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 6);
}

#[tokio::test]
async fn who_holds_a_lock_can_read_next_to_those_who_wait_for_it() {
    let pg = cluster().await;
    let pool = pool(&pg, 10, 2).await;
    pool.batch_execute("create table a (id int8); create table b (id int8)").await.unwrap();
    open_pipeline(&pool).await;
    let mut tx = pool.begin().await.unwrap();
    tx.batch_execute("lock table a in access exclusive mode").await.unwrap();
    let mut blocked = JoinSet::new();
    for _ in 0..4 {
        let pool = pool.clone();
        blocked.spawn(async move { pool.query("select id from a", &[]).await.map(drop) });
    }
    // All of them wait at the server.
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
    while pg.sql(pg.primary(), waiting).await.unwrap() == "0" {
        sleep(Duration::from_millis(5)).await;
    }
    for value in 0..20 {
        let read = timeout(Duration::from_secs(3), echo(&pool, value)).await;
        assert!(read.is_ok(), "read {value} waits for the lock of its own caller");
        timeout(Duration::from_secs(3), pool.query("select id from b", &[]))
            .await
            .unwrap()
            .unwrap();
    }
    tx.commit().await.unwrap();
    for result in blocked.join_all().await {
        result.unwrap();
    }
    all_idle(&pool).await;
}

#[tokio::test]
async fn an_idle_pipeline_gives_way_to_who_wants_a_connection() {
    let pg = cluster().await;
    let config = PoolConfig::new(pg.primary().url()).max_size(2).min_idle(0).pipelines(1);
    let config = config.acquire_timeout(Duration::from_secs(5));
    let pool = PgPool::connect(config).await.unwrap();
    open_pipeline(&pool).await;
    let first = pool.acquire().await.unwrap();
    let second = pool.acquire().await.unwrap();
    for lease in [&first, &second] {
        lease.execute("create temp table t (id int)", &[]).await.unwrap();
    }
    assert_eq!(pool.stats().pipelines, 0);
}

#[tokio::test]
async fn a_paused_pool_serves_no_reads() {
    let pg = cluster().await;
    let pool = pool(&pg, 4, 1).await;
    open_pipeline(&pool).await;
    pool.pause();
    let read = echo(&pool, 1);
    tokio::pin!(read);
    assert!(timeout(Duration::from_millis(50), read.as_mut()).await.is_err());
    all_idle(&pool).await;
    pool.resume();
    read.await;
    open_pipeline(&pool).await;
}

#[tokio::test]
async fn the_death_of_a_backend_fails_no_more_than_the_read_in_front() {
    let pg = cluster().await;
    let pool = pool(&pg, 6, 1).await;
    let failed = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..16_i64 {
        let (pool, failed, done) = (pool.clone(), Arc::clone(&failed), Arc::clone(&done));
        tasks.spawn(async move {
            while done.load(Ordering::Relaxed) < 20_000 {
                match pool.query_one(ECHO, &[&task]).await {
                    Ok(row) => assert_eq!(row.get::<_, i64>(0), task),
                    Err(error) => {
                        assert!(error.is_connection(), "{error:?}");
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                where backend_type = 'client backend' and pid <> pg_backend_pid()";
    let mut kills = 0;
    while !tasks.is_empty() {
        if done.load(Ordering::Relaxed) < 15_000 {
            // The exclusive ones too, each with one read.
            kills += pg.sql(pg.primary(), kill).await.unwrap().parse::<usize>().unwrap();
        }
        while let Some(ended) = tasks.try_join_next() {
            ended.unwrap();
        }
        sleep(Duration::from_millis(50)).await;
    }
    let failed = failed.load(Ordering::Relaxed);
    assert!(kills > 0 && failed <= kills, "{failed} reads failed by {kills} kills");
    all_idle(&pool).await;
    assert_adds_up(&pool.stats());
}

#[tokio::test]
async fn ddl_under_a_pipeline_heals() {
    let pg = cluster().await;
    let pool = pool(&pg, 4, 1).await;
    pool.batch_execute("create table t (id int8); insert into t values (1)").await.unwrap();
    open_pipeline(&pool).await;
    let all = "select * from t";
    for columns in 1..5 {
        let read = async || assert_eq!(pool.query_one(all, &[]).await.unwrap().len(), columns);
        tokio::join!(read(), read(), read(), read());
        let add = format!("alter table t add column c{columns} int");
        pg.sql(pg.primary(), &add).await.unwrap();
    }
}

#[tokio::test]
async fn a_frozen_backend_of_a_pipeline_fails_nobody() {
    let pg = cluster().await;
    let pool = pool(&pg, 4, 1).await;
    let shared = loop {
        open_pipeline(&pool).await;
        let before = pool.stats();
        let process = backend(&pool).await;
        let after = pool.stats();
        // Asked there, and not moved from there to another connection.
        if after.pipelined_total > before.pipelined_total && after.moved_total == before.moved_total
        {
            break process;
        }
    };
    let moved = pool.stats().moved_total;
    pg.freeze_session(pg.primary(), shared).unwrap();
    for value in 0..20 {
        let reads = async { tokio::join!(echo(&pool, value), echo(&pool, -value)) };
        assert!(timeout(Duration::from_secs(3), reads).await.is_ok(), "{:?}", pool.stats());
    }
    assert!(pool.stats().moved_total > moved);
    // Nobody can make it fit again.
    while pool.stats().recovery_failures_total == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    pg.thaw_session(pg.primary(), shared).unwrap();
    all_idle(&pool).await;
    assert_adds_up(&pool.stats());
}

#[tokio::test]
async fn a_closed_pool_says_so_to_reads_although_nobody_may_wait() {
    let pg = cluster().await;
    let config = PoolConfig::new(pg.primary().url()).max_size(4).min_idle(0).pipelines(1);
    let pool = PgPool::connect(config.max_waiters(0)).await.unwrap();
    echo(&pool, 1).await;
    pool.close().await;
    let error = pool.query_one(ECHO, &[&1_i64]).await.unwrap_err();
    assert!(matches!(error, PoolError::Closed), "{error:?}");
    assert_adds_up(&pool.stats());
}

#[tokio::test]
async fn more_reads_than_fit_wait_their_turn_or_are_turned_away() {
    let pg = cluster().await;
    let config = PoolConfig::new(pg.primary().url()).max_size(2).min_idle(0).pipelines(1);
    let pool = PgPool::connect(config.max_waiters(100)).await.unwrap();
    open_pipeline(&pool).await;
    let before = pool.stats();
    let reads = (0..500_i64).map(|value| {
        let pool = &pool;
        async move {
            match pool.query_one(ECHO, &[&value]).await {
                Ok(row) => assert_eq!(row.get::<_, i64>(0), value),
                Err(error) => assert!(matches!(error, PoolError::TooManyWaiters { limit: 100 })),
            }
        }
    });
    futures_util::future::join_all(reads).await;
    let stats = pool.stats();
    // 64 are under way at once and 100 may wait. If the machine stands still meanwhile, those under
    // way join those who wait.
    let rejected = stats.rejected_total - before.rejected_total;
    assert!((1..=400).contains(&rejected), "{stats:?}");
    assert_eq!(stats.waiting, 0);
    all_idle(&pool).await;
    assert_adds_up(&pool.stats());
}

#[tokio::test]
async fn a_read_under_way_ends_before_the_pool_is_closed() {
    let pg = cluster().await;
    let pool = pool(&pg, 4, 1).await;
    open_pipeline(&pool).await;
    let before = pool.stats().pipelined_total;
    let slow = pool.query("select pg_sleep(0.5)", &[]);
    tokio::pin!(slow);
    assert!(timeout(Duration::from_millis(1), slow.as_mut()).await.is_err());
    assert_eq!(pool.stats().pipelined_total, before + 1);
    let (answer, report) = tokio::join!(slow, pool.close());
    answer.unwrap();
    assert_eq!(report.abandoned, 0);
    assert!(matches!(pool.query(ECHO, &[&1_i64]).await, Err(PoolError::Closed)));
}

#[tokio::test]
async fn a_read_that_finds_its_pipeline_dead_runs_elsewhere() {
    let pg = cluster().await;
    let pool = pool(&pg, 4, 1).await;
    let killer = pool.acquire().await.unwrap();
    let deaths = async {
        // The pipeline is looked at from time to time; a read must come before that.
        while pool.stats().moved_total == 0 {
            open_pipeline(&pool).await;
            let before = pool.stats().pipelined_total;
            let process = backend(&pool).await;
            if pool.stats().pipelined_total == before {
                // It had ended meanwhile.
                continue;
            }
            killer.query("select pg_terminate_backend($1)", &[&process]).await.unwrap();
            // Then its socket is closed too, and the task of the connection has read of it; on a busy
            // machine perhaps a little later.
            while std::path::Path::new(&format!("/proc/{process}")).exists() {
                tokio::task::yield_now().await;
            }
            tokio::task::yield_now().await;
            match pool.query_one(ECHO, &[&7_i64]).await {
                Ok(row) => assert_eq!(row.get::<_, i64>(0), 7),
                Err(unnoticed) => assert!(unnoticed.is_connection(), "{unnoticed:?}"),
            }
        }
    };
    timeout(Duration::from_secs(60), deaths).await.unwrap();
    assert_adds_up(&pool.stats());
}
