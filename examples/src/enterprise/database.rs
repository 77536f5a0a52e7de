//! The database's nodes: opened, told apart by who is the primary, and seeded.

use std::error::Error as _;
use std::time::Duration;

use anyhow::Context;
use escala_replicas::postgres::Monitor;
use escala_replicas::{Member, Replicas, ReplicasConfig, Strategy};
use tokio::time::{Instant, timeout};

use super::lane_runtime::LaneRuntime;
use super::pool_times::PoolTimes;
use super::settings::Settings;
use super::store::{self, Node, StoreError};

/// Connections that only the lanes use: a job never queues behind a thousand requests.
const JOB_CONNECTIONS: usize = 4;
/// The name of the first node, whatever becomes of it.
const FIRST: &str = "primary";
/// Requests that a server is given at once, for each of its connections. Most reads wait for a batch
/// and many statements are on their way on one connection, so one each would idle the server; with
/// this many, a thousand users fit on the four documented nodes of ten.
const IN_FLIGHT_PER_CONNECTION: u64 = 25;
/// How long a request waits for a node with a free place, or for a primary: some promotions take no
/// longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Requests that may do so: ten thousand, as for connections.
const WAITERS: usize = 10_000;
/// How long a start waits until it is known who the primary is.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long a standby may take to replay the seed, and how often it is asked.
const REPLAY_PATIENCE: Duration = Duration::from_secs(30);
const REPLAY_POLL: Duration = Duration::from_millis(20);

/// Whether a database server may be written to at the start.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seeding {
    Allowed,
    Forbidden,
}

