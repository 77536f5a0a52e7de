//! Settings of a session, and statements without names behind PgBouncer.

use std::time::Duration;

use escala_pool::{PgPool, PoolConfig, Statements};
use testkit::PgBouncer;
use tokio::time::timeout;

use super::{chain, cluster};

fn config(url: impl Into<String>, max_size: usize) -> PoolConfig {
    PoolConfig::new(url).max_size(max_size).min_idle(0)
}

async fn setting(pool: &PgPool, name: &str) -> String {
    pool.query_one("select current_setting($1)", &[&name]).await.unwrap().get(0)
}

#[tokio::test]
async fn settings_of_the_session_reach_the_server() {
    let pg = cluster().await;
    let url = format!(
        "{}?application_name=url&options=-c%20work_mem%3D1MB%20-c%20lock_timeout%3D1s",
        pg.primary().url()
    );
    let limits = config(&url, 2)
        .statement_timeout(Duration::from_millis(300))
        .lock_timeout(Duration::from_secs(2))
        .idle_in_transaction_timeout(Duration::from_secs(7))
        .application_name("shop");
    let pool = PgPool::connect(limits).await.unwrap();
    for (name, value) in [
        ("statement_timeout", "300ms"),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "7s"),
        ("application_name", "shop"),
        ("work_mem", "1MB"),
    ] {
        assert_eq!(setting(&pool, name).await, value, "{name}");
    }
    let error = pool.query("select pg_sleep(60)", &[]).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("57014"), "{}", chain(&error));
    let unset = PgPool::connect(config(&url, 1)).await.unwrap();
    assert_eq!(setting(&unset, "application_name").await, "url");
    assert_eq!(setting(&unset, "statement_timeout").await, "0");
    assert_eq!(setting(&unset, "lock_timeout").await, "1s");
}

