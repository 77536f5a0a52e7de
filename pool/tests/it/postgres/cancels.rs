//! Callers who give up at any moment of anything, and a server that dies under all of them.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use escala_pool::{PgPool, PoolConfig, PoolError};
use parking_lot::Mutex;
use testkit::FaultProxy;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::cluster;
use super::pipelines::all_idle;
use crate::scripted::assert_adds_up;

/// What one caller does before it gives up.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Read,
    Sleep,
    Execute,
    Stream,
    CopyIn,
    CopyOut,
    Transaction,
    Lease,
}

const DEEDS: [Deed; 8] = [
    Deed::Read,
    Deed::Sleep,
    Deed::Execute,
    Deed::Stream,
    Deed::CopyIn,
    Deed::CopyOut,
    Deed::Transaction,
    Deed::Lease,
];

/// Callers at once.
const CALLERS: usize = 8;
/// Calls that are cut, all together.
const CALLS: usize = 10_000;
/// Slow statements take 20 s: whoever waits for one that was dropped takes longer than this. A call
/// takes some milliseconds.
const GROSS: Duration = Duration::from_secs(5);

/// Runs one call to its end; `id` is its own, and part of every answer it expects.
async fn perform(pool: &PgPool, deed: Deed, id: i64) -> Result<(), PoolError> {
    match deed {
        Deed::Read => {
            let rows = pool.query("select $1::int8 from generate_series(1, 3)", &[&id]).await?;
            assert_eq!(rows.len(), 3);
            assert!(rows.iter().all(|row| row.get::<_, i64>(0) == id));
        }
        Deed::Sleep => {
            let sleeping = format!("select $1::int8, pg_sleep(20) /* {} */", id % 7);
            pool.query(&sleeping, &[&id]).await?;
            unreachable!("nobody waits for so long");
        }
        Deed::Execute => {
            let insert = "insert into t select g from generate_series($1::int8, $1 + $2::int8) g";
            let count = id % 5;
            assert_eq!(pool.execute(insert, &[&(id * 10), &count]).await?, count as u64 + 1);
        }
        Deed::Stream => {
            let many = "select $1::int8, repeat('x', 100), generate_series(1, 300)";
            let mut rows = pool.query_stream(many, &[&id]).await?;
            let mut read = 0;
            while let Some(row) = rows.next().await {
                assert_eq!(row?.get::<_, i64>(0), id);
                read += 1;
            }
            assert_eq!(read, 300);
        }
        Deed::CopyIn => {
            let mut copy = pool.copy_in("copy t from stdin").await?;
            for row in 0..=(id % 9) {
                copy.send(format!("{}\n", id * 10 + row)).await?;
            }
            assert_eq!(copy.finish().await?, id as u64 % 9 + 1);
        }
        Deed::CopyOut => {
            let mut out = pool.copy_out(&format!("copy (select {id}::int8) to stdout")).await?;
            assert_eq!(out.next().await.transpose()?.unwrap(), format!("{id}\n"));
            assert!(out.next().await.is_none());
        }
        Deed::Transaction => {
            pool.transaction(async |mut tx| {
                assert_eq!(tx.execute("insert into t values ($1)", &[&(id * 10)]).await?, 1);
                let row = tx.query_one("select $1::int8", &[&id]).await?;
                assert_eq!(row.get::<_, i64>(0), id);
                Ok::<_, PoolError>(())
            })
            .await?;
        }
        Deed::Lease => {
            let lease = pool.acquire().await?;
            lease.batch_execute("begin; select 1").await?;
            let row = lease.query_one("select $1::int8", &[&id]).await?;
            assert_eq!(row.get::<_, i64>(0), id);
        }
    }
    Ok(())
}

