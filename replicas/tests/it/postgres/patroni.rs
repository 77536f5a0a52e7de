//! A real Patroni cluster fails over, and the set follows.

use std::time::Duration;

use escala_replicas::discovery::{DiscoveryConfig, Patroni, PatroniMember};
use escala_replicas::{Member, Replicas};
use testkit::PatroniCluster;
use tokio::time::{Instant, sleep};

use super::Database;
use super::watched::{Writers, builder, impatient};
use crate::{eventually, in_flight, node};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_patroni_cluster_fails_over_under_load_and_the_set_follows() {
    let cluster = PatroniCluster::start(3).await.unwrap();
    let first = cluster.leader(&[]).await.unwrap();
    // Only one member is told of; Patroni tells of the others.
    let lone = Database::new(&cluster.member(first).url());
    let seed = Member::unknown("seed", lone);
    let db = Replicas::with_members([seed]).config(impatient()).build().unwrap();
    let member = |member: &PatroniMember| {
        let url = format!("postgres://postgres@{}:{}/postgres", member.host, member.port);
        Some(Member::replica(member.name.clone(), Database::new(&url)))
    };
    let quick = DiscoveryConfig::default().interval(Duration::from_millis(500));
    let endpoints = cluster.members().iter().map(testkit::PatroniMember::rest_url);
    let discovery = Patroni::new(endpoints, member).config(quick).start(&db).unwrap();
    discovery.answered().await;
    // Who has served its turn goes: the same server has a name of Patroni's now.
    db.change(|members| members.remove("seed")).unwrap();
    let (builder, events) = builder();
    let monitor = builder.start(&db).unwrap();
    monitor.settled().await;
    let leader = format!("n{first}");
    let is_primary = |name: &str| monitor.stats().primary.as_deref() == Some(name);
    eventually("the leader is the primary", || is_primary(&leader)).await;
    let serve = || {
        let nodes = db.stats().nodes;
        nodes.len() == 3 && nodes.iter().filter(|node| node.excluded.is_none()).count() == 3
    };
    eventually("all members serve", serve).await;

    let writers = Writers::start(&db, 4).await;
    writers.run(&leader, 200).await;
    // Replication is asynchronous: an heir without the table would fail the writes for good.
    for i in 0..3 {
        while cluster.sql(i, "select from written limit 1").await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    }
    cluster.kill(first).await.unwrap();
    let killed = Instant::now();
    let second = cluster.leader(&[first]).await.unwrap();
    let heir = format!("n{second}");
    let known = events.promoted(&heir).await;
    writers.run(&heir, 200).await;
    assert!(monitor.stats().timeline >= 2);

    cluster.restart(first).await.unwrap();
    eventually("the old leader serves reads", || {
        let old = db.stats().node(&leader).cloned();
        old.is_some_and(|old| old.excluded.is_none() && old.healthy)
    })
    .await;
    assert_eq!(cluster.leader(&[]).await.unwrap(), second);
    let log = writers.finish().await;
    for (id, write) in &log {
        if write.picked > known {
            assert_eq!(write.node, heir, "{id}: {write:?}");
        }
    }
    let resumed = log.values().filter(|write| write.succeeded && write.node == heir);
    let resumed = resumed.map(|write| write.ended).min().unwrap();
    tell(resumed - killed, resumed.saturating_duration_since(known));
    let text = cluster.sql(second, "select id from written").await.unwrap();
    let kept: std::collections::BTreeSet<i64> =
        text.lines().map(|id| id.parse().unwrap()).collect();
    let lost = log
        .iter()
        .filter(|(id, write)| write.succeeded && write.node == heir && !kept.contains(id));
    assert_eq!(lost.count(), 0, "what the new primary took, it has");
    assert_eq!(node(&db, &heir).failed_total, 0);
    assert_eq!(in_flight(&db), 0);
    assert_eq!(discovery.stats().refused_total, 0);
}

#[expect(clippy::print_stdout, reason = "how long it takes is what one wants to see")]
fn tell(since_kill: Duration, since_known: Duration) {
    println!("writes resumed {since_kill:?} after the kill, {since_known:?} after it was known");
}
