//! Connections that come back busy or frozen.

use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use escala_pool::{PgPool, PoolConfig};
use testkit::{FaultProxy, PgCluster};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
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

/// Sixteen requests, four at a time, each for at most so long. Returns how many failed.
async fn sixteen_requests(pool: &PgPool, limit: Duration) -> usize {
    let mut failed = 0;
    for _ in 0..4 {
        let four = (0..4).map(|_| timeout(limit, pool.query("select 1", &[])));
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
    assert!(sixteen_requests(&pool, Duration::from_secs(1)).await <= 1);
    while pool.stats().recovery_failures_total == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(sixteen_requests(&pool, Duration::from_secs(10)).await, 0, "it is gone");
    // With a test before use none fails.
    let tested = config.validate_after(Duration::ZERO).acquire_timeout(Duration::from_secs(10));
    let pool = PgPool::connect(tested.validation_timeout(Duration::from_secs(1))).await.unwrap();
    freeze_one_of_four(&pg, &pool).await;
    assert_eq!(sixteen_requests(&pool, Duration::from_secs(10)).await, 0);
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

/// Stands before a server and does not pass on requests to cancel, but hands over their sockets.
async fn keeps_cancels(
    server: SocketAddr,
    kept: mpsc::UnboundedSender<TcpStream>,
) -> std::io::Result<SocketAddr> {
    const CODE: [u8; 8] = [0, 0, 0, 16, 4, 210, 22, 46];
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let kept = kept.clone();
            tokio::spawn(async move {
                let mut head = [0; 8];
                client.read_exact(&mut head).await?;
                if head == CODE {
                    let _ = kept.send(client);
                    return Ok(());
                }
                let mut upstream = TcpStream::connect(server).await?;
                upstream.write_all(&head).await?;
                copy_bidirectional(&mut client, &mut upstream).await.map(drop)
            });
        }
    });
    Ok(addr)
}

/// PgBouncer 1.18 exits when the one who asked hangs up before the cancel was carried out.
#[tokio::test]
async fn a_request_to_cancel_stays_until_its_server_ends_it() {
    let pg = cluster().await;
    let (kept, mut requests) = mpsc::unbounded_channel();
    let addr = keeps_cancels(pg.primary().addr(), kept).await.unwrap();
    let url = format!("postgres://postgres@{addr}/postgres?sslmode=disable");
    let config = PoolConfig::new(url).max_size(1).min_idle(0).pipelines(0);
    let pool = PgPool::connect(config.recovery_timeout(Duration::from_millis(300))).await.unwrap();
    let slow = pool.query("select pg_sleep(60)", &[]);
    assert!(timeout(Duration::from_millis(50), slow).await.is_err());
    let mut request = requests.recv().await.unwrap();
    // Its process and key.
    request.read_exact(&mut [0; 8]).await.unwrap();
    while pool.stats().recovery_failures_total == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    // Nobody waits for it any more.
    let ended = timeout(Duration::from_millis(100), request.read(&mut [0])).await;
    assert!(ended.is_err(), "{ended:?}");
}

/// The sessions that cancel for others: their processes.
const SIGNALLERS: &str = "select coalesce(string_agg(pid::text, ','), '') from pg_stat_activity \
     where query like '%pg_cancel_backend(pid)%' and pid <> pg_backend_pid()";

async fn signallers(pg: &PgCluster) -> String {
    pg.sql(pg.primary(), SIGNALLERS).await.unwrap()
}

/// Gives up until there is one, and returns its process.
async fn signaller(pg: &PgCluster, pool: &PgPool) -> i32 {
    seen_signaller(pg, pool).await.expect("a session that cancels for others")
}

async fn seen_signaller(pg: &PgCluster, pool: &PgPool) -> Option<i32> {
    for _ in 0..50 {
        give_up(pool).await;
        sleep(Duration::from_millis(100)).await;
        if let Ok(pid) = signallers(pg).await.parse() {
            return Some(pid);
        }
    }
    None
}

