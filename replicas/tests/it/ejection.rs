//! Sets without a probe: who is taken out by failed requests, who serves meanwhile, who returns.

use std::time::Duration;

use escala_replicas::{Reason, Replicas, Session, Strategy};
use tokio::time::advance;

use crate::{Name, documented, in_flight, node, steady};

const REPLICAS: [&str; 3] = ["replica-1", "replica-2", "replica-3"];

/// Fails every read that goes to one of `doomed` until all of them are out.
fn eject(db: &Replicas<Name>, doomed: &[&str]) {
    for _ in 0..100 {
        let pick = db.read(&Session::new()).unwrap();
        if doomed.contains(&pick.name()) {
            pick.failed();
        }
    }
    assert!(doomed.iter().all(|name| !node(db, name).healthy));
}

#[tokio::test(start_paused = true)]
async fn an_ejected_replica_gets_nothing_until_its_time_is_up() {
    let db = documented(Strategy::LeastLoaded);
    eject(&db, &["replica-1"]);
    let before = node(&db, "replica-1");
    assert_eq!((before.ejections_total, before.failed_total), (1, 3));
    advance(Duration::from_millis(29_999)).await;
    for _ in 0..100 {
        db.read(&Session::new()).unwrap().succeeded();
    }
    assert_eq!(node(&db, "replica-1").started_total, before.started_total);
}

#[tokio::test(start_paused = true)]
async fn one_request_at_a_time_tries_an_ejected_replica() {
    let db = documented(Strategy::LeastLoaded);
    eject(&db, &["replica-1"]);
    advance(Duration::from_secs(30)).await;
    let trial = db.read(&Session::new()).unwrap();
    assert_eq!((trial.name(), trial.reason()), ("replica-1", Reason::Trial));
    assert_ne!(db.read(&Session::new()).unwrap().name(), "replica-1");
    // Dropped without a verdict: the next request tries.
    drop(trial);
    let trial = db.read(&Session::new()).unwrap();
    assert_eq!(trial.reason(), Reason::Trial);
    trial.failed();
    // Now out for twice as long.
    advance(Duration::from_millis(59_999)).await;
    assert_ne!(db.read(&Session::new()).unwrap().reason(), Reason::Trial);
    advance(Duration::from_millis(1)).await;
    let trial = db.read(&Session::new()).unwrap();
    assert_eq!(trial.reason(), Reason::Trial);
    trial.succeeded();
    let after = node(&db, "replica-1");
    assert!(after.healthy);
    assert_eq!((after.ejections_total, after.returns_total), (2, 1));
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn results_of_requests_from_before_the_ejection_are_ignored() {
    let db = documented(Strategy::LeastLoaded);
    let mut old: Vec<_> = (0..80).map(|_| db.read(&Session::new()).unwrap()).collect();
    old.retain(|pick| pick.name() == "replica-1");
    assert_eq!(old.len(), 30);
    let last = old.pop().unwrap();
    for pick in old {
        pick.failed();
    }
    assert_eq!(node(&db, "replica-1").ejections_total, 1);
    advance(Duration::from_secs(30)).await;
    last.succeeded();
    assert!(!node(&db, "replica-1").healthy, "it proves nothing about now");
}

/// They are no part of the share of failures either, nor is what a node may not do.
#[tokio::test(start_paused = true)]
async fn what_does_not_count_against_a_node_does_not_add_to_its_share_of_failures() {
    let db = documented(Strategy::Weighted);
    let of = |name, count| {
        let mut picks = Vec::new();
        while picks.len() < count {
            let pick = db.read(&Session::new()).unwrap();
            if pick.name() == name { picks.push(pick) } else { pick.succeeded() }
        }
        picks
    };
    let mut old = of("replica-1", 83);
    old.split_off(80).into_iter().for_each(escala_replicas::Pick::failed);
    assert!(!node(&db, "replica-1").healthy);
    advance(Duration::from_secs(30)).await;
    let trial = db.read(&Session::new()).unwrap();
    assert_eq!(trial.reason(), Reason::Trial);
    trial.succeeded();
    assert!(node(&db, "replica-1").healthy);
    // Two failures that are none in a row, with others between them.
    of("replica-1", 1).into_iter().for_each(escala_replicas::Pick::failed);
    old.into_iter().for_each(escala_replicas::Pick::failed);
    for pick in of("replica-1", 80) {
        pick.end(escala_replicas::Outcome::NotPrimary);
    }
    of("replica-1", 1).into_iter().for_each(escala_replicas::Pick::succeeded);
    of("replica-1", 1).into_iter().for_each(escala_replicas::Pick::failed);
    let after = node(&db, "replica-1");
    assert_eq!((after.healthy, after.ejections_total), (true, 1));
    assert_eq!(after.failed_total, 3 + 1 + 80 + 80 + 1);
}

#[tokio::test(start_paused = true)]
async fn with_all_replicas_out_the_primary_reads() {
    let db = documented(Strategy::LeastLoaded);
    eject(&db, &REPLICAS);
    let pick = db.read(&Session::new()).unwrap();
    assert_eq!((pick.name(), pick.reason()), ("primary", Reason::Ejected));
}

#[tokio::test(start_paused = true)]
async fn with_everything_out_ejection_is_ignored() {
    let db = documented(Strategy::LeastLoaded);
    eject(&db, &REPLICAS);
    for _ in 0..3 {
        db.write().unwrap().failed();
    }
    let mut seen: Vec<String> = (0..30)
        .map(|_| {
            let pick = db.read(&Session::new()).unwrap();
            assert_eq!(pick.reason(), Reason::PanicMode);
            let name = pick.name().to_owned();
            pick.failed();
            name
        })
        .collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["primary", "replica-1", "replica-2", "replica-3"]);
}

#[tokio::test(start_paused = true)]
async fn a_balancer_with_everything_out_ignores_ejection() {
    let db = Replicas::without_primary().replica("a", 2, "a").replica("b", 1, "b");
    let db = db.config(steady()).build().unwrap();
    eject(&db, &["a", "b"]);
    let panics: Vec<_> = (0..300)
        .map(|_| {
            let pick = db.read(&Session::new()).unwrap();
            (pick.name().to_owned(), pick.reason())
        })
        .collect();
    assert!(panics.iter().all(|(_, reason)| *reason == Reason::PanicMode));
    assert_eq!(panics.iter().filter(|(name, _)| name == "a").count(), 200, "still by weight");
}

#[tokio::test(start_paused = true)]
async fn an_ejected_primary_is_well_again_after_a_write() {
    let db = documented(Strategy::LeastLoaded);
    for _ in 0..3 {
        db.write().unwrap().failed();
    }
    db.write().unwrap().succeeded();
    assert!(!node(&db, "primary").healthy, "its time is not up");
    advance(Duration::from_secs(30)).await;
    db.write().unwrap().succeeded();
    assert!(node(&db, "primary").healthy);
}
