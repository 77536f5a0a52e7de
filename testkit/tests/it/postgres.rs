//! PostgreSQL clusters: replication, faults, failover and the end.

use std::path::Path;
use std::process::{Command, Stdio};

use testkit::{Error, PgCluster, PgNode};
use tokio::time::{Duration, sleep};

/// Asks a node until it gives this answer; the test's runner ends a test that waits for ever.
async fn until_answer(pg: &PgCluster, node: &PgNode, query: &str, wanted: &str) {
    while !matches!(pg.sql(node, query).await, Ok(answer) if answer == wanted) {
        sleep(Duration::from_millis(10)).await;
    }
}

async fn with_table(standbys: usize) -> PgCluster {
    let pg = PgCluster::start(standbys).await.expect("a cluster");
    pg.sql(pg.primary(), "create table t (id int)").await.expect("a table");
    pg
}

async fn insert(pg: &PgCluster, node: &PgNode, id: u32) {
    pg.sql(node, &format!("insert into t values ({id})")).await.expect("a row");
}

const COUNT: &str = "select count(*) from t";
const STREAMING: &str = "select count(*) from pg_stat_replication where state = 'streaming'";

#[tokio::test]
async fn three_standbys_stream_and_replicate() {
    let pg = with_table(3).await;
    assert_eq!(pg.sql(pg.primary(), STREAMING).await.unwrap(), "3");
    insert(&pg, pg.primary(), 1).await;
    for standby in pg.standbys() {
        until_answer(&pg, standby, COUNT, "1").await;
        let refused = pg.sql(standby, "insert into t values (2)").await.unwrap_err();
        assert!(refused.to_string().contains("read-only"), "{refused}");
    }
}

