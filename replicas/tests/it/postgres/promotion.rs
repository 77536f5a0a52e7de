//! Promotions under load, old primaries that come back, and split brains.

use std::collections::BTreeSet;
use std::time::Duration;

use escala_replicas::postgres::Event;
use escala_replicas::{Exclusion, Role, RouteError, Session};
use testkit::{PgCluster, PgNode};
use tokio::time::{Instant, sleep};

use super::watched::{Watched, Writers, Written, watch};
use crate::{eventually, in_flight};

/// The keys that a server has.
async fn keys(cluster: &PgCluster, node: &PgNode) -> BTreeSet<i64> {
    let text = cluster.sql(node, "select id from written").await.unwrap();
    text.lines().map(|id| id.parse().unwrap()).collect()
}

/// Waits until all standbys have the table: an heir without it would fail the writes for good.
async fn replicated(cluster: &PgCluster) {
    for standby in cluster.standbys() {
        while cluster.sql(standby, "select from written limit 1").await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// When the first write succeeded that was sent to `node`.
fn resumed(log: &std::collections::BTreeMap<i64, Written>, node: &str) -> Instant {
    let mut done: Vec<Instant> =
        log.values().filter(|w| w.succeeded && w.node == node).map(|w| w.ended).collect();
    done.sort();
    done[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_follow_a_promotion_and_the_old_primary_never_gets_one_again() {
    let cluster = PgCluster::start(3).await.unwrap();
    let watched = watch(&cluster).await;
    let writers = Writers::start(&watched.db, 8).await;
    writers.run("n0", 500).await;
    replicated(&cluster).await;

    cluster.kill_primary().unwrap();
    cluster.promote(0).await.unwrap();
    let promoted = Instant::now();
    let known = watched.events.promoted("n1").await;
    writers.run("n1", 500).await;
    let pause = resumed(&writers.log(), "n1").saturating_duration_since(promoted);
    println!("writes resumed {pause:?} after the promotion was reported done");
    assert!(pause < Duration::from_secs(1), "{pause:?}");

    // The old one comes back unchanged: it takes writes, but nobody may send it any.
    cluster.start_primary().await.unwrap();
    watched.standing("n0", "fenced").await;
    // By its own word: until now it was only known that it must not take any.
    watched.events.fenced("n0").await;
    assert_eq!(cluster.sql(cluster.primary(), "select pg_is_in_recovery()").await.unwrap(), "f");
    writers.run("n1", 500).await;
    let log = writers.finish().await;
    let (old, new) =
        (keys(&cluster, cluster.primary()).await, keys(&cluster, cluster.standby(0)).await);
    for (id, write) in &log {
        if write.picked > known {
            assert_eq!(write.node, "n1", "{id}: {write:?}");
            assert!(!old.contains(id), "{id} reached the old primary");
        }
        if write.succeeded && write.node == "n1" {
            assert!(new.contains(id), "{id} is lost");
        }
    }
    let stats = watched.db.stats();
    let fenced = stats.node("n0").unwrap();
    assert_eq!((fenced.role, fenced.excluded), (Role::None, Some(Exclusion::Fenced)));
    let stats = watched.monitor.stats();
    assert_eq!((stats.promotions_total, stats.fenced_total), (2, 1));

    // It is made to follow the new one, and serves again.
    cluster.rejoin(cluster.primary(), cluster.standby(0)).await.unwrap();
    watched.standing("n0", "replica").await;
    let serves = || {
        let pick = watched.db.read(&Session::new()).unwrap();
        pick.name() == "n0"
    };
    eventually("the old primary serves reads", serves).await;
    assert_eq!(in_flight(&watched.db), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_standbys_serve_as_soon_as_they_follow() {
    let cluster = PgCluster::start(2).await.unwrap();
    let watched = watch(&cluster).await;
    cluster.kill_primary().unwrap();
    cluster.promote(0).await.unwrap();
    watched.events.promoted("n1").await;
    let excluded = || watched.db.stats().node("n2").unwrap().excluded;
    // Nobody knows whether it has gone another way, until it receives the new timeline.
    eventually("n2 is excluded", || excluded() == Some(Exclusion::Unknown)).await;
    cluster.follow(1, cluster.standby(0)).await.unwrap();
    eventually("n2 is admitted", || excluded().is_none()).await;
    let has_all = || {
        let freshness = watched.freshness("n2");
        (freshness.timeline, freshness.lag) == (2, Some(Duration::ZERO))
    };
    eventually("n2 has all", has_all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_is_noticed_by_the_first_refused_write() {
    let cluster = PgCluster::start(2).await.unwrap();
    let watched = watch(&cluster).await;
    let writers = Writers::start(&watched.db, 4).await;
    writers.run("n0", 100).await;
    // The old primary is shut down in order and comes back at once as a standby of the new one.
    cluster.stop(cluster.primary()).await.unwrap();
    cluster.promote(0).await.unwrap();
    cluster.rejoin(cluster.primary(), cluster.standby(0)).await.unwrap();
    watched.standing("n0", "replica").await;
    writers.run("n1", 100).await;
    // And back again.
    cluster.stop(cluster.standby(0)).await.unwrap();
    cluster.sql(cluster.primary(), "select pg_promote()").await.unwrap();
    watched.standing("n0", "primary").await;
    writers.run("n0", 100).await;
    let log = writers.finish().await;
    let survived = keys(&cluster, cluster.primary()).await;
    let lost: Vec<_> =
        log.iter().filter(|(id, write)| write.succeeded && !survived.contains(id)).collect();
    assert!(lost.is_empty(), "shut down in order, nothing is lost: {lost:?}");
    assert_eq!(watched.monitor.stats().timeline, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_brain_keeps_the_known_primary_and_is_reported() {
    let cluster = PgCluster::start(2).await.unwrap();
    let watched = watch(&cluster).await;
    cluster.kill_primary().unwrap();
    cluster.promote(0).await.unwrap();
    watched.events.promoted("n1").await;
    // The second standby has not heard of it, and begins the same timeline.
    cluster.promote(1).await.unwrap();
    watched.standing("n2", "rival").await;
    let is_it = |event: &Event| {
        let expected = Event::SplitBrain {
            node: "n2".to_owned(),
            primary: Some("n1".to_owned()),
            timeline: 2,
        };
        *event == expected
    };
    watched.events.has("the split brain is reported", is_it).await;
    for _ in 0..100 {
        assert_eq!(watched.db.write().unwrap().name(), "n1");
        assert_ne!(watched.db.read(&Session::new()).unwrap().name(), "n2");
    }
    // Not even when the known one dies: what the other has is not what was promised.
    cluster.stop(cluster.standby(0)).await.unwrap();
    let is_lost = || !watched.monitor.stats().node("n1").unwrap().answers;
    eventually("n1 is gone", is_lost).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(watched.db.write().unwrap().name(), "n1");
}

#[tokio::test]
async fn an_old_primary_that_a_new_process_meets_first_gets_nothing() {
    let cluster = PgCluster::start(1).await.unwrap();
    cluster.kill_primary().unwrap();
    cluster.promote(0).await.unwrap();
    cluster.start_primary().await.unwrap();
    // The configuration still calls n0 the primary, and both take writes.
    let Watched { db, monitor, .. } = {
        let urls = super::watched::urls(&cluster);
        let members = super::watched::members(&urls);
        let db = escala_replicas::Replicas::with_members(members).build().unwrap();
        let (builder, events) = super::watched::builder();
        let monitor = builder.start(&db).unwrap();
        assert_eq!(db.write().unwrap_err(), RouteError::PrimaryUnknown);
        monitor.settled().await;
        Watched { db, monitor, events }
    };
    assert_eq!(db.write().unwrap().name(), "n1");
    assert_eq!(monitor.stats().node("n0").unwrap().standing, "fenced");
}
