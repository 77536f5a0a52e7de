//! A primary that is killed under load and started again: how soon it is at work as before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use escala_benches::table::median;
use escala_pool::{PgPool, PoolConfig};
use testkit::{FaultProxy, PgCluster};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::NoTls;

use super::Bound;
use crate::Effort;
use crate::contest::TASKS;

/// Connects at a time.
const CONNECTS: f64 = 4.0;
/// Seconds from the moment at which the server accepts.
const BACK: f64 = 2.0;
/// Of the speed before.
const AT_SPEED: f64 = 0.9;
/// The speed is that of such a while.
const WINDOW: Duration = Duration::from_millis(100);

pub(super) async fn measure(effort: Effort) -> anyhow::Result<Vec<Bound>> {
    let (mut connects, mut back) = (Vec::new(), Vec::new());
    for _ in 0..effort.of(3, 1) {
        let (most, seconds) = once(effort).await?;
        connects.push(most as f64);
        back.push(seconds);
    }
    Ok(vec![
        Bound::new("a primary killed: connects at a time", connects, Some(CONNECTS)),
        Bound::new("a primary accepts: s to full speed", back, Some(BACK)),
    ])
}

async fn once(effort: Effort) -> anyhow::Result<(usize, f64)> {
    let pg = PgCluster::start(0).await?;
    let proxy = FaultProxy::start(pg.primary().addr()).await?;
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    let config = PoolConfig::new(url).max_size(10).acquire_timeout(Duration::from_secs(1));
    let pool = PgPool::connect(config).await?;
    let load = Load::start(&pool);
    sleep(effort.of(Duration::from_secs(1), WINDOW)).await;
    let mut speeds = Vec::new();
    for _ in 0..effort.of(20, 3) {
        speeds.push(load.speed().await);
    }
    let before = median(&speeds);
    pg.kill_primary()?;
    sleep(effort.of(Duration::from_millis(500), WINDOW)).await;
    let accepts = tokio::spawn(accepts(pg.primary().url()));
    pg.start_primary().await?;
    let accepted = accepts.await??;
    let again = async {
        // The window at whose end it is seen began this much earlier.
        while load.speed().await < before * effort.of(AT_SPEED, 0.1) {}
        accepted.elapsed().saturating_sub(WINDOW)
    };
    let back = timeout(Duration::from_secs(30), again).await.context("it comes back")?;
    let most = load.stop().await?;
    pool.close().await;
    Ok((most, back.as_secs_f64()))
}

/// When the server lets the first one in, by a client beside the pool.
async fn accepts(url: String) -> anyhow::Result<Instant> {
    let accepts = async {
        loop {
            if let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await {
                drop((client, connection));
                return Instant::now();
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(30), accepts).await.context("the server starts")
}

/// Tasks that read and write as fast as they can, and one that counts the connects.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
    watch: tokio::task::JoinHandle<usize>,
}

impl Load {
    fn start(pool: &PgPool) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut tasks = JoinSet::new();
        for task in 0..TASKS as i64 {
            let (pool, stop, answered) = (pool.clone(), Arc::clone(&stop), Arc::clone(&answered));
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let result = if task % 4 == 0 {
                        pool.execute("select $1::int8", &[&task]).await.map(drop)
                    } else {
                        pool.query_one("select $1::int8", &[&task]).await.map(drop)
                    };
                    match result {
                        Ok(()) => _ = answered.fetch_add(1, Ordering::Relaxed),
                        // As a user would who tries again.
                        Err(_down) => sleep(Duration::from_millis(1)).await,
                    }
                }
            });
        }
        let (watched, ended) = (pool.clone(), Arc::clone(&stop));
        let watch = tokio::spawn(async move {
            let mut look = interval(Duration::from_millis(1));
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut most = 0;
            while !ended.load(Ordering::Relaxed) {
                look.tick().await;
                most = most.max(watched.stats().connecting);
            }
            most
        });
        Self { stop, answered, tasks, watch }
    }

    /// Answers a second, over a window that begins now.
    async fn speed(&self) -> f64 {
        let (began, from) = (Instant::now(), self.answered.load(Ordering::Relaxed));
        sleep(WINDOW).await;
        (self.answered.load(Ordering::Relaxed) - from) as f64 / began.elapsed().as_secs_f64()
    }

    /// The most connects that were under way at a time.
    async fn stop(self) -> anyhow::Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
        Ok(self.watch.await?)
    }
}
