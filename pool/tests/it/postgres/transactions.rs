//! Transactions that meet others, break at the worst moment, or have transactions inside.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use escala_pool::postgres::{IsolationLevel, TransactionOptions};
use escala_pool::{PgPool, PoolConfig, PoolError};
use testkit::{FaultProxy, PgCluster};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{cluster, ids, pool, with_table};

async fn with_counter(pg: &PgCluster) -> PgPool {
    let pool = pool(pg, 8).await;
    pool.batch_execute("create table counter (id int primary key, value int8)").await.unwrap();
    pool.batch_execute("insert into counter values (1, 0), (2, 0)").await.unwrap();
    pool
}

#[tokio::test]
async fn a_transaction_that_meets_another_is_run_again_until_it_is_done() {
    let pg = cluster().await;
    let pool = with_counter(&pg).await;
    for isolation in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        pool.batch_execute("update counter set value = 0").await.unwrap();
        let options = TransactionOptions::new().isolation(isolation).attempts(1000);
        let before = pool.stats().retries_total;
        let runs = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let (pool, runs) = (pool.clone(), Arc::clone(&runs));
            tasks.spawn(async move {
                for _ in 0..10 {
                    let add = async |mut tx: escala_pool::PgTransaction| {
                        runs.fetch_add(1, Ordering::Relaxed);
                        let read = "select value from counter where id = 1";
                        let value: i64 = tx.query_one(read, &[]).await?.get(0);
                        let write = "update counter set value = $1 where id = 1";
                        tx.execute(write, &[&(value + 1)]).await?;
                        Ok::<_, PoolError>(())
                    };
                    pool.transaction_with(&options, add).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
        let value = pg.sql(pg.primary(), "select value from counter where id = 1").await.unwrap();
        assert_eq!(value, "80", "each acknowledged increment is there once");
        let retries = pool.stats().retries_total - before;
        assert!(retries > 0, "nobody met anybody");
        assert_eq!(runs.load(Ordering::Relaxed) as u64, 80 + retries);
    }
}

#[tokio::test]
async fn a_conflict_is_run_again_whatever_error_the_closure_makes_of_it() {
    #[derive(Debug)]
    struct Opaque;
    impl From<PoolError> for Opaque {
        fn from(_: PoolError) -> Self {
            Self
        }
    }
    let pg = cluster().await;
    let pool = with_counter(&pg).await;
    let options = TransactionOptions::new().isolation(IsolationLevel::RepeatableRead);
    for swallowed in [false, true] {
        let runs = AtomicUsize::new(0);
        let result: Result<(), Opaque> = pool
            .transaction_with(&options, async |mut tx| {
                tx.query("select * from counter", &[]).await?;
                if runs.fetch_add(1, Ordering::Relaxed) == 0 {
                    pool.execute("update counter set value = value + 1", &[]).await?;
                }
                let written = tx.execute("update counter set value = value + 1", &[]).await;
                if swallowed {
                    return Ok(());
                }
                written.map(drop).map_err(|_| Opaque)
            })
            .await;
        result.unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), 2);
    }
    let options = options.attempts(3);
    let runs = AtomicUsize::new(0);
    let result: Result<(), PoolError> = pool
        .transaction_with(&options, async |mut tx| {
            runs.fetch_add(1, Ordering::Relaxed);
            tx.query("select * from counter", &[]).await?;
            pool.execute("update counter set value = value + 1", &[]).await?;
            tx.execute("update counter set value = value + 1", &[]).await.map(drop)
        })
        .await;
    assert_eq!(result.unwrap_err().sqlstate(), Some("40001"));
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_deadlock_is_resolved_by_running_its_victim_again() {
    let pg = PgCluster::builder().setting("deadlock_timeout", "50ms").start().await.unwrap();
    let pool = with_counter(&pg).await;
    let meet = Arc::new(Barrier::new(2));
    let mut tasks = JoinSet::new();
    for order in [[1, 2], [2, 1]] {
        let (pool, meet) = (pool.clone(), Arc::clone(&meet));
        tasks.spawn(async move {
            let first_run = AtomicUsize::new(0);
            pool.transaction(async |mut tx| {
                let add = "update counter set value = value + 1 where id = $1";
                tx.execute(add, &[&order[0]]).await?;
                if first_run.fetch_add(1, Ordering::Relaxed) == 0 {
                    meet.wait().await;
                }
                tx.execute(add, &[&order[1]]).await?;
                Ok::<_, PoolError>(())
            })
            .await
            .unwrap();
        });
    }
    tasks.join_all().await;
    let values = pg.sql(pg.primary(), "select sum(value) from counter").await.unwrap();
    assert_eq!(values, "4");
    // The server may have found it twice at once, and made both its victims.
    assert!((1..=2).contains(&pool.stats().retries_total));
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_told_as_unknown_and_not_done_twice() {
    let pg = cluster().await;
    let direct = with_table(&pg, 1).await;
    let proxy = FaultProxy::start(pg.primary().addr()).await.unwrap();
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    let pool = PgPool::connect(PoolConfig::new(url).max_size(2).min_idle(0)).await.unwrap();
    let runs = AtomicUsize::new(0);
    let transaction = pool.transaction(async |mut tx| {
        runs.fetch_add(1, Ordering::Relaxed);
        tx.execute("insert into t values (1)", &[]).await?;
        // The way of the COMMIT and the way of its answer.
        proxy.delay(Duration::from_secs(1));
        Ok::<_, PoolError>(())
    });
    let cut = async {
        while direct.query("select id from t", &[]).await.unwrap().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        proxy.cut();
    };
    let (result, ()) = tokio::join!(transaction, cut);
    let error = result.unwrap_err();
    assert!(matches!(error, PoolError::CommitUnknown(_)), "{error:?}");
    assert!(error.is_connection() && !error.is_retryable());
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    assert_eq!(ids(&pg).await, "1");
    proxy.heal();
    // A connection that was lost before is no such thing.
    let mut tx = pool.begin().await.unwrap();
    tx.execute("insert into t values (2)", &[]).await.unwrap();
    proxy.cut();
    tx.execute("insert into t values (3)", &[]).await.unwrap_err();
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error, PoolError::Postgres(_)) && error.is_connection(), "{error:?}");
    assert_eq!(ids(&pg).await, "1");
}

