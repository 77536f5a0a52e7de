//! When few replicas are healthy, and how many may be ejected.

use std::time::Duration;

use escala_replicas::{
    Exclusion, Observation, Observed, Reason, Replicas, Role, Session, Strategy,
};
use tokio::time::{advance, sleep};

use crate::{Name, documented, in_flight, node, steady};

fn set(config: escala_replicas::ReplicasConfig) -> Replicas<Name> {
    let set = Replicas::builder("primary").strategy(Strategy::Weighted).config(config);
    let set = set.replica("a", 1, "a").replica("b", 1, "b").replica("c", 1, "c");
    set.replica("d", 1, "d").build().unwrap()
}

/// Fails every read that goes to one of `doomed`, until `enough`.
fn fail(db: &Replicas<Name>, doomed: &[Name], enough: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if enough() {
            return;
        }
        let pick = db.read(&Session::new()).unwrap();
        if doomed.contains(&pick) { pick.failed() } else { pick.succeeded() }
    }
    panic!("it never was enough");
}

fn healthy(db: &Replicas<Name>) -> usize {
    let nodes = db.stats().nodes.into_iter();
    nodes.filter(|node| node.role == Role::Replica && node.healthy).count()
}

#[tokio::test(start_paused = true)]
async fn the_last_healthy_one_does_not_get_the_load_of_all() {
    let db = set(steady());
    fail(&db, &["a", "b"], || healthy(&db) == 2);
    assert!(!db.stats().panic, "half of them are left");
    assert!((0..20).all(|_| ["c", "d"].contains(&db.read(&Session::new()).unwrap())));
    fail(&db, &["c"], || healthy(&db) == 1);
    assert!(db.stats().panic);
    let mut seen = std::collections::BTreeMap::<Name, u64>::new();
    for _ in 0..40 {
        let pick = db.read(&Session::new()).unwrap();
        assert_eq!(pick.reason(), Reason::PanicMode);
        *seen.entry(*pick).or_default() += 1;
        pick.succeeded();
    }
    assert_eq!(seen, [("a", 10), ("b", 10), ("c", 10), ("d", 10)].into());
}

#[tokio::test(start_paused = true)]
async fn panic_does_not_believe_in_a_node_that_fails_again() {
    let db = set(steady());
    fail(&db, &["a", "b", "c"], || healthy(&db) == 1);
    let before = ["a", "b", "c"].map(|name| node(&db, name).failed_total);
    for _ in 0..100 {
        let pick = db.read(&Session::new()).unwrap();
        if *pick == "d" { pick.succeeded() } else { pick.failed() }
    }
    for (name, before) in ["a", "b", "c"].iter().zip(before) {
        assert!(node(&db, name).failed_total <= before + 1, "{name} had its second chance");
    }
    assert!(!db.stats().panic);
    assert!((0..20).all(|_| db.read(&Session::new()).unwrap().name() == "d"));
}

#[tokio::test(start_paused = true)]
async fn a_probe_tells_the_dead_from_the_suspected() {
    let db = Replicas::builder("primary")
        .replica("dead-1", 1, "dead-1")
        .replica("dead-2", 1, "dead-2")
        .replica("well", 1, "well")
        .config(steady().health_interval(Duration::from_secs(3_600)))
        .probe(|node: Name| async move {
            if node.starts_with("dead") { Err("dead".into()) } else { Ok(()) }
        })
        .build()
        .unwrap();
    fail(&db, &["dead-1", "dead-2"], || healthy(&db) == 1);
    sleep(Duration::from_millis(1)).await;
    assert!(!db.stats().panic, "both were asked at once and are dead");
    assert!((0..20).all(|_| db.read(&Session::new()).unwrap().name() == "well"));
}

#[tokio::test(start_paused = true)]
async fn panic_ignores_neither_role_nor_lag() {
    let db = set(steady());
    let lags = Observation::new(Role::Replica).excluded(Exclusion::Lag);
    assert_eq!(db.observe("c", lags), Observed::Applied);
    assert_eq!(db.observe("d", Observation::new(Role::None)), Observed::Applied);
    // Of the two that count, none is left. What reads is the primary.
    fail(&db, &["a", "b"], || ["a", "b"].iter().all(|name| !node(&db, name).healthy));
    for _ in 0..40 {
        let pick = db.read(&Session::new()).unwrap();
        assert_eq!(*pick, "primary");
        pick.succeeded();
    }
}

#[tokio::test(start_paused = true)]
async fn panic_can_be_switched_off() {
    let db = set(steady().panic_percent(0));
    fail(&db, &["a", "b", "c"], || healthy(&db) == 1);
    assert!(!db.stats().panic);
    assert!((0..20).all(|_| db.read(&Session::new()).unwrap().name() == "d"));
}

#[tokio::test(start_paused = true)]
async fn only_so_many_are_ejected_for_failed_requests() {
    let db = set(steady().max_ejected_percent(50).panic_percent(0));
    let everything = ["a", "b", "c", "d"];
    for _ in 0..200 {
        db.read(&Session::new()).unwrap().failed();
    }
    assert_eq!(healthy(&db), 2, "requests that fail everywhere do not take everything out");
    // One may always go, and one that failed its trial too makes room for the next.
    let db = set(steady().max_ejected_percent(0).panic_percent(0));
    fail(&db, &everything, || healthy(&db) == 3);
    for _ in 0..100 {
        db.read(&Session::new()).unwrap().failed();
    }
    assert_eq!(healthy(&db), 3);
    advance(Duration::from_secs(30)).await;
    let trial = db.read(&Session::new()).unwrap();
    assert_eq!(trial.reason(), Reason::Trial);
    trial.failed();
    fail(&db, &everything, || healthy(&db) == 2);
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_fails_most_of_its_requests_is_ejected_although_not_in_a_row() {
    let config = steady().consecutive_failures(1_000).failure_percent(60).failure_min_requests(20);
    let db = set(config);
    let mut at_a = 0;
    for _ in 0..200 {
        let pick = db.read(&Session::new()).unwrap();
        if *pick == "a" {
            at_a += 1;
            if at_a % 3 != 0 {
                pick.failed();
                continue;
            }
        }
        pick.succeeded();
    }
    let stats = node(&db, "a");
    assert!(!stats.healthy);
    assert!((20..=25).contains(&stats.started_total), "{stats:?}");
}

/// Two of every three failures are in a row; a threshold of three is never met, and the share of
/// the default is not either.
#[tokio::test(start_paused = true)]
async fn a_node_that_fails_now_and_then_stays() {
    let db = documented(Strategy::Weighted);
    let mut asked = 0;
    for _ in 0..3_000 {
        let pick = db.read(&Session::new()).unwrap();
        asked += u32::from(*pick == "replica-1");
        if *pick == "replica-1" && asked % 3 != 0 { pick.failed() } else { pick.succeeded() }
    }
    assert!(db.stats().nodes.iter().all(|node| node.healthy));
}
