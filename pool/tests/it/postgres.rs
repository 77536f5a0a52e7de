//! Real PostgreSQL: what callers leave behind, what the server does to connections.

mod batch;
mod cancels;
mod commits;
mod connecting;
mod copy;
#[cfg(feature = "axum")]
mod handlers;
mod listen;
mod pipelines;
mod recovery;
mod session;
#[cfg(feature = "tls")]
mod tls;
mod transactions;

use std::error::Error;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use escala_pool::{PgPool, PoolConfig, PoolError, Statements};
use testkit::{FaultProxy, PgCluster};
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use crate::scripted::assert_adds_up;

async fn cluster() -> PgCluster {
    PgCluster::start(0).await.unwrap()
}

async fn pool(pg: &PgCluster, max_size: usize) -> PgPool {
    let config = PoolConfig::new(pg.primary().url()).max_size(max_size).min_idle(0);
    PgPool::connect(config).await.unwrap()
}

async fn with_table(pg: &PgCluster, max_size: usize) -> PgPool {
    let pool = pool(pg, max_size).await;
    pool.batch_execute("create table t (id int primary key)").await.unwrap();
    pool
}

/// What a client outside the pool sees.
async fn ids(pg: &PgCluster) -> String {
    pg.sql(pg.primary(), "select string_agg(id::text, ',' order by id) from t").await.unwrap()
}

async fn backend(pool: &PgPool) -> i32 {
    pool.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0)
}