/// What the driver itself prepared was deallocated, so the connection must not be used again.
#[tokio::test]
async fn a_commit_on_a_connection_that_nobody_else_shall_use_may_be_unknown() {
    let pg = cluster().await;
    let direct = with_table(&pg, 1).await;
    let types = "create type mood as enum ('sad'); create type size as enum ('big')";
    direct.batch_execute(types).await.unwrap();
    let proxy = FaultProxy::start(pg.primary().addr()).await.unwrap();
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    let pool = PgPool::connect(PoolConfig::new(url).max_size(1).min_idle(0)).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    tx.query("select 'sad'::mood", &[]).await.unwrap();
    tx.batch_execute("deallocate all").await.unwrap();
    let mut savepoint = tx.savepoint().await.unwrap();
    let error = savepoint.query("select 'big'::size", &[]).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("26000"));
    savepoint.rollback().await.unwrap();
    tx.execute("insert into t values (1)", &[]).await.unwrap();
    proxy.delay(Duration::from_secs(1));
    let cut = async {
        while direct.query("select id from t", &[]).await.unwrap().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        proxy.cut();
    };
    let (result, ()) = tokio::join!(tx.commit(), cut);
    let error = result.unwrap_err();
    assert!(matches!(error, PoolError::CommitUnknown(_)), "{error:?}");
}

