//! A checkout and its return, without a database.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use deadpool::managed::{Metrics, RecycleResult};
use escala_pool::{Pool, PoolConfig};
use tokio::task::yield_now;

use crate::Effort;
use crate::contest::{Contender, TASKS, Timed, compete, print, time};

const CONNECTIONS: u32 = 10;

/// Makes connections that are nothing.
#[derive(Debug)]
struct Nothing;

impl bb8::ManageConnection for Nothing {
    type Connection = u64;
    type Error = Infallible;

    async fn connect(&self) -> Result<u64, Infallible> {
        Ok(7)
    }

    async fn is_valid(&self, _conn: &mut u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _conn: &mut u64) -> bool {
        false
    }
}

impl deadpool::managed::Manager for Nothing {
    type Type = u64;
    type Error = Infallible;

    async fn create(&self) -> Result<u64, Infallible> {
        Ok(7)
    }

    async fn recycle(&self, _conn: &mut u64, _metrics: &Metrics) -> RecycleResult<Infallible> {
        Ok(())
    }
}

struct Pools {
    bb8: bb8::Pool<Nothing>,
    deadpool: deadpool::managed::Pool<Nothing>,
    /// With a bound for each wait, as the others have it.
    timed: deadpool::managed::Pool<Nothing>,
    ours: Pool<Nothing>,
}

impl Pools {
    async fn new() -> anyhow::Result<Self> {
        let bb8 = bb8::Pool::builder().max_size(CONNECTIONS).test_on_check_out(false);
        let deadpool = deadpool::managed::Pool::builder(Nothing).max_size(CONNECTIONS as usize);
        let five = Some(Duration::from_secs(5));
        let timed = deadpool::managed::Pool::builder(Nothing)
            .max_size(CONNECTIONS as usize)
            .runtime(deadpool::Runtime::Tokio1)
            .wait_timeout(five)
            .create_timeout(five)
            .recycle_timeout(five);
        let config = PoolConfig::default().max_size(CONNECTIONS as usize);
        Ok(Self {
            bb8: bb8.build(Nothing).await?,
            deadpool: deadpool.build()?,
            timed: timed.build()?,
            ours: Pool::new(Nothing, config)?,
        })
    }
}

pub(crate) async fn run(effort: Effort) -> anyhow::Result<()> {
    alone(effort).await?;
    crowded(effort).await
}

/// One task, and always a connection at hand. The clock costs as much as some checkouts, so it is
/// read once for fifty.
async fn alone(effort: Effort) -> anyhow::Result<()> {
    let Pools { bb8, deadpool, timed, ours } = Pools::new().await?;
    let mut contenders = [
        Timed::new("bb8, no test", 50, move |_| {
            let pool = bb8.clone();
            async move { check(*pool.get().await?) }
        }),
        Timed::new("deadpool, no timeouts", 50, move |_| {
            let pool = deadpool.clone();
            async move { check(*pool.get().await.map_err(|error| anyhow!("{error}"))?) }
        }),
        Timed::new("deadpool, three timeouts", 50, move |_| {
            let pool = timed.clone();
            async move { check(*pool.get().await.map_err(|error| anyhow!("{error}"))?) }
        }),
        Timed::new("escala", 50, move |_| {
            let pool = ours.clone();
            async move { check(*pool.acquire().await?) }
        }),
    ];
    let text = "Checkout and return, one task";
    time(text, &mut contenders, effort.of(101, 1), effort.of(100, 2)).await
}

fn check(conn: u64) -> anyhow::Result<()> {
    ensure!(conn == 7);
    Ok(())
}

/// More tasks than connections; each holds its own for one turn of the scheduler.
async fn crowded(effort: Effort) -> anyhow::Result<()> {
    let Pools { bb8, deadpool, timed, ours } = Pools::new().await?;
    let mut contenders = [
        Contender::new("bb8, no test", TASKS, move |_| {
            let pool = bb8.clone();
            async move {
                let conn = pool.get().await?;
                yield_now().await;
                check(*conn)
            }
        }),
        Contender::new("deadpool, no timeouts", TASKS, move |_| {
            let pool = deadpool.clone();
            async move {
                let conn = pool.get().await.map_err(|error| anyhow!("{error}"))?;
                yield_now().await;
                check(*conn)
            }
        }),
        Contender::new("deadpool, three timeouts", TASKS, move |_| {
            let pool = timed.clone();
            async move {
                let conn = pool.get().await.map_err(|error| anyhow!("{error}"))?;
                yield_now().await;
                check(*conn)
            }
        }),
        Contender::new("escala", TASKS, move |_| {
            let pool = ours.clone();
            async move {
                let conn = pool.acquire().await?;
                yield_now().await;
                check(*conn)
            }
        }),
    ];
    let length = effort.of(Duration::from_millis(400), Duration::from_millis(5));
    compete(&mut contenders, effort.of(9, 1), length).await?;
    print("Checkout, 64 tasks over 10 connections, held for one turn", &contenders, &[0, 2]);
    Ok(())
}