/// The texts of an error and of all its causes.
fn chain(error: &dyn Error) -> String {
    std::iter::successors(Some(error), |error| (*error).source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[tokio::test]
async fn verbs_answer_on_pool_lease_and_transaction() {
    let pg = cluster().await;
    let pool = with_table(&pg, 2).await;
    assert_eq!(pool.execute("insert into t values ($1), ($2)", &[&1, &2]).await.unwrap(), 2);
    assert_eq!(pool.query("select id from t", &[]).await.unwrap().len(), 2);
    let one = "select id from t where id = $1";
    assert_eq!(pool.query_one(one, &[&2]).await.unwrap().get::<_, i32>(0), 2);
    assert!(pool.query_opt(one, &[&3]).await.unwrap().is_none());
    let error = pool.query_one(one, &[&3]).await.unwrap_err();
    assert!(matches!(error, PoolError::RowCount { found: 0 }), "{error}");
    let lease = pool.acquire().await.unwrap();
    let error = lease.query_opt("select id from t", &[]).await.unwrap_err();
    assert!(matches!(error, PoolError::RowCount { found: 2 }), "{error}");
    let mut tx = pool.begin().await.unwrap();
    tx.execute("insert into t values ($1)", &[&3]).await.unwrap();
    assert_eq!(tx.query(one, &[&3]).await.unwrap().len(), 1);
    assert!(lease.query_opt(one, &[&3]).await.unwrap().is_none(), "not committed yet");
    tx.commit().await.unwrap();
    assert_eq!(ids(&pg).await, "1,2,3");
    drop(lease);
    let lease = pool.clone().oneshot(()).await.unwrap();
    let error = lease.execute("insert into t values ($1)", &[&3]).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("23505"));
    assert_eq!(error.to_string(), "postgresql answered with sqlstate 23505");
    assert!(!error.is_connection() && !error.is_retryable() && !error.is_saturated());
    let error = lease.execute("insert into t values ($1)", &[&"three"]).await.unwrap_err();
    assert!(!error.is_connection(), "{}", chain(&error));
    drop(lease);
    let stats = pool.stats();
    assert_eq!((stats.recovered_total, stats.size), (0, 2));
    assert_adds_up(&stats);
}

#[tokio::test]
async fn a_server_that_cannot_be_used_says_why_and_keeps_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    let hba = folder.path().join("hba");
    // The server may run as another user.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(&hba, "host all app all scram-sha-256\nhost all all all trust\n").unwrap();
    let hba = hba.to_str().unwrap();
    let pg = PgCluster::builder().setting("hba_file", hba).start().await.unwrap();
    pg.sql(pg.primary(), "create role app login password 'right'").await.unwrap();
    let addr = pg.primary().addr();
    let nobody = connecting::nobody();
    let free = nobody.local_addr().unwrap();
    for (url, sqlstate) in [
        (format!("postgres://app:hunter2@{addr}/postgres"), Some("28P01")),
        (format!("postgres://app:right@{addr}/hunter"), Some("3D000")),
        (format!("postgres://app:hunter2@{free}/postgres"), None),
    ] {
        let error = PgPool::connect(PoolConfig::new(&url)).await.unwrap_err();
        assert!(matches!(error, PoolError::Connect(_)), "{}", chain(&error));
        assert_eq!(error.sqlstate(), sqlstate);
        assert!(error.is_connection() && !error.is_timeout());
        assert_eq!(error.is_retryable(), sqlstate.is_none());
        let shown = format!("{}{error:?}", chain(&error));
        assert!(!shown.contains("hunter2") && shown.len() > 60, "{shown}");
        let lazy = PgPool::connect_lazy(PoolConfig::new(&url)).unwrap();
        assert!(!format!("{lazy:?}").contains("hunter2"));
    }
    PgPool::connect(PoolConfig::new(format!("postgres://app:right@{addr}/postgres")))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_string_that_cannot_be_used_is_refused_without_being_shown() {
    for (url, rule) in [
        ("", "must name a host"),
        ("postgres://app:hunter2@db/x?sslmode=hunter2", "sslmode: must be one of"),
        ("postgres://app:hunter2@db/x?sslmode=verify-ca", "needs sslrootcert"),
        #[cfg(not(feature = "tls"))]
        ("postgres://app:hunter2@db/x?sslmode=require", "needs the feature `tls`"),
        ("postgres://app:hunter2@db:port/x", "must be postgres://"),
        ("hunter2", "must be postgres://"),
    ] {
        let error = PgPool::connect_lazy(PoolConfig::new(url)).unwrap_err();
        assert!(matches!(error, PoolError::Config(_)), "{error:?}");
        assert!(chain(&error).contains(rule), "{}", chain(&error));
        assert!(!format!("{}{error:?}", chain(&error)).contains("hunter2"));
    }
}

/// Leaves a transaction open on the one connection of the pool.
async fn leak(pool: &PgPool, how: &str) {
    let insert = "insert into t values (-1)";
    match how {
        "pool batch" => pool.batch_execute("begin; insert into t values (-1)").await.unwrap(),
        "pool execute" => drop(pool.execute("begin", &[]).await.unwrap()),
        "pool query" => drop(pool.query("begin", &[]).await.unwrap()),
        "pool query_opt" => drop(pool.query_opt("start transaction", &[]).await.unwrap()),
        // It fails, since BEGIN returns no row.
        "pool query_one" => drop(pool.query_one("begin", &[]).await.unwrap_err()),
        "transaction" => {
            let mut tx = pool.begin().await.unwrap();
            tx.execute(insert, &[]).await.unwrap();
        }
        "chain" => {
            let mut tx = pool.begin().await.unwrap();
            tx.execute("commit and chain", &[]).await.unwrap();
            tx.execute(insert, &[]).await.unwrap();
        }
        _ => {
            let lease = pool.acquire().await.unwrap();
            match how {
                "batch" => lease.batch_execute("select 1; BEGIN").await.unwrap(),
                "execute" => drop(lease.execute("/* now */ start transaction", &[]).await.unwrap()),
                "query" => drop(lease.query("-- now\nbegin", &[]).await.unwrap()),
                "query_opt" => drop(lease.query_opt("begin", &[]).await.unwrap()),
                "query_one" => drop(lease.query_one("begin", &[]).await.unwrap_err()),
                // The error comes before the server says what became of the transaction.
                "failed" => drop(lease.batch_execute("begin; select 1/0").await.unwrap_err()),
                _ => unreachable!("{how}"),
            }
            if how != "failed" {
                lease.execute(insert, &[]).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_transaction_left_open_does_not_swallow_the_next_users_write() {
    let pg = cluster().await;
    let pool = with_table(&pg, 1).await;
    let process = backend(&pool).await;
    let ways = "batch, execute, query, query_opt, query_one, failed, transaction, chain, \
                pool batch, pool execute, pool query, pool query_opt, pool query_one";
    let mut count = 0;
    for how in ways.split(", ") {
        leak(&pool, how).await;
        count += 1;
        pool.execute("insert into t values ($1)", &[&count]).await.unwrap();
        assert!(ids(&pg).await.ends_with(&count.to_string()), "{how}");
    }
    assert!(!ids(&pg).await.contains('-'), "nothing was committed for those who left");
    assert_eq!(pool.stats().recovered_total, count as u64);
    assert_eq!(backend(&pool).await, process, "the connection was kept");
}

#[tokio::test]
async fn a_failed_transaction_is_not_reported_as_committed() {
    let pg = cluster().await;
    let pool = with_table(&pg, 1).await;
    let mut tx = pool.begin().await.unwrap();
    tx.execute("insert into t values (1)", &[]).await.unwrap();
    tx.execute("insert into t values (1)", &[]).await.unwrap_err();
    assert_eq!(tx.commit().await.unwrap_err().sqlstate(), Some("25P02"));
    let mut tx = pool.begin().await.unwrap();
    tx.execute("insert into t values (2)", &[]).await.unwrap();
    tx.batch_execute("savepoint s").await.unwrap();
    tx.execute("insert into t values (2)", &[]).await.unwrap_err();
    tx.batch_execute("rollback to s").await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    tx.execute("insert into t values (3)", &[]).await.unwrap();
    tx.rollback().await.unwrap();
    // Nothing is left to commit, which is told too.
    let mut tx = pool.begin().await.unwrap();
    tx.execute("insert into t values (4)", &[]).await.unwrap();
    tx.batch_execute("rollback").await.unwrap();
    assert_eq!(tx.commit().await.unwrap_err().sqlstate(), Some("25P01"));
    assert_eq!(ids(&pg).await, "2");
}

#[tokio::test]
async fn a_cancelled_query_neither_delays_nor_reaches_the_next_user() {
    let pg = cluster().await;
    let pool = pool(&pg, 1).await;
    let process = backend(&pool).await;
    let sleeping = pool.query("select pg_sleep(20)", &[]);
    assert!(timeout(Duration::from_millis(100), sleeping).await.is_err());
    // Without the cancel this would time out, since there is one connection.
    assert_eq!(backend(&pool).await, process);
    assert_eq!(pool.stats().recovered_total, 1);
    // At any moment of a query: before it is sent, while it runs, when it is done.
    for round in 0..300_i64 {
        let query = pool.query("select pg_sleep($1)", &[&0.001_f64]);
        drop(timeout(Duration::from_micros(round as u64 * 10), query).await);
        let row = pool.query_one("select $1::int8", &[&round]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), round);
    }
    assert_eq!(backend(&pool).await, process);
    let stats = pool.stats();
    assert!(stats.recovered_total > 1 && stats.recovery_failures_total == 0, "{stats:?}");
    assert_adds_up(&stats);
}

#[tokio::test]
async fn a_lease_refuses_calls_after_one_was_dropped() {
    let pg = cluster().await;
    let pool = with_table(&pg, 1).await;
    let mut tx = pool.begin().await.unwrap();
    tx.execute("insert into t values (1)", &[]).await.unwrap();
    let sleeping = tx.query("select pg_sleep(20)", &[]);
    assert!(timeout(Duration::from_millis(100), sleeping).await.is_err());
    let error = tx.execute("insert into t values (2)", &[]).await.unwrap_err();
    assert!(matches!(error, PoolError::Interrupted), "{error}");
    assert!(matches!(tx.commit().await, Err(PoolError::Interrupted)));
    pool.execute("insert into t values (3)", &[]).await.unwrap();
    assert_eq!(ids(&pg).await, "3");
}

#[tokio::test]
async fn a_connection_that_cannot_be_cleaned_is_closed() {
    let pg = cluster().await;
    let proxy = FaultProxy::start(pg.primary().addr()).await.unwrap();
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    let config = PoolConfig::new(url).max_size(1).min_idle(0);
    let config = config.recovery_timeout(Duration::from_millis(200));
    let pool = PgPool::connect(config).await.unwrap();
    let process = backend(&pool).await;
    let sleeping = pool.query("select pg_sleep(20)", &[]);
    assert!(timeout(Duration::from_millis(100), sleeping).await.is_err());
    proxy.blackhole(true);
    while pool.stats().recovery_failures_total == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    proxy.heal();
    assert_ne!(backend(&pool).await, process);
    assert_eq!(pool.stats().size, 1);
}

#[tokio::test]
async fn ddl_between_two_calls_heals() {
    let pg = cluster().await;
    let pool = with_table(&pg, 1).await;
    pool.execute("insert into t values (1)", &[]).await.unwrap();
    let all = "select * from t";
    assert_eq!(pool.query_one(all, &[]).await.unwrap().len(), 1);
    pg.sql(pg.primary(), "alter table t add column name text").await.unwrap();
    assert_eq!(pool.query_one(all, &[]).await.unwrap().len(), 2);
    pool.batch_execute("deallocate all").await.unwrap();
    assert_eq!(pool.query_one(all, &[]).await.unwrap().len(), 2);
    // In a transaction the statement has failed it already, but the next one is well.
    let mut tx = pool.begin().await.unwrap();
    pg.sql(pg.primary(), "alter table t drop column name").await.unwrap();
    assert_eq!(tx.query_one(all, &[]).await.unwrap_err().sqlstate(), Some("0A000"));
    drop(tx);
    let mut tx = pool.begin().await.unwrap();
    assert_eq!(tx.query_one(all, &[]).await.unwrap().len(), 1);
    tx.commit().await.unwrap();
}

/// Its codes are those of a statement that went stale.
#[tokio::test]
async fn a_procedure_that_commits_and_then_fails_runs_once() {
    let pg = cluster().await;
    let setup = with_table(&pg, 1).await;
    let procedures = "create table r (id int primary key, other int references t (id));
        create procedure raises() language plpgsql as $$ begin
            insert into t select count(*) from t; commit; raise sqlstate '0A000'; end $$;
        create procedure misses() language plpgsql as $$ begin
            insert into t select count(*) from t; commit; execute 'execute missing'; end $$;
        create procedure calls() language plpgsql as $$ begin
            insert into t select count(*) from t; commit; perform missing(); end $$";
    setup.batch_execute(procedures).await.unwrap();
    let mut rows = Vec::new();
    for (statements, procedure, code) in [
        (Statements::Named, "call raises()", "0A000"),
        (Statements::Named, "call misses()", "26000"),
        (Statements::Unnamed, "call calls()", "42883"),
    ] {
        let config = PoolConfig::new(pg.primary().url()).max_size(1).min_idle(0);
        let pool = PgPool::connect(config.statements(statements)).await.unwrap();
        let process = backend(&pool).await;
        let error = pool.execute(procedure, &[]).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(code), "{}", chain(&error));
        // An ordinary refusal is no reason to give the connection up.
        let error = pool.execute("truncate t", &[]).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("0A000"));
        assert_eq!(backend(&pool).await, process, "{procedure}");
        rows.push(rows.len().to_string());
        assert_eq!(ids(&pg).await, rows.join(","), "{procedure}");
    }
}

#[tokio::test]
async fn prepared_statements_are_bounded() {
    let pg = cluster().await;
    let config = PoolConfig::new(pg.primary().url()).max_size(1).min_idle(0).statement_cache(3);
    let pool = PgPool::connect(config).await.unwrap();
    for i in 0..20 {
        pool.query_one(&format!("select {i}"), &[]).await.unwrap();
    }
    let count = "select count(*) from pg_prepared_statements";
    assert_eq!(pool.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 3);
}

#[tokio::test]
async fn a_killed_backend_costs_one_call_and_a_dead_server_heals() {
    let pg = cluster().await;
    let pool = pool(&pg, 4).await;
    let lease = pool.acquire().await.unwrap();
    let process: i32 = lease.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    pool.query_one("select pg_terminate_backend($1, 5000)", &[&process]).await.unwrap();
    let error = lease.query("select 1", &[]).await.unwrap_err();
    assert!(error.is_connection() && !error.is_retryable(), "{}", chain(&error));
    drop(lease);
    pool.query_one("select 1", &[]).await.unwrap();

    pg.kill_primary().unwrap();
    // The connection may still look well, so the first call may find out by itself.
    let first = pool.query("select 1", &[]).await.unwrap_err();
    let then = pool.query("select 1", &[]).await.unwrap_err();
    assert!(first.is_connection() && then.is_connection(), "{first:?} {then:?}");
    assert!(!first.is_saturated() && !then.is_saturated());
    pg.start_primary().await.unwrap();
    let answers: Vec<_> = (0..16)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.query_one("select 1", &[]).await })
        })
        .collect();
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    assert_adds_up(&pool.stats());
}

