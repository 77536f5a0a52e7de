//! Connections that come back busy or frozen.

use std::future::{Future as _, poll_fn};
use std::task::Poll;
use std::time::Duration;

use escala_pool::{PgPool, PoolConfig};
use testkit::{FaultProxy, PgCluster};
use tokio::time::{sleep, timeout};

use super::{backend, chain, cluster};

/// Every statement gets a connection of its own.
fn exclusive(pg: &PgCluster, max_size: usize) -> PoolConfig {
    PoolConfig::new(pg.primary().url()).max_size(max_size).min_idle(0).pipelines(0)
}

/// Opens all connections and freezes the session of one.
async fn freeze_one_of_four(pg: &PgCluster, pool: &PgPool) {
    let leases: Vec<_> = futures_util::future::join_all((0..4).map(|_| pool.acquire())).await;
    let pid = "select pg_backend_pid()";
    let frozen = leases[2].as_ref().unwrap().query_one(pid, &[]).await.unwrap().get(0);
    pg.freeze_session(pg.primary(), frozen).unwrap();
}

/// Sixteen requests, four at a time, each for at most a second. Returns how many failed.
async fn sixteen_requests(pool: &PgPool) -> usize {
    let mut failed = 0;
    for _ in 0..4 {
        let four = (0..4).map(|_| timeout(Duration::from_secs(1), pool.query("select 1", &[])));
        let answers = futures_util::future::join_all(four).await;
        failed += answers.iter().filter(|answer| !matches!(answer, Ok(Ok(_)))).count();
    }
    failed
}

#[tokio::test]
async fn a_frozen_session_costs_one_request_at_most() {
    let pg = cluster().await;
    let config = exclusive(&pg, 4).recovery_timeout(Duration::from_secs(1));
    let pool = PgPool::connect(config.clone()).await.unwrap();
    freeze_one_of_four(&pg, &pool).await;
    assert!(sixteen_requests(&pool).await <= 1);
    while pool.stats().recovery_failures_total == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(sixteen_requests(&pool).await, 0, "it is gone");
    // With a test before use none fails.
    let tested = config.validate_after(Duration::ZERO).acquire_timeout(Duration::from_secs(10));
    let pool =
        PgPool::connect(tested.validation_timeout(Duration::from_millis(200))).await.unwrap();
    freeze_one_of_four(&pg, &pool).await;
    assert_eq!(sixteen_requests(&pool).await, 0);
    assert_eq!(pool.stats().closed.invalid_total, 1);
}

#[tokio::test]
async fn no_cancel_is_late() {
    let pg = cluster().await;
    let pool = PgPool::connect(exclusive(&pg, 3)).await.unwrap();
    let tasks: Vec<_> = (0..6_u64)
        .map(|task| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut chance = fastrand::Rng::with_seed(task);
                for round in 0..150_i64 {
                    // About as often before its end as after, and in the middle of a transaction.
                    let seconds = chance.f64() * 0.012;
                    let patience = Duration::from_secs_f64(chance.f64() * 0.012);
                    let mut tx = pool.begin().await.unwrap();
                    let sleep = format!("select pg_sleep({seconds})");
                    let slept = timeout(patience, tx.batch_execute(&sleep)).await;
                    if slept.is_ok() && chance.bool() {
                        tx.commit().await.unwrap();
                    } else {
                        drop(tx);
                    }
                    let answer = pool.query_one("select $1::int8", &[&round]).await;
                    let answer = answer.unwrap_or_else(|error| panic!("{}", chain(&error)));
                    assert_eq!(answer.get::<_, i64>(0), round);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    while pool.stats().available < pool.stats().size {
        sleep(Duration::from_millis(1)).await;
    }
    let stats = pool.stats();
    assert_eq!((stats.connects_total, stats.recovery_failures_total), (3, 0), "{stats:?}");
    assert!(stats.recovered_total > 100, "{stats:?}");
}

/// A proxy counts the sockets that reach the server, those of cancels too.
#[tokio::test]
async fn a_quick_query_that_is_dropped_needs_no_cancel() {
    let pg = cluster().await;
    let proxy = FaultProxy::start(pg.primary().addr()).await.unwrap();
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    let config = PoolConfig::new(url).max_size(1).min_idle(0).pipelines(0);
    let pool = PgPool::connect(config).await.unwrap();
    let process = backend(&pool).await;
    let before = proxy.accepted();
    for _ in 0..20 {
        let lease = pool.acquire().await.unwrap();
        let mut query = Box::pin(lease.query("select 1", &[]));
        // It is polled once, so it is on its way.
        assert!(poll_fn(|cx| Poll::Ready(query.as_mut().poll(cx).is_pending())).await);
    }
    assert_eq!(backend(&pool).await, process);
    assert_eq!((pool.stats().recovered_total, pool.stats().recovery_failures_total), (20, 0));
    // A busy machine may keep one or the other longer than the grace.
    assert!(proxy.accepted() - before < 15, "{} cancels", proxy.accepted() - before);
}
