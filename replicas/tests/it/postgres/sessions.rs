//! Sessions over a real primary and three standbys: a client sees what it wrote, whatever becomes of
//! the standbys.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use escala_replicas::postgres::{self, Monitor, MonitorConfig};
use escala_replicas::session::postgres as position;
use escala_replicas::{Fault, Reason, Replicas, Role, Session, Token};
use testkit::PgCluster;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;

use super::{Database, REPLICAS};
use crate::{eventually, in_flight, node, steady};

impl Database {
    async fn insert(self, id: i32) -> Result<Token, tokio_postgres::Error> {
        let client = self.client().await?;
        let insert = client.prepare("insert into t values ($1)").await?;
        Ok(position::execute(&client, &insert, &[&id]).await?.1)
    }

    async fn has(self, id: i32) -> Result<bool, tokio_postgres::Error> {
        let rows = self.client().await?.query("select from t where id = $1", &[&id]).await?;
        Ok(!rows.is_empty())
    }
}

/// A cluster with a table that all standbys have, and a set that a monitor watches.
async fn cluster(standbys: usize) -> (PgCluster, Replicas<Database>) {
    let cluster = PgCluster::start(standbys).await.unwrap();
    let config =
        steady().ejection_base(Duration::from_millis(100)).ejection_max(Duration::from_millis(200));
    let primary = Database::new(&cluster.primary().url());
    let mut builder = Replicas::builder(primary).config(config);
    for (standby, name) in cluster.standbys().iter().zip(REPLICAS) {
        builder = builder.replica(name, 1, Database::new(&standby.url()));
    }
    let db = builder.build().unwrap();
    let connect = |_: &str, node: &Database| {
        let config: tokio_postgres::Config = node.url.parse().unwrap();
        async move { postgres::connect(&config, NoTls).await }
    };
    let config = MonitorConfig::default().max_lag(Duration::from_secs(60));
    let monitor = Monitor::builder(connect).config(config).start(&db).unwrap();
    monitor.settled().await;
    cluster.sql(cluster.primary(), "create table t (id int primary key)").await.unwrap();
    for standby in cluster.standbys() {
        while cluster.sql(standby, "select count(*) from t").await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    }
    (cluster, db)
}

fn picks<N>(db: &Replicas<N>, name: &str, reason: Reason) -> u64 {
    let stats = node(db, name);
    stats.picks.iter().find(|picks| picks.reason == reason).map_or(0, |picks| picks.picks_total)
}

