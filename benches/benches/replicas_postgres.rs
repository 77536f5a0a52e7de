//! `cargo bench -p escala-benches --bench replicas_postgres`: how far from the truth is the lag that
//! the monitor tells, beside the popular measure, and how long do writes pause for a promotion?
//!
//! The truth is the age of the oldest row that the primary has committed and the replica does not
//! show; it is 0 if there is none. The popular measure is
//! `now() - pg_last_xact_replay_timestamp()`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use escala_benches::table::{row, title};
use escala_replicas::postgres::{Monitor, connect};
use escala_replicas::{BoxError, Member, Replicas, ReplicasConfig};
use testkit::PgCluster;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, NoTls};

/// Time between two rows, and between two looks.
const STEP: Duration = Duration::from_millis(20);

/// How far off both measures were, in milliseconds.
#[derive(Default)]
struct Errors {
    told: Vec<f64>,
    popular: Vec<f64>,
}

/// A primary with a watched standby, and sessions of our own on both.
struct Stage {
    cluster: PgCluster,
    set: Replicas<String>,
    primary: Client,
    standby: Client,
    next: i32,
    /// When each row was committed that the standby may not show.
    committed: Vec<(i32, Instant)>,
}

fn main() -> anyhow::Result<()> {
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        lag(if measuring { Duration::from_secs(8) } else { Duration::from_millis(600) }).await?;
        promotion(if measuring { 7 } else { 1 }).await
    })
}

async fn lag(time: Duration) -> anyhow::Result<()> {
    let mut stage = Stage::set().await?;
    title("error of the lag in ms: median and worst");
    row("", &["monitor", "worst", "popular", "worst"].map(ToOwned::to_owned));
    stage.phase("idle", time, false).await?;
    stage.phase("busy", time, true).await?;
    stage.cluster.pause_replay(0).await?;
    stage.phase("replay paused", time, true).await?;
    stage.cluster.resume_replay(0).await?;
    stage.catch_up().await?;
    stage.phase("recovered", time, false).await?;
    stage.cluster.freeze(0)?;
    stage.phase("walreceiver frozen", time, true).await?;
    stage.cluster.thaw(0)?;
    stage.catch_up().await?;
    stage.phase("recovered", time, false).await
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        let cluster = PgCluster::start(1).await?;
        let set = watched(&cluster).await?;
        let primary = dial(&cluster.primary().url()).await.map_err(anyhow::Error::from_boxed)?;
        let standby = dial(&cluster.standby(0).url()).await.map_err(anyhow::Error::from_boxed)?;
        primary.batch_execute("create table t (id int primary key)").await?;
        let mut stage = Self { cluster, set, primary, standby, next: 0, committed: Vec::new() };
        stage.write().await?;
        stage.catch_up().await?;
        Ok(stage)
    }

    async fn write(&mut self) -> anyhow::Result<()> {
        self.next += 1;
        let id = self.next;
        self.primary.execute("insert into t values ($1)", &[&id]).await?;
        self.committed.push((id, Instant::now()));
        Ok(())
    }

    /// How old the oldest row is that the standby lacks; and what the popular measure says.
    async fn truth(&mut self) -> anyhow::Result<(Duration, Duration)> {
        let query = "select coalesce(max(id), 0), extract(epoch from \
             coalesce(now() - pg_last_xact_replay_timestamp(), '0'))::float8 from t";
        let shown = self.standby.query_one(query, &[]).await?;
        let (last, popular): (i32, f64) = (shown.get(0), shown.get(1));
        self.committed.retain(|(id, _)| *id > last);
        let oldest = self.committed.first().map_or(Duration::ZERO, |(_, at)| at.elapsed());
        Ok((oldest, Duration::from_secs_f64(popular.max(0.0))))
    }

    async fn phase(&mut self, name: &str, time: Duration, writes: bool) -> anyhow::Result<()> {
        let (begun, mut errors) = (Instant::now(), Errors::default());
        while begun.elapsed() < time {
            if writes {
                self.write().await?;
            }
            let (truth, popular) = self.truth().await?;
            let freshness = self.set.freshness("n1").context("it is in the set")?;
            // What the set says is as old as the last look at the standby.
            let told = freshness.lag.context("the lag is known")?;
            let since = freshness.observed_at.context("it was seen")?.elapsed();
            let told = if told.is_zero() { told } else { told + since };
            let off = |said: Duration| said.abs_diff(truth).as_secs_f64() * 1e3;
            errors.told.push(off(told));
            errors.popular.push(off(popular));
            sleep(STEP).await;
        }
        let figures = [&mut errors.told, &mut errors.popular].map(|errors| {
            errors.sort_by(f64::total_cmp);
            let worst = errors.last().copied().unwrap_or(f64::NAN);
            [format!("{:.0}", errors[errors.len() / 2]), format!("{worst:.0}")]
        });
        row(name, &figures.concat());
        Ok(())
    }

    async fn catch_up(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            // At first it has not even the table.
            let caught_up = self.truth().await.is_ok_and(|(lag, _)| lag.is_zero());
            let freshness = self.set.freshness("n1").context("it is in the set")?;
            if caught_up && freshness.lag == Some(Duration::ZERO) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the standby does not catch up");
            sleep(STEP).await;
        }
    }
}