/// The opened nodes.
pub(super) struct Database {
    pub(super) db: Replicas<Node>,
    /// The same nodes by name, the first one first.
    pub(super) nodes: Vec<(&'static str, Node)>,
    /// As the lanes use them: those that are or may become the primary.
    pub(super) jobs_nodes: Vec<(&'static str, Node)>,
    /// Tells the router who is the primary and how far the replicas have come; `None` where there is
    /// nothing to tell.
    pub(super) monitor: Option<Monitor>,
}

/// A node with its weight.
type Weighted = (&'static str, u32, Node);

/// Opens all nodes and finds out who is the primary. A server that is away, or is a standby by now, is
/// no reason not to start, as long as one of them answers.
pub(super) async fn open(
    settings: &Settings,
    seeding: Seeding,
    lanes: &LaneRuntime,
    times: &PoolTimes,
) -> anyhow::Result<Database> {
    let Some(url) = &settings.database_url else {
        return open_embedded(settings, times).await;
    };
    let size = settings.db_pool_size.into();
    let mut opened = vec![(FIRST, 1, Node::lazy(url, size, times).context("DATABASE_URL")?)];
    let mut jobs_nodes = vec![(FIRST, for_jobs(url, lanes, times).await.context("DATABASE_URL")?)];
    for (name, weight, url) in settings.replica_urls() {
        opened.push((name, weight, Node::lazy(url, size, times).context(name)?));
        jobs_nodes.push((name, for_jobs(url, lanes, times).await.context(name)?));
    }
    let seeded = is_seeded(&opened).await?;
    let limit = IN_FLIGHT_PER_CONNECTION * u64::from(settings.db_pool_size);
    let db = router(settings, &opened, Some(limit))?;
    let monitor = monitor(&db).await?;
    let nodes: Vec<_> = opened.into_iter().map(|(name, _, node)| (name, node)).collect();
    match seeding {
        Seeding::Allowed => seed(&db, seeded).await.context("schema and seed data")?,
        Seeding::Forbidden => {
            anyhow::ensure!(seeded, "DATABASE_URL: no tables yet: the first start creates them");
        }
    }
    for (name, node) in &nodes {
        wait_for_seed(name, node).await?;
    }
    Ok(Database { db, nodes, jobs_nodes, monitor: Some(monitor) })
}

async fn open_embedded(settings: &Settings, times: &PoolTimes) -> anyhow::Result<Database> {
    let folder = &settings.data_dir;
    let told = || format!("DATA_DIR {}", folder.display());
    std::fs::create_dir_all(folder).with_context(told)?;
    let file = folder.join("enterprise.sqlite");
    let (writer, readers) = store::open_embedded(&file, times).await.with_context(told)?;
    let jobs_nodes = vec![(FIRST, writer.clone())];
    let opened: Vec<_> = std::iter::once((FIRST, 1, writer)).chain(readers).collect();
    // One file, which no budget would protect: all nodes read it with the same disk and CPUs.
    let db = router(settings, &opened, None)?;
    let nodes = opened.into_iter().map(|(name, _, node)| (name, node)).collect();
    Ok(Database { db, nodes, jobs_nodes, monitor: None })
}

async fn for_jobs(url: &str, lanes: &LaneRuntime, times: &PoolTimes) -> anyhow::Result<Node> {
    let (url, times) = (url.to_owned(), times.clone());
    Ok(lanes.spawn(async move { Node::lazy(&url, JOB_CONNECTIONS, &times) }).await??)
}

/// Whether any node has schema and seed data; an error if none of them answers.
async fn is_seeded(nodes: &[Weighted]) -> anyhow::Result<bool> {
    let (mut answers, mut seeded, mut first) = (false, false, None);
    for (name, _, node) in nodes {
        match node.is_seeded().await {
            Ok(found) => (answers, seeded) = (true, seeded || found),
            Err(error) if error.is_node_failure() => {
                tell(name, &error);
                first.get_or_insert(error);
            }
            Err(error) => return Err(error).context(variable(name)),
        }
    }
    match first {
        Some(error) if !answers => Err(error).context(variable(FIRST)),
        _ => Ok(seeded),
    }
}

/// The setting that names a node's server.
fn variable(name: &'static str) -> &'static str {
    if name == FIRST { "DATABASE_URL" } else { name }
}

fn tell(name: &str, error: &StoreError) {
    tracing::warn!(error = error as &dyn std::error::Error, cause = ?error.source(), name, "is away");
}

fn router(
    settings: &Settings,
    nodes: &[Weighted],
    limit: Option<u64>,
) -> anyhow::Result<Replicas<Node>> {
    let interval = Duration::from_millis(settings.replica_health_check_interval);
    let members = nodes.iter().map(|(name, weight, node)| {
        let member = match *name {
            FIRST => Member::primary(*name, node.clone()),
            _ => Member::replica(*name, node.clone()).weight(*weight),
        };
        match limit {
            Some(limit) => member.max_in_flight(limit),
            None => member,
        }
    });
    let config = ReplicasConfig::default().health_interval(interval);
    Ok(Replicas::with_members(members)
        .strategy(Strategy::LeastLoaded)
        .config(config.max_wait(PATIENCE).max_waiters(WAITERS))
        .probe(|node: Node| async move { node.ping().await.map_err(Into::into) })
        .build()?)
}

/// Has the servers themselves say who is the primary and how far each replica has come: without that
/// no replica could serve a client that wrote, and a primary that was demoted would never be found to
/// be one again.
async fn monitor(db: &Replicas<Node>) -> anyhow::Result<Monitor> {
    let connect = |_: &str, node: &Node| {
        let node = node.clone();
        async move { node.connect_apart().await.map_err(Into::into) }
    };
    let monitor = Monitor::builder(connect).start(db)?;
    // If nobody has told by then, the first writes will be refused and the rest is as it is.
    let _ = timeout(START_PATIENCE, monitor.settled()).await;
    Ok(monitor)
}

/// Creates what is missing on whoever is the primary. Without one, what a standby has will do for
/// reads until there is one.
async fn seed(db: &Replicas<Node>, seeded: bool) -> anyhow::Result<()> {
    let seed = |node: Node| async move {
        match node.is_seeded().await? {
            true => Ok(()),
            false => node.seed().await,
        }
    };
    let patience = if seeded { PATIENCE } else { START_PATIENCE };
    match db.write_with(patience, StoreError::fault, seed).await {
        Ok(()) => Ok(()),
        Err(error) if seeded && error.is_no_node() => {
            tracing::warn!("no server takes writes");
            Ok(())
        }
        Err(error) => match error.into_operation() {
            Some(error) if seeded && error.may_pass() => {
                tell("the primary", &error);
                Ok(())
            }
            Some(error) => Err(error.into()),
            None => anyhow::bail!("no server takes writes"),
        },
    }
}

/// Waits until the standby has replayed the seed, so that its first read finds the tables. One that
/// is away is no reason not to start: the router asks the others until it is back.
async fn wait_for_seed(name: &'static str, node: &Node) -> anyhow::Result<()> {
    let deadline = Instant::now() + REPLAY_PATIENCE;
    loop {
        match node.is_seeded().await {
            Ok(true) => return Ok(()),
            Ok(false) if Instant::now() < deadline => tokio::time::sleep(REPLAY_POLL).await,
            Ok(false) => {
                let name = variable(name);
                anyhow::bail!("{name}: the primary's tables have not arrived: does it stream?")
            }
            Err(error) if error.is_node_failure() => {
                tell(name, &error);
                return Ok(());
            }
            Err(error) => return Err(error).context(variable(name)),
        }
    }
}