/// Drops a call after some polls, or at a moment; `None` if it did not end before.
async fn cut<T>(call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    let mut polls = if fastrand::bool() { fastrand::usize(1..12) } else { usize::MAX };
    // Most calls take less; the longest wait lets many of them end.
    let end = Instant::now() + Duration::from_micros(fastrand::u64(0..6_000));
    let limit = if polls == usize::MAX { end } else { end + Duration::from_millis(100) };
    let mut late = pin!(sleep_until(limit));
    poll_fn(|cx| {
        if polls == 0 || late.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        polls -= 1;
        call.as_mut().poll(cx).map(Some)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_random_cancels_reach_nobody_else() {
    let pg = cluster().await;
    let config = PoolConfig::new(pg.primary().url()).max_size(6).min_idle(0);
    let pool = PgPool::connect(config.acquire_timeout(Duration::from_secs(30))).await.unwrap();
    pool.batch_execute("create table t (id int8 primary key)").await.unwrap();
    let next = Arc::new(AtomicI64::new(1));
    let kept: Arc<Mutex<BTreeSet<i64>>> = Arc::default();
    let ended = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (pool, next) = (pool.clone(), Arc::clone(&next));
        let (kept, ended) = (Arc::clone(&kept), Arc::clone(&ended));
        callers.spawn(async move {
            for _ in 0..CALLS / CALLERS {
                let id = next.fetch_add(1, Ordering::Relaxed);
                // Most are reads, as in life, so that pipelines are open.
                let deed =
                    if fastrand::bool() { Deed::Read } else { fastrand::choice(DEEDS).unwrap() };
                let began = Instant::now();
                if let Some(result) = cut(perform(&pool, deed, id)).await {
                    result.unwrap_or_else(|error| panic!("{deed:?} {id}: {error:?}"));
                    ended.fetch_add(1, Ordering::Relaxed);
                    if matches!(deed, Deed::Execute | Deed::CopyIn | Deed::Transaction) {
                        kept.lock().insert(id * 10);
                    }
                }
                assert!(began.elapsed() < GROSS, "{deed:?} {id} took {:?}", began.elapsed());
                // Somebody who does not give up: nothing of the others may reach it.
                if id % 16 == 0 {
                    let began = Instant::now();
                    for deed in [Deed::Read, Deed::Transaction, Deed::CopyOut] {
                        perform(&pool, deed, id + 1_000_000).await.unwrap();
                    }
                    kept.lock().insert((id + 1_000_000) * 10);
                    assert!(began.elapsed() < GROSS, "{id} took {:?}", began.elapsed());
                }
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    all_idle(&pool).await;
    let stats = pool.stats();
    assert_adds_up(&stats);
    assert_eq!(stats.waiting, 0);
    let ended = ended.load(Ordering::Relaxed);
    assert!(
        ended > CALLS / 20 && ended < CALLS - CALLS / 20,
        "{ended} calls ended: try other times"
    );
    // Fewer on a busy machine, where each is sooner slow.
    assert!(stats.pipelined_total > CALLS as u64 / 100, "{stats:?}");
    assert!(stats.recovered_total > 100, "{stats:?}");
    assert_eq!(stats.recovery_failures_total, 0, "{stats:?}");
    // What was acknowledged is there.
    let rows = pool.query("select id from t where id % 10 = 0", &[]).await.unwrap();
    let found: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    let missing: Vec<_> = kept.lock().difference(&found).copied().collect();
    assert!(missing.is_empty(), "{missing:?}");
    // Nobody left anything running.
    let busy = "select count(*) from pg_stat_activity \
                where backend_type = 'client backend' and pid <> pg_backend_pid() and state <> 'idle'";
    assert_eq!(pg.sql(pg.primary(), busy).await.unwrap(), "0");
}

/// The most connects under way at a time, until `stop`.
async fn most_connecting(pool: PgPool, stop: Arc<AtomicBool>) -> usize {
    let mut most = 0;
    while !stop.load(Ordering::Relaxed) {
        most = most.max(pool.stats().connecting);
        sleep(Duration::from_micros(500)).await;
    }
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_killed_under_load_is_back_at_work_soon_after_its_start() {
    let pg = cluster().await;
    let proxy = FaultProxy::start(pg.primary().addr()).await.unwrap();
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    let config = PoolConfig::new(url).max_size(10).min_idle(0);
    let pool = PgPool::connect(config.acquire_timeout(Duration::from_secs(1))).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let failed = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..64_i64 {
        let (pool, stop) = (pool.clone(), Arc::clone(&stop));
        let (answered, failed) = (Arc::clone(&answered), Arc::clone(&failed));
        tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let result = if task % 4 == 0 {
                    pool.execute("select $1::int8", &[&task]).await.map(|_| task)
                } else {
                    pool.query_one("select $1::int8", &[&task]).await.map(|row| row.get(0))
                };
                match result {
                    Ok(value) => {
                        assert_eq!(value, task);
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        assert!(error.is_connection() || error.is_saturated(), "{error:?}");
                        failed.fetch_add(1, Ordering::Relaxed);
                        sleep(Duration::from_millis(1)).await;
                    }
                }
            }
        });
    }
    let most = tokio::spawn(most_connecting(pool.clone(), Arc::clone(&stop)));
    let count = |count: &Arc<AtomicUsize>| count.load(Ordering::Relaxed);
    while count(&answered) < 2_000 {
        sleep(Duration::from_millis(5)).await;
    }
    pg.kill_primary().unwrap();
    let before = count(&failed);
    while count(&failed) < before + 64 {
        sleep(Duration::from_millis(5)).await;
    }
    let accepted = proxy.accepted();
    sleep(Duration::from_millis(500)).await;
    let attempts = proxy.accepted() - accepted;
    assert!(attempts < 200, "{attempts} connects in half a second on a dead server");
    pg.start_primary().await.unwrap();
    let from = count(&answered);
    let back = timeout(Duration::from_secs(15), async {
        while count(&answered) < from + 2_000 {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(back.await.is_ok(), "{:?}", pool.stats());
    stop.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    let most = most.await.unwrap();
    assert!((1..=4).contains(&most), "{most} connects at once");
    all_idle(&pool).await;
    assert_adds_up(&pool.stats());
}
