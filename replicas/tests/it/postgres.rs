//! A real primary and three streaming standbys, killed and frozen under load.

#[cfg(feature = "postgres")]
mod positions;
#[cfg(feature = "postgres")]
mod sessions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use escala_replicas::{Reason, Replicas, ReplicasConfig, Role, Session};
use testkit::PgCluster;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use crate::{eventually, in_flight, node};

#[cfg(feature = "postgres")]
mod lag;
#[cfg(feature = "postgres")]
mod monitor;
#[cfg(all(feature = "postgres", feature = "patroni"))]
mod patroni;
#[cfg(feature = "postgres")]
mod promotion;
#[cfg(feature = "postgres")]
mod reads;
#[cfg(feature = "postgres")]
mod watched;

const REPLICAS: [&str; 3] = ["replica-1", "replica-2", "replica-3"];

/// One server with one connection, which is made again when it is lost.
#[derive(Clone)]
struct Database {
    url: Arc<str>,
    client: Arc<Mutex<Option<Arc<Client>>>>,
}

#[derive(Debug, thiserror::Error)]
enum QueryError {
    #[error("no answer in time")]
    TimedOut(#[from] tokio::time::error::Elapsed),
    #[error("the query failed")]
    Postgres(#[from] tokio_postgres::Error),
}

impl QueryError {
    /// Anything but an error that the server itself reports on the statement. A server that is
    /// starting or stopping reports 57P01 to 57P03, which is its own fault again.
    fn is_node_failure(&self) -> bool {
        match self {
            Self::TimedOut(_) => true,
            Self::Postgres(error) => {
                error.code().is_none_or(|code| code.code().starts_with("57P0"))
            }
        }
    }
}

impl Database {
    fn new(url: &str) -> Self {
        Self { url: url.into(), client: Arc::default() }
    }

    async fn client(&self) -> Result<Arc<Client>, tokio_postgres::Error> {
        let mut slot = self.client.lock().await;
        if let Some(client) = slot.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        // Its error reaches every query that was waiting on the connection.
        tokio::spawn(async move { drop(connection.await) });
        let client = Arc::new(client);
        *slot = Some(Arc::clone(&client));
        Ok(client)
    }

    async fn double(&self, number: i32) -> Result<i32, QueryError> {
        let query = async {
            let row = self.client().await?.query_one("select $1::int * 2", &[&number]).await?;
            Ok(row.get(0))
        };
        timeout(Duration::from_secs(2), query).await?
    }

    /// On a connection of its own, so that the load cannot starve it.
    async fn ping(url: Arc<str>) -> Result<(), tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        let connection = tokio::spawn(connection);
        let answer = client.simple_query("").await;
        drop(client);
        connection.abort();
        answer.map(drop)
    }
}

fn replicas(cluster: &PgCluster) -> Replicas<Database> {
    let config = ReplicasConfig::default()
        .health_interval(Duration::from_millis(100))
        .probe_timeout(Duration::from_millis(500))
        .ejection_base(Duration::from_millis(200))
        .ejection_max(Duration::from_millis(400));
    let standby = |at| Database::new(&cluster.standby(at).url());
    Replicas::builder(Database::new(&cluster.primary().url()))
        .replica("replica-1", 3, standby(0))
        .replica("replica-2", 3, standby(1))
        .replica("replica-3", 2, standby(2))
        .config(config)
        .probe(|node: Database| async move { Database::ping(node.url).await.map_err(Into::into) })
        .build()
        .unwrap()
}

/// Readers that never pause, and what became of their reads.
struct Load {
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    readers: JoinSet<Result<(), String>>,
}

impl Load {
    fn start(db: &Replicas<Database>) -> Self {
        let (stop, reads) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut readers = JoinSet::new();
        for number in 0..16 {
            let (db, stop, reads) = (db.clone(), Arc::clone(&stop), Arc::clone(&reads));
            readers.spawn(async move {
                let session = Session::new();
                while !stop.load(Relaxed) {
                    let double = |node: Database| async move { node.double(number).await };
                    let answer = db.read_with(&session, QueryError::is_node_failure, double).await;
                    match answer {
                        Ok(answer) if answer == 2 * number => reads.fetch_add(1, Relaxed),
                        other => return Err(format!("{number}: {other:?}")),
                    };
                }
                Ok(())
            });
        }
        Self { stop, reads, readers }
    }

    /// Lets the readers do `count` more reads.
    async fn run(&self, count: u64) {
        let goal = self.reads.load(Relaxed) + count;
        eventually("the readers go on", || self.reads.load(Relaxed) >= goal).await;
    }

    /// Stops the readers and asserts that no read failed.
    async fn finish(self) {
        self.stop.store(true, Relaxed);
        let results = self.readers.join_all().await;
        let failures: Vec<String> = results.into_iter().filter_map(Result::err).collect();
        assert!(failures.is_empty(), "{failures:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_standby_fails_no_read_and_returns_after_a_probe() {
    let cluster = PgCluster::start(3).await.unwrap();
    let db = replicas(&cluster);
    let load = Load::start(&db);
    // The shares of so few reads are up to which server the machine lets run; exact ones are
    // asserted where time is simulated.
    let all = || REPLICAS.iter().all(|name| node(&db, name).succeeded_total > 100);
    eventually("every replica serves", all).await;
    assert_eq!(node(&db, "primary").started_total, 0);

    cluster.kill_standby(1).unwrap();
    eventually("the dead standby is ejected", || !node(&db, "replica-2").healthy).await;
    load.run(2_000).await;
    assert!(!node(&db, "replica-2").healthy, "a dead server is not let in again");

    cluster.start_standby(1).await.unwrap();
    eventually("the standby is back", || node(&db, "replica-2").healthy).await;
    let before = node(&db, "replica-2").succeeded_total;
    eventually("it serves", || node(&db, "replica-2").succeeded_total > before + 100).await;
    load.finish().await;
    assert!(node(&db, "replica-2").failed_total > 0, "it was killed under load");
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_standbys_killed_the_primary_reads() {
    let cluster = PgCluster::start(3).await.unwrap();
    let db = replicas(&cluster);
    let load = Load::start(&db);
    load.run(1_000).await;
    for standby in 0..3 {
        cluster.kill_standby(standby).unwrap();
    }
    let out = || REPLICAS.iter().all(|name| !node(&db, name).healthy);
    eventually("all standbys are ejected", out).await;
    load.run(1_000).await;
    let pick = db.read(&Session::new()).unwrap();
    assert_eq!((pick.role(), pick.reason()), (Role::Primary, Reason::Ejected));
    drop(pick);

    cluster.start_standby(0).await.unwrap();
    eventually("one standby is back", || node(&db, "replica-1").healthy).await;
    load.run(1_000).await;
    assert_eq!(db.read(&Session::new()).unwrap().name(), "replica-1");
    load.finish().await;
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_standby_fails_no_read_and_returns_when_it_thaws() {
    let cluster = PgCluster::start(3).await.unwrap();
    let db = replicas(&cluster);
    let load = Load::start(&db);
    load.run(1_000).await;
    cluster.freeze_node(cluster.standby(2)).unwrap();
    eventually("the frozen standby is ejected", || !node(&db, "replica-3").healthy).await;
    load.run(1_000).await;
    cluster.thaw_node(cluster.standby(2)).unwrap();
    eventually("the standby is back", || node(&db, "replica-3").healthy).await;
    load.run(1_000).await;
    load.finish().await;
    assert_eq!(in_flight(&db), 0);
}