async fn none_is_left(pg: &PgCluster) {
    while !signallers(pg).await.is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Drops a statement in the middle, and waits until that is repaired.
async fn give_up(pool: &PgPool) {
    let repaired = |pool: &PgPool| {
        let stats = pool.stats();
        stats.recovered_total + stats.recovery_failures_total
    };
    let before = repaired(pool);
    let lease = pool.acquire().await.unwrap();
    // In one message, so that the server has it.
    let slow = timeout(Duration::from_millis(5), lease.batch_execute("select pg_sleep(20)"));
    assert!(slow.await.is_err());
    drop(lease);
    while repaired(pool) == before {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn where_callers_give_up_often_one_session_cancels_for_all() {
    let pg = cluster().await;
    pg.sql(pg.primary(), "create role app login").await.unwrap();
    // One who may do anything, and one who may only signal its own.
    for user in ["postgres", "app"] {
        let mut attempts = 1;
        while !one_session_cancels(&pg, user).await {
            attempts += 1;
            assert!(attempts < 5, "{user}: none lasts");
        }
    }
}

/// `false` if the session stood still for a moment, and sockets cancel again for that.
async fn one_session_cancels(pg: &PgCluster, user: &str) -> bool {
    let url = format!("postgres://{user}@{}/postgres", pg.primary().addr());
    let config = PoolConfig::new(url).max_size(2).min_idle(0).pipelines(0);
    let pool = PgPool::connect(config).await.unwrap();
    give_up(&pool).await;
    assert_eq!(signallers(pg).await, "", "a single cancel is not worth one");
    let Some(pid) = seen_signaller(pg, &pool).await else {
        pool.close().await;
        return false;
    };
    let quiet = pg.sql(pg.primary(), "select clock_timestamp()").await.unwrap();
    for _ in 0..20 {
        give_up(&pool).await;
    }
    let cancelled =
        format!("select state, query_start > '{quiet}' from pg_stat_activity where pid = {pid}");
    let cancelled = pg.sql(pg.primary(), &cancelled).await.unwrap();
    let lasts = !cancelled.is_empty();
    if lasts {
        assert_eq!(cancelled, "idle|t", "{user}");
        let stats = pool.stats();
        assert!(stats.recovered_total > 20 && stats.recovery_failures_total == 0, "{stats:?}");
        assert!(stats.connects_total <= 2, "none was closed: {stats:?}");
    }
    pool.close().await;
    // Sooner than for want of work.
    timeout(Duration::from_secs(3), none_is_left(pg)).await.unwrap();
    lasts
}

/// There the server sees another port than ours.
#[tokio::test]
async fn behind_a_proxy_nobody_is_signalled_by_what_is_not_its_number() {
    let pg = cluster().await;
    let proxy = FaultProxy::start(pg.primary().addr()).await.unwrap();
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    let pool = PgPool::connect(PoolConfig::new(url).max_size(2).min_idle(0).pipelines(0));
    let pool = pool.await.unwrap();
    // Tried once, and closed; on a busy machine perhaps before anybody has seen it.
    let _ = seen_signaller(&pg, &pool).await;
    give_up(&pool).await;
    timeout(Duration::from_secs(3), none_is_left(&pg)).await.unwrap();
    let before = proxy.accepted();
    for _ in 0..20 {
        give_up(&pool).await;
    }
    assert!(proxy.accepted() - before >= 20, "a socket for each cancel");
    assert_eq!(signallers(&pg).await, "");
    let stats = pool.stats();
    assert!(stats.recovered_total > 20 && stats.recovery_failures_total == 0, "{stats:?}");
}

#[tokio::test]
async fn a_signal_that_may_be_late_costs_the_connection() {
    for recovery_timeout in [Duration::from_millis(50), Duration::from_secs(1)] {
        let pg = cluster().await;
        let config = exclusive(&pg, 2).recovery_timeout(recovery_timeout);
        let pool = PgPool::connect(config).await.unwrap();
        let pid = signaller(&pg, &pool).await;
        let before = pool.stats().recovery_failures_total;
        pg.freeze_session(pg.primary(), pid).unwrap();
        give_up(&pool).await;
        assert_eq!(pool.stats().recovery_failures_total - before, 1);
        // The others are cancelled as before, in time if there is enough.
        let repaired = pool.stats().recovered_total;
        for _ in 0..5 {
            give_up(&pool).await;
        }
        let in_time = pool.stats().recovered_total > repaired;
        assert!(in_time || recovery_timeout < Duration::from_secs(1), "{:?}", pool.stats());
        let leases = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        let sleeping =
            leases.each_ref().map(|lease| lease.query_one("select 7 from pg_sleep(0.3)", &[]));
        let thawed = async {
            sleep(Duration::from_millis(100)).await;
            pg.thaw_session(pg.primary(), pid).unwrap();
        };
        let (answers, ()) = tokio::join!(futures_util::future::join_all(sleeping), thawed);
        for answer in answers {
            let answer = answer.unwrap_or_else(|error| panic!("{}", chain(&error)));
            assert_eq!(answer.get::<_, i32>(0), 7);
        }
    }
}

/// Longer than anybody waits for a signal, and shorter than for a recovery.
#[tokio::test]
async fn a_server_that_pauses_loses_no_connection() {
    let pg = cluster().await;
    let pool = PgPool::connect(exclusive(&pg, 8)).await.unwrap();
    signaller(&pg, &pool).await;
    let leases = futures_util::future::join_all((0..8).map(|_| pool.acquire())).await;
    let before = pool.stats().recovered_total;
    let slow =
        leases.iter().map(|lease| lease.as_ref().unwrap().batch_execute("select pg_sleep(20)"));
    let patience = Duration::from_millis(20);
    assert!(timeout(patience, futures_util::future::join_all(slow)).await.is_err());
    pg.freeze_node(pg.primary()).unwrap();
    drop(leases);
    sleep(Duration::from_millis(1_500)).await;
    pg.thaw_node(pg.primary()).unwrap();
    while pool.stats().available < 8 {
        sleep(Duration::from_millis(5)).await;
    }
    let stats = pool.stats();
    assert_eq!(
        (stats.recovered_total - before, stats.recovery_failures_total),
        (8, 0),
        "{stats:?}"
    );
}

/// It waits for a lock, so it does not end by itself although its client has ended it.
#[tokio::test]
async fn a_copy_that_cannot_end_is_cancelled_in_the_end() {
    let pg = cluster().await;
    let pool = PgPool::connect(exclusive(&pg, 2)).await.unwrap();
    pool.batch_execute("create table t (id int8 primary key)").await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    tx.execute("insert into t values (1)", &[]).await.unwrap();
    let mut copy = pool.copy_in("copy t from stdin").await.unwrap();
    copy.send("1\n").await.unwrap();
    assert!(timeout(Duration::from_millis(50), copy.finish()).await.is_err());
    while pool.stats().recovered_total == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(pool.stats().recovery_failures_total, 0);
    tx.commit().await.unwrap();
    let count = pool.query_one("select count(*) from t", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 1);
    assert_eq!(pool.stats().connects_total, 2, "none was closed");
}
