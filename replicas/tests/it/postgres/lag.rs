//! What a monitor says a replica lags, beside what it does lag. The errors are printed.

use std::time::Duration;

use escala_replicas::postgres::MonitorConfig;
use escala_replicas::{Exclusion, Role};
use testkit::PgCluster;
use tokio::time::{Instant, sleep};

use super::watched::{Events, Watched, watch, watch_with};
use crate::eventually;

/// What the middle one of several looks must be within.
const BUDGET: Duration = Duration::from_millis(250);

/// What each must be: a busy machine may delay one, and a wrong measure is off by much more.
const TOLERANCE: Duration = Duration::from_secs(1);

const LOOKS: usize = 9;

/// Writes a row on the primary every 20 ms until `time` is over.
async fn write_for(cluster: &PgCluster, time: Duration) -> Instant {
    let (client, connection) =
        tokio_postgres::connect(&cluster.primary().url(), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute("create table if not exists t (at timestamptz)").await.unwrap();
    let first = Instant::now();
    while first.elapsed() < time {
        client.batch_execute("insert into t values (now())").await.unwrap();
        sleep(Duration::from_millis(20)).await;
    }
    drop(client);
    connection.await.unwrap().unwrap();
    first
}

/// The lag that readers of the freshness see now: what it was, and the time since if there was any.
fn lag(watched: &Watched, name: &str) -> Duration {
    let freshness = watched.freshness(name);
    let lag = freshness.lag.unwrap();
    let since = freshness.observed_at.unwrap().elapsed();
    if lag.is_zero() { lag } else { lag + since }
}

/// Looks several times at what is told of a replica that lags by `real`.
async fn check(phase: &str, watched: &Watched, name: &str, real: impl Fn() -> Duration) {
    let mut errors = [Duration::ZERO; LOOKS];
    for error in &mut errors {
        *error = lag(watched, name).abs_diff(real());
        sleep(Duration::from_millis(50)).await;
    }
    errors.sort_unstable();
    let (median, worst) = (errors[LOOKS / 2], errors[LOOKS - 1]);
    #[expect(clippy::print_stdout, reason = "how far it is off is what one wants to see")]
    {
        println!("{phase}: off by {median:?}, at most {worst:?}");
    }
    assert!(median < BUDGET && worst < TOLERANCE, "{phase}: {errors:?}");
}

fn none() -> Duration {
    Duration::ZERO
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_is_right_when_idle_paused_and_caught_up_again() {
    let cluster = PgCluster::start(3).await.unwrap();
    let watched = watch(&cluster).await;
    write_for(&cluster, Duration::from_millis(100)).await;
    let all = || (1..=3).all(|i| watched.freshness(&format!("n{i}")).lag == Some(Duration::ZERO));
    eventually("all replicas have caught up", all).await;
    sleep(Duration::from_secs(3)).await;
    check("idle", &watched, "n1", none).await;

    cluster.pause_replay(0).await.unwrap();
    let paused = write_for(&cluster, Duration::from_secs(3)).await;
    check("replay paused", &watched, "n1", || paused.elapsed()).await;
    check("its neighbour", &watched, "n2", none).await;
    assert!(watched.freshness("n1").lag_bytes.unwrap() > 0);

    cluster.resume_replay(0).await.unwrap();
    eventually("it has caught up", || lag(&watched, "n1").is_zero()).await;
    check("recovered", &watched, "n1", none).await;
    assert_eq!(watched.freshness("n1").lag_bytes, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_is_right_with_a_frozen_walreceiver() {
    let cluster = PgCluster::start(2).await.unwrap();
    let watched = watch(&cluster).await;
    write_for(&cluster, Duration::from_millis(300)).await;
    let has_all = || watched.freshness("n1").lag == Some(Duration::ZERO);
    eventually("it has all so far", has_all).await;
    cluster.freeze(0).unwrap();
    let frozen = write_for(&cluster, Duration::from_secs(3)).await;
    check("walreceiver frozen", &watched, "n1", || frozen.elapsed()).await;
    // The popular check is fooled, and so would a look at the receiver's status be.
    let fooled = "select pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() \
                  and (select status = 'streaming' from pg_stat_wal_receiver)";
    assert_eq!(cluster.sql(cluster.standby(0), fooled).await.unwrap(), "t");
    cluster.thaw(0).unwrap();
    eventually("it has caught up", || lag(&watched, "n1").is_zero()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_too_far_behind_is_excluded_until_it_has_caught_up() {
    let cluster = PgCluster::start(2).await.unwrap();
    let config = MonitorConfig::default().max_lag(Duration::from_secs(1));
    let watched = watch_with(&cluster, config).await;
    let excluded = |name: &str| {
        let stats = watched.db.stats();
        stats.node(name).map(|node| (node.role, node.excluded)).unwrap()
    };
    cluster.pause_replay(0).await.unwrap();
    write_for(&cluster, Duration::from_secs(3)).await;
    assert_eq!(excluded("n1"), (Role::Replica, Some(Exclusion::Lag)));
    assert_eq!(excluded("n2"), (Role::Replica, None));
    cluster.resume_replay(0).await.unwrap();
    eventually("it is admitted", || excluded("n1") == (Role::Replica, None)).await;
    let is_told = || about(&watched.events, "n1").len() > 1;
    eventually("that is told as well", is_told).await;
    let told: Vec<String> = about(&watched.events, "n1");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("bytes behind") && told[1] == "n1 has caught up", "{told:?}");
    assert_eq!(watched.monitor.stats().lag_exclusions_total, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_alone_exclude() {
    let cluster = PgCluster::start(1).await.unwrap();
    let watched = watch_with(&cluster, MonitorConfig::default().max_lag_bytes(1 << 20)).await;
    cluster.pause_replay(0).await.unwrap();
    let fill = "create table big as select repeat('x', 1000) from generate_series(1, 3000)";
    cluster.sql(cluster.primary(), fill).await.unwrap();
    let is_excluded = || watched.db.stats().node("n1").unwrap().excluded == Some(Exclusion::Lag);
    eventually("it is excluded", is_excluded).await;
    assert!(watched.freshness("n1").lag_bytes.unwrap() > 1 << 20);
    cluster.resume_replay(0).await.unwrap();
    eventually("it is admitted", || !is_excluded()).await;
}

fn about(events: &Events, node: &str) -> Vec<String> {
    let events = events.all().into_iter().filter(|event| event.node() == node);
    events.map(|event| event.to_string()).collect()
}
