//! A commit and one query more in the same round trip: what becomes of one never hides the other.

use std::time::Duration;

use escala_pool::postgres::TransactionOptions;
use escala_pool::{PgPool, PgTransaction, PoolConfig, PoolError, Statements};
use testkit::FaultProxy;
use tokio::time::sleep;

use super::{cluster, ids, with_table};

const COUNT: &str = "select count(*) from t";

async fn inserted(pool: &PgPool, id: i32) -> PgTransaction {
    let mut tx = pool.begin().await.unwrap();
    tx.execute("insert into t values ($1)", &[&id]).await.unwrap();
    tx
}

#[tokio::test]
async fn the_query_sees_what_was_committed() {
    let pg = cluster().await;
    for statements in [Statements::Named, Statements::Unnamed] {
        let pool = with_table(&pg, 1).await;
        pool.close().await;
        let config = PoolConfig::new(pg.primary().url()).max_size(1).statements(statements);
        let pool = PgPool::connect(config).await.unwrap();
        // The first has to prepare the query, the others need not.
        for id in 1..=3 {
            let rows = inserted(&pool, id).await.commit_and_query(COUNT, &[]).await.unwrap();
            assert_eq!(rows.unwrap()[0].get::<_, i64>(0), i64::from(id));
        }
        assert_eq!(ids(&pg).await, "1,2,3");
        pool.batch_execute("drop table t").await.unwrap();
    }
}

#[tokio::test]
async fn commit_and_query_are_both_sent_before_an_answer_comes() {
    let pg = cluster().await;
    let direct = with_table(&pg, 1).await;
    let proxy = FaultProxy::start(pg.primary().addr()).await.unwrap();
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    let pool = PgPool::connect(PoolConfig::new(url).max_size(1).min_idle(0)).await.unwrap();
    let insert = "insert into t values ($1)";
    let tx = inserted(&pool, 1).await;
    tx.commit_and_query(insert, &[&2]).await.unwrap().unwrap();
    let tx = inserted(&pool, 3).await;
    // The way of the two and the way of their answers.
    proxy.delay(Duration::from_secs(1));
    let cut = async {
        while direct.query("select id from t where id = 4", &[]).await.unwrap().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        proxy.cut();
    };
    let (result, ()) = tokio::join!(tx.commit_and_query(insert, &[&4]), cut);
    let error = result.unwrap_err();
    assert!(matches!(error, PoolError::CommitUnknown(_)), "the commit was answered: {error:?}");
    assert_eq!(ids(&pg).await, "1,2,3,4");
}

#[tokio::test]
async fn a_query_that_fails_leaves_the_commit_done() {
    let pg = cluster().await;
    let pool = with_table(&pg, 1).await;
    // By the server while it runs, by the server while it is prepared, by the driver.
    let failing = ["select 1 / (count(*) - count(*)) from t", "select nothing from t"];
    for (id, sql) in failing.into_iter().chain(failing).enumerate() {
        let tx = inserted(&pool, i32::try_from(id).unwrap()).await;
        let error = tx.commit_and_query(sql, &[]).await.unwrap().unwrap_err();
        assert!(["22012", "42703"].contains(&error.sqlstate().unwrap()), "{error:?}");
    }
    let tx = inserted(&pool, 4).await;
    let error = tx.commit_and_query(COUNT, &[&1]).await.unwrap();
    assert!(error.is_err(), "it takes no value");
    assert_eq!(ids(&pg).await, "0,1,2,3,4");
    assert_eq!(pool.stats().connects_total, 1, "the connection stays fit");
}

#[tokio::test]
async fn a_commit_that_fails_is_told_and_answers_nothing() {
    let pg = cluster().await;
    let pool = with_table(&pg, 1).await;
    pool.query(COUNT, &[]).await.unwrap();
    pool.batch_execute("create table d (id int references t deferrable initially deferred)")
        .await
        .unwrap();
    let tx = inserted(&pool, 1).await;
    tx.commit_and_query(COUNT, &[]).await.unwrap().unwrap();

    // Refused by the commit itself.
    let mut tx = inserted(&pool, 2).await;
    tx.execute("insert into d values (7)", &[]).await.unwrap();
    let error = tx.commit_and_query(COUNT, &[]).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("23503"));
    // Failed before, and ended before.
    let mut tx = inserted(&pool, 3).await;
    tx.execute("insert into t values (3)", &[]).await.unwrap_err();
    let error = tx.commit_and_query(COUNT, &[]).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("25P02"));
    let mut tx = inserted(&pool, 4).await;
    tx.batch_execute("rollback").await.unwrap();
    let error = tx.commit_and_query(COUNT, &[]).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("25P01"));
    assert_eq!(ids(&pg).await, "1");
    assert_eq!(pool.stats().connects_total, 1, "the connection stays fit");
}

#[tokio::test]
async fn a_dropped_savepoint_is_taken_back_before_the_commit() {
    let pg = cluster().await;
    let pool = with_table(&pg, 1).await;
    for id in [1, 3] {
        let mut tx = inserted(&pool, id).await;
        let mut savepoint = tx.savepoint().await.unwrap();
        savepoint.execute("insert into t values (2)", &[]).await.unwrap();
        drop(savepoint);
        tx.commit_and_query(COUNT, &[]).await.unwrap().unwrap();
    }
    assert_eq!(ids(&pg).await, "1,3");
}

#[tokio::test]
async fn a_dropped_commit_leaves_the_next_user_nothing() {
    let pg = cluster().await;
    let pool = with_table(&pg, 1).await;
    inserted(&pool, 1).await.commit_and_query(COUNT, &[]).await.unwrap().unwrap();
    let tx = inserted(&pool, 2).await;
    // Committed, and then the query hangs.
    let hangs = tx.commit_and_query("select pg_sleep(30)::text", &[]);
    let watch = async {
        let two = "select string_agg(id::text, ',' order by id) from t";
        while pg.sql(pg.primary(), two).await.unwrap() != "1,2" {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = hangs => panic!("it sleeps for 30 s"),
        () = watch => {}
    }
    assert_eq!(pool.query_one(COUNT, &[]).await.unwrap().get::<_, i64>(0), 2);
}

#[tokio::test]
async fn a_closure_may_have_its_commit_followed_too() {
    let pg = cluster().await;
    let pool = with_table(&pg, 2).await;
    let options = TransactionOptions::new();
    for id in 1..=2 {
        let insert = async |mut tx: PgTransaction| {
            tx.execute("insert into t values ($1)", &[&id]).await?;
            Ok::<_, PoolError>(id)
        };
        let done = pool.transaction_and_query(&options, COUNT, &[], insert).await;
        let (value, rows) = done.unwrap();
        assert_eq!((value, rows.unwrap()[0].get::<_, i64>(0)), (id, i64::from(id)));
    }
    // A closure that ended the transaction itself.
    let insert = async |mut tx: PgTransaction| {
        tx.execute("insert into t values (3)", &[]).await?;
        tx.commit().await
    };
    let ((), rows) = pool.transaction_and_query(&options, COUNT, &[], insert).await.unwrap();
    assert_eq!(rows.unwrap()[0].get::<_, i64>(0), 3);
    // A closure that fails.
    let fail = async |mut tx: PgTransaction| {
        tx.execute("insert into t values (4)", &[]).await?;
        Err::<(), _>(PoolError::Closed)
    };
    let failed = pool.transaction_and_query(&options, COUNT, &[], fail).await;
    assert!(matches!(failed, Err(PoolError::Closed)));
    assert_eq!(ids(&pg).await, "1,2,3");
}