async fn promotion(rounds: usize) -> anyhow::Result<()> {
    title(
        "pause of writes in ms, from the promotion on: each round a new cluster, the primary killed",
    );
    row("", &["known", "first write"].map(ToOwned::to_owned));
    for round in 1..=rounds {
        let cluster = PgCluster::start(1).await?;
        let set = watched(&cluster).await?;
        let heir = cluster.standby(0).url();
        cluster.kill_primary()?;
        let watching = dial(&heir).await.map_err(anyhow::Error::from_boxed)?;
        let writing = dial(&heir).await.map_err(anyhow::Error::from_boxed)?;
        // The moment it takes writes, as near as a session of our own can tell.
        let promoted = async {
            while watching.query_one("select pg_is_in_recovery()", &[]).await?.get(0) {
                sleep(Duration::from_millis(1)).await;
            }
            Ok::<_, anyhow::Error>(Instant::now())
        };
        let written = async {
            let mut known = None;
            loop {
                let pick = set.write().ok().filter(|pick| **pick == heir);
                if let Some(pick) = pick {
                    known = known.or(Some(Instant::now()));
                    if writing.batch_execute("create table if not exists t ()").await.is_ok() {
                        pick.succeeded();
                        return (known, Instant::now());
                    }
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        let limit = Duration::from_secs(30);
        let all = async { tokio::join!(promoted, timeout(limit, written), cluster.promote(0)) };
        let (promoted, written, done) = all.await;
        done?;
        let (promoted, (known, written)) = (promoted?, written.context("writes do not resume")?);
        let after = |at: Instant| at.saturating_duration_since(promoted).as_secs_f64() * 1e3;
        let figures = [after(known.unwrap_or(written)), after(written)];
        row(&format!("round {round}"), &figures.map(|ms| format!("{ms:.0}")));
    }
    Ok(())
}

async fn watched(cluster: &PgCluster) -> anyhow::Result<Replicas<String>> {
    let members = [
        Member::primary("n0", cluster.primary().url()),
        Member::replica("n1", cluster.standby(0).url()),
    ];
    let set = Replicas::with_members(members).config(ReplicasConfig::default()).build()?;
    let dial = |_: &str, url: &String| {
        let url = url.clone();
        async move { dial(&url).await }
    };
    Monitor::builder(dial).start(&set)?.settled().await;
    Ok(set)
}

async fn dial(url: &str) -> Result<Client, BoxError> {
    connect(&url.parse()?, NoTls).await
}