#[tokio::test]
async fn a_frozen_connection_fails_its_test_and_is_replaced() {
    let pg = cluster().await;
    let proxy = FaultProxy::start(pg.primary().addr()).await.unwrap();
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    let config = PoolConfig::new(url).max_size(2).min_idle(0);
    let config = config.validate_after(Duration::ZERO);
    let config = config.validation_timeout(Duration::from_secs(1));
    let config = config.connect_timeout(Duration::from_secs(2));
    let pool = PgPool::connect(config.acquire_timeout(Duration::from_secs(4))).await.unwrap();
    proxy.blackhole(true);
    let error = pool.query("select 1", &[]).await.unwrap_err();
    assert!(error.is_connection() && error.is_timeout(), "{}", chain(&error));
    proxy.heal();
    pool.query_one("select 1", &[]).await.unwrap();
    assert_eq!(pool.stats().closed.invalid_total, 1);
}

#[tokio::test]
async fn a_full_server_counts_as_saturated_not_as_dead() {
    let pg = PgCluster::builder().max_connections(8).start().await.unwrap();
    let url = pg.primary().url();
    pg.sql(pg.primary(), "create role app login").await.unwrap();
    let url = url.replace("postgres@", "app@");
    let hog = PgPool::connect(PoolConfig::new(&url).max_size(8).min_idle(0)).await.unwrap();
    let mut held = Vec::new();
    while let Ok(Ok(lease)) = timeout(Duration::from_secs(1), hog.acquire()).await {
        held.push(lease);
    }
    let error = PgPool::connect(PoolConfig::new(&url)).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("53300"));
    assert!(error.is_saturated() && !error.is_connection() && error.is_retryable());
}

#[tokio::test]
async fn close_drains_and_leaves_no_backend() {
    let pg = cluster().await;
    let pool = pool(&pg, 3).await;
    let lease = pool.acquire().await.unwrap();
    let (report, ()) = tokio::join!(pool.close(), async {
        lease.query_one("select 1", &[]).await.unwrap();
        drop(lease);
    });
    assert_eq!(report.abandoned, 0);
    assert!(matches!(pool.query("select 1", &[]).await, Err(PoolError::Closed)));
    let own = "select count(*) from pg_stat_activity \
               where backend_type = 'client backend' and pid <> pg_backend_pid()";
    while pg.sql(pg.primary(), own).await.unwrap() != "0" {
        sleep(Duration::from_millis(10)).await;
    }
}