/// A thousand times: writes, and reads at once what it wrote. Ten clients take turns.
async fn write_then_read(db: &Replicas<Database>, first: i32) {
    let mut clients = JoinSet::new();
    for client in 0..10 {
        let db = db.clone();
        clients.spawn(async move {
            let mut failures = Vec::new();
            for round in 0..100 {
                let id = first + 100 * client + round;
                let insert = move |node: Database| node.insert(id);
                let write = db.write_with(Duration::from_secs(5), position::fault, insert);
                let mut session = Session::new();
                session.wrote(write.await.unwrap());
                let read = |node: Database| node.has(id);
                match db.read_with(&session, position::fault, read).await {
                    Ok(true) => {}
                    stale_or_failed => failures.push(format!("{id}: {stale_or_failed:?}")),
                }
            }
            failures
        });
    }
    let failures: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(in_flight(db), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_writes_are_read_at_once_whatever_the_standbys_do() {
    let (cluster, db) = cluster(3).await;
    write_then_read(&db, 0).await;
    let by_replicas =
        |db| REPLICAS.iter().map(|name| picks(db, name, Reason::RywToken)).sum::<u64>();
    let healthy = by_replicas(&db);
    assert!(healthy > 500, "replicas served {healthy} of 1,000: they are a millisecond behind");

    cluster.pause_replay(0).await.unwrap();
    let paused = picks(&db, "replica-1", Reason::RywToken);
    write_then_read(&db, 1_000).await;
    assert_eq!(picks(&db, "replica-1", Reason::RywToken), paused, "it has none of these");
    assert!(by_replicas(&db) > healthy, "the others do");

    cluster.pause_replay(1).await.unwrap();
    cluster.pause_replay(2).await.unwrap();
    let primary = picks(&db, "primary", Reason::RywToken);
    let before = by_replicas(&db);
    write_then_read(&db, 2_000).await;
    assert_eq!(picks(&db, "primary", Reason::RywToken), primary + 1_000);
    assert_eq!(by_replicas(&db), before);
    // Those who wrote nothing read there all the same.
    let anybody = Session::new();
    let old = db.read_with(&anybody, position::fault, |node: Database| node.has(0));
    assert!(old.await.unwrap());

    for standby in 0..3 {
        cluster.resume_replay(standby).await.unwrap();
    }
    let mut session = Session::new();
    let written =
        db.write_with(Duration::from_secs(5), position::fault, |n: Database| n.insert(-1));
    session.wrote(written.await.unwrap());
    eventually("the standbys are back", || {
        db.read(&session).is_ok_and(|pick| pick.role() == Role::Replica)
    })
    .await;
}

/// A standby that crashes replays anew from some point before, and lets readers in on the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_crashes_and_comes_back_serves_nothing_old() {
    let (cluster, db) = cluster(2).await;
    let load = tokio::spawn({
        let db = db.clone();
        async move {
            for round in 0..3 {
                write_then_read(&db, 1_000 * round).await;
            }
        }
    });
    let mut crashes = 0;
    while !load.is_finished() {
        cluster.kill_standby(0).unwrap();
        cluster.start_standby(0).await.unwrap();
        crashes += 1;
    }
    load.await.unwrap();
    assert!(crashes > 1, "it crashed in between");
    assert!(node(&db, "replica-1").failed_total + node(&db, "replica-1").probes_failed_total > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_a_lost_history_is_served_by_the_primary() {
    let (cluster, db) = cluster(3).await;
    // Standby 0 is to be promoted without the last write, and standby 1 to follow it.
    for standby in 0..2 {
        cluster.kill_standby(standby).unwrap();
    }
    let write = |id| {
        let insert = move |node: Database| node.insert(id);
        db.write_with(Duration::from_secs(20), position::fault, insert)
    };
    let mut session = Session::new();
    session.wrote(write(1).await.unwrap());
    let lost = session.token().unwrap();
    let has_it = || db.read(&session).is_ok_and(|pick| pick.name() == "replica-3");
    eventually("standby 2 has it", has_it).await;

    cluster.kill_primary().unwrap();
    for standby in 0..2 {
        cluster.start_standby(standby).await.unwrap();
    }
    cluster.promote(0).await.unwrap();
    cluster.follow(1, cluster.standby(0)).await.unwrap();
    let mut new = write(2).await.unwrap();
    assert_eq!((lost.timeline(), new.timeline()), (1, 2));
    // The same numbers stand for other bytes now.
    for id in 3.. {
        if new.position() > lost.position() {
            break;
        }
        new = write(id).await.unwrap();
    }
    let mut later = Session::new();
    later.wrote(new);
    let follows = || db.read(&later).is_ok_and(|pick| pick.name() == "replica-2");
    eventually("standby 1 follows", follows).await;
    eventually("the new primary is well", || node(&db, "replica-1").healthy).await;
    assert!(db.freshness("replica-2").unwrap().position >= lost.position());
    for _ in 0..100 {
        let pick = db.wait_read(&session).await.unwrap();
        assert_eq!((pick.name(), pick.reason()), ("replica-1", Reason::RywToken));
        assert!(!pick.clone().has(1).await.unwrap(), "lost, as everybody is told");
        assert!(pick.clone().has(2).await.unwrap());
        pick.succeeded();
    }
    // What is written now is later than what was lost.
    session.wrote(new);
    assert_eq!(session.token().map(|token| token.timeline()), Some(2));
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_on_staleness_is_kept() {
    let (cluster, db) = cluster(3).await;
    let bounded = Session::new().max_lag(Duration::from_secs(1));
    let served = async |count: usize| {
        let mut names = HashSet::new();
        for _ in 0..count {
            let pick = db.wait_read(&bounded).await.unwrap();
            names.insert(pick.name().to_owned());
            pick.succeeded();
        }
        names
    };
    eventually("the standbys are fresh", || {
        db.read(&bounded).is_ok_and(|pick| pick.role() == Role::Replica)
    })
    .await;
    cluster.pause_replay(1).await.unwrap();
    cluster.sql(cluster.primary(), "insert into t values (1)").await.unwrap();
    let paused = Instant::now();
    sleep(Duration::from_secs(2)).await;
    let names = served(200).await;
    assert!(!names.contains("replica-2"), "it lags {:?}: {names:?}", paused.elapsed());
    assert!(names.iter().any(|name| name != "primary"), "{names:?}");
    // Tighter than the monitor's interval: each read has somebody look first.
    let tight = Session::new().max_lag(Duration::from_millis(400));
    let pick = db.wait_read(&tight).await.unwrap();
    assert_ne!(pick.name(), "replica-2");
    for standby in [0, 2] {
        cluster.pause_replay(standby).await.unwrap();
    }
    cluster.sql(cluster.primary(), "insert into t values (2)").await.unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(served(20).await, HashSet::from(["primary".to_owned()]));
    assert!(picks(&db, "primary", Reason::LagExcluded) >= 20);
}

/// The recipe: a reader looks at what the primary has deleted and vacuumed away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_a_vacuum_cancels_goes_on_elsewhere() {
    let cluster = PgCluster::builder()
        .standbys(2)
        .setting("max_standby_streaming_delay", "0")
        .setting("hot_standby_feedback", "off")
        .start()
        .await
        .unwrap();
    let fill = "create table t as select generate_series(1, 1000) as id";
    cluster.sql(cluster.primary(), fill).await.unwrap();
    for standby in cluster.standbys() {
        while cluster.sql(standby, "select count(*) from t").await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    }
    let db = Replicas::builder(Database::new(&cluster.primary().url()))
        .replica("replica-1", 1, Database::new(&cluster.standby(0).url()))
        .replica("replica-2", 1, Database::new(&cluster.standby(1).url()))
        .config(steady())
        .build()
        .unwrap();
    let begun = AtomicU64::new(0);
    let faults = parking_lot::Mutex::new(Vec::new());
    let classify = |error: &tokio_postgres::Error| {
        let fault = position::fault(error);
        faults.lock().push(fault);
        fault
    };
    let read = |node: Database| {
        let attempt = begun.fetch_add(1, Relaxed);
        async move {
            let client = node.client().await?;
            // The first is slow enough to be in the way.
            let sql = match attempt {
                0 => "select count(*), pg_sleep(60) from (select id from t limit 1) as s",
                _ => "select count(*), null from t",
            };
            Ok::<i64, tokio_postgres::Error>(client.query_one(sql, &[]).await?.get(0))
        }
    };
    let vacuum = async {
        let busy = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
        let is_busy = async || {
            let [a, b] = [0, 1].map(|standby| cluster.sql(cluster.standby(standby), busy));
            a.await.unwrap() == "1" || b.await.unwrap() == "1"
        };
        for _ in 0..1_000 {
            if is_busy().await {
                break;
            }
        }
        cluster.sql(cluster.primary(), "delete from t where id <= 990").await.unwrap();
        cluster.sql(cluster.primary(), "vacuum t").await.unwrap();
    };
    let session = Session::new();
    let (answer, ()) = tokio::join!(db.read_with(&session, classify, read), vacuum);
    let rows = answer.unwrap();
    assert!(rows == 10 || rows == 1_000, "{rows}");
    // The other standby may have that vacuum still to come when the read begins there.
    let faults = faults.into_inner();
    assert!(!faults.is_empty() && faults.iter().all(|fault| *fault == Fault::Conflict));
    assert_eq!(begun.load(Relaxed), faults.len() as u64 + 1);
    for name in ["replica-1", "replica-2"] {
        assert_eq!(node(&db, name).failed_total, 0, "nobody is to blame");
    }
    assert_eq!(in_flight(&db), 0);
}