/// Several pools of a process, many tasks, two sessions at the server.
#[tokio::test]
async fn statements_without_names_work_behind_a_pooler() {
    let pg = cluster().await;
    let bouncer = PgBouncer::builder(pg.primary().addr()).setting("default_pool_size", "2");
    let bouncer = bouncer.start().await.unwrap();
    let schema = "create table t (id int8 primary key, name text); \
                  create type mood as enum ('sad', 'happy'); create table m (mood mood)";
    pg.sql(pg.primary(), schema).await.unwrap();
    let mut tasks = Vec::new();
    for client in 0..4_i64 {
        let pool = config(bouncer.url(), 3).statements(Statements::Unnamed);
        let pool = PgPool::connect(pool.application_name("shop")).await.unwrap();
        for task in 0..3_i64 {
            let pool = pool.clone();
            tasks.push(tokio::spawn(async move {
                for round in 0..20_i64 {
                    let id = client * 1_000 + task * 100 + round;
                    let insert = "insert into t values ($1, $2)";
                    let count = pool.execute(insert, &[&id, &format!("n{id}")]).await.unwrap();
                    assert_eq!(count, 1);
                    let select = "select name, $2::int4 from t where id = $1";
                    let row = pool.query_one(select, &[&id, &7]).await.unwrap();
                    assert_eq!((row.get(0), row.get(1)), (format!("n{id}"), 7));
                    let mut tx = pool.begin().await.unwrap();
                    let update = "update t set name = $2 where id = $1";
                    tx.execute(update, &[&id, &"done"]).await.unwrap();
                    assert_eq!(
                        tx.query_opt("select id from t where id = $1", &[&id])
                            .await
                            .unwrap()
                            .unwrap()
                            .get::<_, i64>(0),
                        id
                    );
                    tx.commit().await.unwrap();
                }
                pool.stats()
            }));
        }
    }
    for task in tasks {
        let stats = task.await.unwrap();
        assert_eq!((stats.closed.invalid_total, stats.recovery_failures_total), (0, 0));
    }
    let done = "select count(*) from t where name = 'done'";
    assert_eq!(pg.sql(pg.primary(), done).await.unwrap(), "240");
    // Nothing of a statement stays in the sessions that all share.
    let pool = config(bouncer.url(), 2).statements(Statements::Unnamed);
    let pool = PgPool::connect(pool).await.unwrap();
    for _ in 0..4 {
        let left = "select count(*) from pg_prepared_statements";
        assert_eq!(pool.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
    }
    // A type of one's own, a wrong number of values, an error, a leaked transaction, a cancel.
    pool.execute("insert into m values ('happy')", &[]).await.unwrap();
    let moods = "select mood, mood::text from m where mood::text = $1";
    assert_eq!(pool.query_one(moods, &[&"happy"]).await.unwrap().get::<_, String>(1), "happy");
    assert!(pool.query(moods, &[]).await.unwrap_err().sqlstate().is_some());
    pool.query(moods, &[&"happy", &1]).await.unwrap_err();
    assert_eq!(
        pool.query("select 1 / $1::int4", &[&0]).await.unwrap_err().sqlstate(),
        Some("22012")
    );
    for _ in 0..5 {
        pool.execute("begin", &[]).await.unwrap();
        let sleeping = pool.query("select pg_sleep(60)", &[]);
        assert!(timeout(Duration::from_millis(50), sleeping).await.is_err());
        assert_eq!(pool.query(moods, &[&"happy"]).await.unwrap().len(), 1);
    }
    assert_eq!(pool.stats().recovery_failures_total, 0);
}

#[tokio::test]
async fn changes_of_the_schema_are_taken_in_stride() {
    let pg = cluster().await;
    for statements in [Statements::Named, Statements::Unnamed] {
        let pool = config(pg.primary().url(), 2).statements(statements);
        let pool = PgPool::connect(pool).await.unwrap();
        pool.batch_execute("drop table if exists t; create table t (id int4)").await.unwrap();
        pool.execute("insert into t values ($1)", &[&1]).await.unwrap();
        let all = "select * from t where id = $1";
        assert_eq!(pool.query_one(all, &[&1]).await.unwrap().len(), 1);
        pg.sql(pg.primary(), "alter table t add column name text").await.unwrap();
        assert_eq!(pool.query_one(all, &[&1]).await.unwrap().len(), 2);
        for forget in ["deallocate all", "discard all"] {
            let lease = pool.acquire().await.unwrap();
            lease.query_one(all, &[&1]).await.unwrap();
            lease.execute(forget, &[]).await.unwrap();
            assert_eq!(lease.query_one(all, &[&1]).await.unwrap().len(), 2, "{forget}");
        }
        // Now `$1` is a text.
        let retype = "alter table t alter column id type text using id::text";
        pg.sql(pg.primary(), retype).await.unwrap();
        assert_eq!(pool.query_one(all, &[&"1"]).await.unwrap().len(), 2);
        let mut tx = pool.begin().await.unwrap();
        tx.query_one(all, &[&1]).await.unwrap_err();
        assert_eq!(tx.query_one(all, &[&"1"]).await.unwrap().len(), 2, "nothing was sent");
        tx.commit().await.unwrap();
        assert_eq!(pool.stats().recovery_failures_total, 0);
    }
}

#[tokio::test]
async fn settings_that_a_pooler_would_not_keep_are_refused() {
    let config = config("postgres://db", 1).statements(Statements::Unnamed);
    let error = config.clone().statement_timeout(Duration::from_secs(1)).validate().unwrap_err();
    assert_eq!(error.field, "statement_timeout");
    config.clone().statement_timeout(Duration::ZERO).validate().unwrap();
    let long = Duration::from_secs(25 * 24 * 3600);
    let error = config.clone().statements(Statements::Named).lock_timeout(long).validate();
    assert_eq!(error.unwrap_err().field, "lock_timeout");
    let error = config.application_name("x".repeat(64)).validate().unwrap_err();
    assert_eq!(error.field, "application_name");
}