#[tokio::test]
async fn a_closure_that_fails_or_panics_leaves_nothing() {
    let pg = cluster().await;
    let pool = with_table(&pg, 1).await;
    let failed: Result<(), PoolError> = pool
        .transaction(async |mut tx| {
            tx.execute("insert into t values (1)", &[]).await?;
            Err(PoolError::Closed)
        })
        .await;
    assert!(matches!(failed, Err(PoolError::Closed)));
    assert_eq!(pg.sql(pg.primary(), "select count(*) from t").await.unwrap(), "0");
    let panicking = {
        let pool = pool.clone();
        tokio::spawn(async move {
            pool.transaction(async |mut tx| {
                tx.execute("insert into t values (2)", &[]).await?;
                if tx.query("select 1", &[]).await.is_ok() {
                    std::panic::panic_any("on purpose");
                }
                Ok::<_, PoolError>(())
            })
            .await
        })
    };
    assert!(panicking.await.unwrap_err().is_panic());
    pool.execute("insert into t values (3)", &[]).await.unwrap();
    assert_eq!(ids(&pg).await, "3");
    assert_eq!(pool.stats().retries_total, 0);
}

#[tokio::test]
async fn options_reach_the_server() {
    let pg = cluster().await;
    let pool = with_table(&pg, 1).await;
    let options = TransactionOptions::new().isolation(IsolationLevel::Serializable);
    let options = options.read_only(true).deferrable(true);
    let mut tx = pool.begin_with(&options).await.unwrap();
    for (setting, value) in [
        ("transaction_isolation", "serializable"),
        ("transaction_read_only", "on"),
        ("transaction_deferrable", "on"),
    ] {
        let row = tx.query_one(&format!("show {setting}"), &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), value);
    }
    let refused = tx.execute("insert into t values (1)", &[]).await.unwrap_err();
    assert_eq!(refused.sqlstate(), Some("25006"));
}

#[tokio::test]
async fn a_savepoint_is_kept_taken_back_or_dropped_without_the_rest() {
    let pg = cluster().await;
    let pool = with_table(&pg, 1).await;
    let insert = "insert into t values ($1)";
    let mut tx = pool.begin().await.unwrap();
    tx.execute(insert, &[&1]).await.unwrap();
    let mut kept = tx.savepoint().await.unwrap();
    kept.execute(insert, &[&2]).await.unwrap();
    {
        let mut inner = kept.savepoint().await.unwrap();
        inner.execute(insert, &[&-1]).await.unwrap();
        // A failed statement does not take the outer ones with it.
        inner.execute(insert, &[&1]).await.unwrap_err();
    }
    kept.execute(insert, &[&3]).await.unwrap();
    kept.commit().await.unwrap();
    let mut back = tx.savepoint().await.unwrap();
    back.execute(insert, &[&-2]).await.unwrap();
    back.rollback().await.unwrap();
    let mut dropped = tx.savepoint().await.unwrap();
    dropped.execute(insert, &[&-3]).await.unwrap();
    let mut inner = dropped.savepoint().await.unwrap();
    inner.execute(insert, &[&-4]).await.unwrap();
    drop(inner);
    drop(dropped);
    tx.commit().await.unwrap();
    assert_eq!(ids(&pg).await, "1,2,3");
}

#[tokio::test]
async fn a_closure_may_end_its_transaction_itself_but_not_keep_it() {
    let pg = cluster().await;
    let pool = with_table(&pg, 2).await;
    pool.transaction(async |mut tx| {
        tx.execute("insert into t values (1)", &[]).await?;
        tx.commit().await
    })
    .await
    .unwrap();
    pool.transaction(async |mut tx| {
        tx.execute("insert into t values (2)", &[]).await?;
        tx.rollback().await
    })
    .await
    .unwrap();
    let kept = parking_lot::Mutex::new(None);
    let result: Result<(), PoolError> = pool
        .transaction(async |mut tx| {
            tx.execute("insert into t values (3)", &[]).await?;
            *kept.lock() = Some(tx);
            Ok(())
        })
        .await;
    assert!(matches!(result, Err(PoolError::TransactionKept)), "{result:?}");
    drop(kept);
    // In turn with the rollback of what was kept.
    pool.execute("insert into t values (3)", &[]).await.unwrap();
    assert_eq!(ids(&pg).await, "1,3");
}
