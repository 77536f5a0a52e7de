//! Sets whose monitor begins and ends.

#![expect(clippy::unwrap_used, reason = "also in the helpers of tests, a panic fails the test")]

use std::time::Duration;

use tokio::time::advance;

use crate::{
    Observation, Observed, Outcome, Reason, Replicas, ReplicasConfig, Role, RouteError, Session,
};

fn set() -> Replicas<&'static str> {
    let config = ReplicasConfig::default().jitter(0.0).slow_start(Duration::ZERO);
    let set = Replicas::builder("primary").replica("a", 1, "a").replica("b", 1, "b");
    set.config(config).build().unwrap()
}

fn observe(db: &Replicas<&'static str>) {
    for (name, role) in [("primary", Role::Primary), ("a", Role::Replica), ("b", Role::Replica)] {
        assert_eq!(db.observe(name, Observation::new(role).at(1, 1)), Observed::Applied);
    }
}

/// Fails every read on `a` until it is out.
fn eject(db: &Replicas<&'static str>) {
    while db.stats().node("a").unwrap().healthy {
        let pick = db.read(&Session::new()).unwrap();
        if *pick == "a" { pick.failed() } else { pick.succeeded() }
    }
}

fn trials(db: &Replicas<&'static str>) -> usize {
    let picks: Vec<_> = (0..4).map(|_| db.read(&Session::new()).unwrap()).collect();
    picks.iter().filter(|pick| pick.reason() == Reason::Trial).count()
}

#[tokio::test(start_paused = true)]
async fn a_request_tries_who_was_ejected_while_a_monitor_looked_once_that_has_ended() {
    let db = set();
    db.shared().begin_monitoring().unwrap();
    observe(&db);
    eject(&db);
    advance(Duration::from_secs(31)).await;
    assert_eq!(trials(&db), 0, "its monitor brings it back");
    db.shared().end_monitoring();
    assert_eq!(trials(&db), 1);
    // And no request does once there is a monitor, although it was due before.
    db.shared().begin_monitoring().unwrap();
    observe(&db);
    advance(Duration::from_secs(60)).await;
    assert_eq!(trials(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn once_the_monitor_has_ended_the_primary_stays_what_it_was() {
    let db = set();
    db.shared().begin_monitoring().unwrap();
    observe(&db);
    db.write().unwrap().end(Outcome::NotPrimary);
    assert_eq!(db.write().unwrap_err(), RouteError::PrimaryUnknown);
    observe(&db);
    db.shared().end_monitoring();
    db.write().unwrap().end(Outcome::NotPrimary);
    assert_eq!(db.write().unwrap().name(), "primary");
}
