//! Callers who give up at any moment of anything: how long the next query takes.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use escala_pool::{PgPool, PoolConfig, PoolError};
use futures_util::future::try_join_all;
use testkit::PgCluster;
use tokio::time::{Instant, sleep_until};

use super::Bound;
use crate::Effort;

/// Milliseconds that a query after a cancelled one may take.
const MOST: f64 = 10.0;
/// More callers measure the processors.
const CALLERS: usize = 2;
const CONNECTIONS: usize = 10;
/// For connections to open, and to come back.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn measure(effort: Effort) -> anyhow::Result<Vec<Bound>> {
    let pg = PgCluster::start(0).await?;
    let config = PoolConfig::new(pg.primary().url()).max_size(CONNECTIONS).min_idle(CONNECTIONS);
    let pool = PgPool::connect(config).await?;
    pool.batch_execute("create table t (id int8)").await?;
    // A query that waits for the first connect of its connection waits for no cancel.
    let open = async {
        while pool.stats().size < CONNECTIONS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, open).await.context("all connections open")?;
    let calls = effort.of(10_000, 40) / CALLERS;
    let mut bounds = Vec::new();
    for (cancelled, reads, writes) in [
        (false, "a read, none cancelled: ms", "a write, none cancelled: ms"),
        (true, "a read after a cancel: ms", "a write after a cancel: ms"),
    ] {
        let callers = (0..CALLERS).map(|_| {
            let pool = pool.clone();
            async move { tokio::spawn(call(pool, calls, cancelled)).await? }
        });
        let both = try_join_all(callers).await?;
        let (read, written): (Vec<_>, Vec<_>) = both.into_iter().unzip();
        let most = cancelled.then_some(MOST);
        bounds.push(Bound::new(reads, read.concat(), most));
        bounds.push(Bound::new(writes, written.concat(), most));
    }
    let idle = async {
        while pool.stats().leased > pool.stats().pipelines {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, idle).await.context("connections come back")?;
    let stats = pool.stats();
    ensure!(stats.recovery_failures_total == 0, "{stats:?}");
    pool.close().await;
    Ok(bounds)
}

/// Gives something up each time and runs a read or a write after it: milliseconds of each.
async fn call(pool: PgPool, calls: usize, cancelled: bool) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for call in 0..calls {
        let id = fastrand::i64(0..1 << 40);
        if cancelled {
            give_up(deed(&pool, fastrand::usize(0..6), id)).await?;
        }
        let began = Instant::now();
        let row = if call % 2 == 0 {
            pool.query_one("select $1::int8", &[&id]).await?
        } else {
            pool.query_one("insert into t values ($1) returning id", &[&id]).await?
        };
        let milliseconds = began.elapsed().as_secs_f64() * 1e3;
        if call % 2 == 0 { &mut reads } else { &mut writes }.push(milliseconds);
        ensure!(row.get::<_, i64>(0) == id, "a foreign row");
    }
    Ok((reads, writes))
}

/// Of each kind that leaves something behind when it is dropped.
async fn deed(pool: &PgPool, kind: usize, id: i64) -> Result<(), PoolError> {
    match kind {
        0 => pool.query("select $1::int8 from generate_series(1, 300)", &[&id]).await.map(drop),
        1 => pool.query("select $1::int8, pg_sleep(20)", &[&id]).await.map(drop),
        2 => pool.execute("insert into t select $1 from pg_sleep(20)", &[&id]).await.map(drop),
        3 => {
            let mut copy = pool.copy_in("copy t from stdin").await?;
            for row in 0..100 {
                copy.send(format!("{row}\n")).await?;
            }
            copy.finish().await.map(drop)
        }
        4 => {
            let mut rows =
                pool.copy_out("copy (select generate_series(1, 9999)) to stdout").await?;
            while let Some(row) = rows.next().await {
                row?;
            }
            Ok(())
        }
        _ => {
            let mut tx = pool.begin().await?;
            tx.execute("insert into t values ($1)", &[&id]).await?;
            tx.query("select pg_sleep(20)", &[]).await?;
            tx.commit().await
        }
    }
}

/// Drops a call after some polls or some time.
async fn give_up(call: impl Future<Output = Result<(), PoolError>>) -> anyhow::Result<()> {
    let mut call = pin!(call);
    let mut polls = if fastrand::bool() { fastrand::usize(1..12) } else { usize::MAX };
    let mut late =
        pin!(sleep_until(Instant::now() + Duration::from_micros(fastrand::u64(0..6_000))));
    poll_fn(|cx| {
        if polls == 0 || late.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        polls -= 1;
        call.as_mut().poll(cx)
    })
    .await
    .context("what is given up fails of nothing else")
}