#[tokio::test]
async fn the_url_serves_a_client() {
    let pg = PgCluster::start(0).await.unwrap();
    let (client, connection) =
        tokio_postgres::connect(&pg.primary().url(), tokio_postgres::NoTls).await.unwrap();
    let serving = tokio::spawn(connection);
    let one: i32 = client.query_one("select 1", &[]).await.unwrap().get(0);
    assert_eq!(one, 1);
    drop(client);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn options_reach_every_node() {
    let pg = PgCluster::builder()
        .standbys(1)
        .max_connections(57)
        .setting("log_line_prefix", "it's")
        .start()
        .await
        .unwrap();
    for node in [pg.primary(), pg.standby(0)] {
        assert_eq!(pg.sql(node, "show max_connections").await.unwrap(), "57");
        assert_eq!(pg.sql(node, "show log_line_prefix").await.unwrap(), "it's");
    }
}

#[tokio::test]
async fn a_paused_standby_lags_until_it_is_resumed() {
    let pg = with_table(1).await;
    until_answer(&pg, pg.standby(0), COUNT, "0").await;
    pg.pause_replay(0).await.unwrap();
    insert(&pg, pg.primary(), 1).await;
    // It has received the row, and does not show it.
    let lsn = pg.sql(pg.primary(), "select pg_current_wal_lsn()").await.unwrap();
    let received = format!("select pg_last_wal_receive_lsn() >= '{lsn}'");
    until_answer(&pg, pg.standby(0), &received, "t").await;
    assert_eq!(pg.sql(pg.standby(0), COUNT).await.unwrap(), "0");
    pg.resume_replay(0).await.unwrap();
    until_answer(&pg, pg.standby(0), COUNT, "1").await;
}

#[tokio::test]
async fn a_frozen_walreceiver_lags_without_knowing() {
    let pg = with_table(2).await;
    until_answer(&pg, pg.standby(0), COUNT, "0").await;
    pg.freeze(0).unwrap();
    insert(&pg, pg.primary(), 1).await;
    until_answer(&pg, pg.standby(1), COUNT, "1").await;
    assert_eq!(pg.sql(pg.standby(0), COUNT).await.unwrap(), "0");
    pg.thaw(0).unwrap();
    until_answer(&pg, pg.standby(0), COUNT, "1").await;
}

#[tokio::test]
async fn a_frozen_node_answers_nobody() {
    let pg = PgCluster::start(0).await.unwrap();
    let node = pg.primary();
    pg.freeze_node(node).unwrap();
    let stopped = std::fs::read_to_string(format!("/proc/{}/stat", node.pid().unwrap())).unwrap();
    assert!(stopped.contains(") T "), "{stopped}");
    // The kernel makes the connection all the same.
    tokio::net::TcpStream::connect(node.addr()).await.unwrap();
    pg.thaw_node(node).unwrap();
    assert_eq!(pg.sql(node, "select 1").await.unwrap(), "1");
}

#[tokio::test]
async fn a_killed_standby_comes_back_and_catches_up() {
    let pg = with_table(1).await;
    let port = pg.standby(0).port();
    pg.kill_standby(0).unwrap();
    assert_eq!(pg.standby(0).pid(), None);
    tokio::net::TcpStream::connect(pg.standby(0).addr()).await.unwrap_err();
    insert(&pg, pg.primary(), 1).await;
    pg.start_standby(0).await.unwrap();
    assert_eq!(pg.standby(0).port(), port);
    until_answer(&pg, pg.standby(0), COUNT, "1").await;
}

#[tokio::test]
async fn a_running_node_is_not_started_twice() {
    let pg = PgCluster::start(0).await.unwrap();
    assert!(matches!(pg.start_primary().await, Err(Error::Running { .. })));
    pg.kill_primary().unwrap();
    assert!(matches!(pg.freeze_node(pg.primary()), Err(Error::NotRunning { .. })));
    pg.start_primary().await.unwrap();
}

#[tokio::test]
async fn a_standby_takes_over_and_the_old_primary_rejoins() {
    let pg = with_table(2).await;
    // Replication is asynchronous: what a standby has not got dies with the primary.
    for standby in pg.standbys() {
        until_answer(&pg, standby, COUNT, "0").await;
    }
    pg.kill_primary().unwrap();
    pg.promote(0).await.unwrap();
    pg.follow(1, pg.standby(0)).await.unwrap();
    insert(&pg, pg.standby(0), 1).await;
    until_answer(&pg, pg.standby(1), COUNT, "1").await;

    // Two primaries: the old one comes back as it was and takes a write of its own.
    pg.start_primary().await.unwrap();
    insert(&pg, pg.primary(), 2).await;
    insert(&pg, pg.primary(), 3).await;
    assert_eq!(pg.sql(pg.primary(), COUNT).await.unwrap(), "2");

    pg.rejoin(pg.primary(), pg.standby(0)).await.unwrap();
    assert_eq!(pg.sql(pg.primary(), "select pg_is_in_recovery()").await.unwrap(), "t");
    insert(&pg, pg.standby(0), 4).await;
    until_answer(&pg, pg.primary(), "select string_agg(id::text, ',') from t", "1,4").await;
    assert_eq!(pg.sql(pg.standby(0), STREAMING).await.unwrap(), "2");
}

#[tokio::test]
async fn two_clusters_do_not_meet() {
    let (one, two) = tokio::try_join!(PgCluster::start(1), PgCluster::start(1)).unwrap();
    one.sql(one.primary(), "create table only_here ()").await.unwrap();
    two.sql(two.primary(), "select * from only_here").await.unwrap_err();
    assert_eq!(two.sql(two.primary(), STREAMING).await.unwrap(), "1");
}

#[tokio::test]
async fn a_primary_that_is_shut_down_in_order_loses_nothing() {
    let pg = with_table(1).await;
    insert(&pg, pg.primary(), 1).await;
    pg.stop(pg.primary()).await.unwrap();
    assert_eq!(pg.primary().pid(), None);
    // It has all, and shows it as soon as it has replayed it.
    until_answer(&pg, pg.standby(0), COUNT, "1").await;
}

#[tokio::test]
async fn clusters_are_copies_of_one_system_unless_they_ask_for_their_own() {
    const SYSTEM: &str = "select system_identifier from pg_control_system()";
    let own = PgCluster::builder().standbys(1).own_system();
    let (one, two, own) =
        tokio::try_join!(PgCluster::start(0), PgCluster::start(0), own.start()).unwrap();
    let system = one.sql(one.primary(), SYSTEM).await.unwrap();
    assert_eq!(two.sql(two.primary(), SYSTEM).await.unwrap(), system);
    assert_ne!(own.sql(own.primary(), SYSTEM).await.unwrap(), system);
}

#[tokio::test]
async fn dropping_a_cluster_ends_frozen_nodes_and_removes_the_data() {
    let pg = PgCluster::start(2).await.unwrap();
    let pids: Vec<u32> = [pg.primary(), pg.standby(0), pg.standby(1)]
        .into_iter()
        .map(|node| node.pid().unwrap())
        .collect();
    let data = pg.sql(pg.primary(), "show data_directory").await.unwrap();
    assert!(Path::new(&data).exists());
    pg.freeze(0).unwrap();
    pg.freeze_node(pg.standby(1)).unwrap();
    let children: Vec<u32> = pids.iter().flat_map(|pid| children(*pid)).collect();
    assert!(children.len() >= 3 * 4, "{children:?}");
    drop(pg);
    for pid in pids.iter().chain(&children) {
        assert!(is_gone(*pid), "process {pid} is still there");
    }
    assert!(!Path::new(&data).exists());
}

#[tokio::test]
async fn a_killed_node_leaves_no_shared_memory() {
    let pg = PgCluster::start(0).await.unwrap();
    let data = pg.sql(pg.primary(), "show data_directory").await.unwrap();
    let lines = std::fs::read_to_string(Path::new(&data).join("postmaster.pid")).unwrap();
    let key_and_id: Vec<&str> = lines.lines().nth(6).unwrap().split_whitespace().collect();
    let exists = || {
        let segments = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        segments.lines().any(|line| line.split_whitespace().nth(1) == Some(key_and_id[1]))
    };
    pg.kill_primary().unwrap();
    assert!(exists(), "the server has no segment, so this test needs another witness");
    drop(pg);
    assert!(!exists());
}

#[tokio::test]
async fn a_panic_ends_the_cluster() {
    let pg = PgCluster::start(0).await.unwrap();
    let pid = pg.primary().pid().unwrap();
    let panicked = tokio::spawn(async move {
        let _pg = pg;
        panic!("on purpose");
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert!(is_gone(pid));
}

#[tokio::test]
async fn a_killed_test_leaves_no_server() {
    // Another test of this binary, killed as soon as it runs servers.
    let victim = "postgres::three_standbys_stream_and_replicate";
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", victim])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let servers = loop {
        assert_eq!(test.try_wait().unwrap(), None, "it ended before it could be killed");
        let servers: Vec<u32> =
            children(test.id()).into_iter().filter(|pid| is_server(*pid)).collect();
        if servers.len() == 4 {
            break servers;
        }
        sleep(Duration::from_millis(1)).await;
    };
    test.kill().unwrap();
    test.wait().unwrap();
    for pid in servers {
        while !is_gone(pid) {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_does_not_disturb_a_start() {
    let pg = PgCluster::start(1).await.unwrap();
    assert_eq!(pg.sql(pg.primary(), STREAMING).await.unwrap(), "1");
}

/// The children that any thread of the process has made.
fn children(parent: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{parent}/task")).expect("a living process");
    let lists = threads.flatten().filter_map(|thread| {
        // The thread may have ended meanwhile.
        std::fs::read_to_string(thread.path().join("children")).ok()
    });
    let list: String = lists.collect();
    list.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
}

/// Whether the process has become a PostgreSQL server; it is `setpriv` at first.
fn is_server(pid: u32) -> bool {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split('\0').next().is_some_and(|program| program.ends_with("/postgres"))
}

/// A zombie that its new parent, process 1, has not reaped is gone for our purposes.
fn is_gone(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}
