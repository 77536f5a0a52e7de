//! Which node a request gets, and the reason it is given.

use std::collections::BTreeMap;

use escala_replicas::{
    Pick, Reason, Replicas, ReplicasConfig, Role, RouteError, Session, Strategy,
};
use proptest::prelude::*;

use crate::{Name, documented, node};

fn read(db: &Replicas<Name>) -> Pick<Name> {
    db.read(&Session::new()).unwrap()
}

/// Picks `count` times one after the other and says how often each node came.
fn shares<N>(db: &Replicas<N>, count: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        let pick = db.read(&Session::new()).unwrap();
        *shares.entry(pick.name().to_owned()).or_default() += 1;
        pick.succeeded();
    }
    shares
}

fn expected<const L: usize>(shares: [(&str, usize); L]) -> BTreeMap<String, usize> {
    shares.map(|(name, count)| (name.to_owned(), count)).into()
}

#[tokio::test(start_paused = true)]
async fn weighted_is_exact_in_every_window_of_eight() {
    let db = documented(Strategy::Weighted);
    let names: Vec<String> = (0..80)
        .map(|_| {
            let pick = read(&db);
            assert_eq!((pick.reason(), pick.role()), (Reason::Weighted, Role::Replica));
            pick.name().to_owned()
        })
        .collect();
    for window in names.windows(8) {
        let count = |name: &str| window.iter().filter(|picked| *picked == name).count();
        assert_eq!([count("replica-1"), count("replica-2"), count("replica-3")], [3, 3, 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn weighted_stays_exact_over_the_survivors_and_after_the_return() {
    let db = documented(Strategy::Weighted);
    shares(&db, 5);
    for _ in 0..8 {
        let pick = read(&db);
        if pick.name() == "replica-1" {
            pick.failed();
        }
    }
    assert!(!node(&db, "replica-1").healthy);
    for _ in 0..10 {
        assert_eq!(shares(&db, 5), expected([("replica-2", 3), ("replica-3", 2)]));
    }
    tokio::time::advance(std::time::Duration::from_secs(30)).await;
    let trial = read(&db);
    assert_eq!((trial.name(), trial.reason()), ("replica-1", Reason::Trial));
    trial.succeeded();
    let all = expected([("replica-1", 3), ("replica-2", 3), ("replica-3", 2)]);
    assert_eq!(shares(&db, 8), all);
}

proptest! {
    /// Any weights, any of them ejected: the survivors share exactly by their own weights.
    #[test]
    fn survivors_share_exactly(
        members in prop::collection::vec((1_u32..30, any::<bool>()), 2..8),
        skip in 0_usize..50,
    ) {
        prop_assume!(members.iter().any(|(_, survives)| *survives));
        let calm = ReplicasConfig::default().panic_percent(0);
        let mut builder =
            Replicas::without_primary().strategy(Strategy::Weighted).config(calm);
        for (position, (weight, _)) in members.iter().enumerate() {
            builder = builder.replica(format!("{position}"), *weight, position);
        }
        let db = builder.build().unwrap();
        let doomed = |position: usize| !members[position].1;
        while (0..members.len()).any(|at| doomed(at) && node(&db, &format!("{at}")).healthy) {
            let pick = db.read(&Session::new()).unwrap();
            if doomed(*pick) { pick.failed() } else { pick.succeeded() }
        }
        shares(&db, skip);
        let survivors = members.iter().enumerate().filter(|(_, (_, survives))| *survives);
        let expected: BTreeMap<String, usize> =
            survivors.map(|(at, (weight, _))| (at.to_string(), *weight as usize)).collect();
        // The sum of the weights is a whole number of periods.
        prop_assert_eq!(shares(&db, expected.values().sum()), expected);
    }
}

#[test]
fn weighted_is_exact_when_many_threads_pick() {
    let db = documented(Strategy::Weighted);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| shares(&db, 2_000));
        }
    });
    let started = |name| node(&db, name).started_total;
    assert_eq!(
        [started("replica-1"), started("replica-2"), started("replica-3")],
        [3_000, 3_000, 2_000]
    );
}

#[tokio::test(start_paused = true)]
async fn round_robin_ignores_weights() {
    let db = documented(Strategy::RoundRobin);
    let all = expected([("replica-1", 3), ("replica-2", 3), ("replica-3", 3)]);
    assert_eq!(shares(&db, 9), all);
    assert_eq!(db.stats().picks_for(Reason::Weighted), 9);
}

#[tokio::test(start_paused = true)]
async fn an_idle_set_is_spread_by_weight_by_default() {
    let db = documented(Strategy::default());
    assert_eq!(read(&db).reason(), Reason::Balanced);
    let all = expected([("replica-1", 300), ("replica-2", 300), ("replica-3", 200)]);
    assert_eq!(shares(&db, 800), all);
}

#[tokio::test(start_paused = true)]
async fn requests_that_stay_are_spread_by_weight() {
    let db = documented(Strategy::LeastLoaded);
    let held: Vec<Pick<Name>> = (0..80).map(|_| read(&db)).collect();
    let in_flight = |name| node(&db, name).in_flight;
    assert_eq!(
        [in_flight("replica-1"), in_flight("replica-2"), in_flight("replica-3")],
        [30, 30, 20]
    );
    drop(held);
    assert_eq!(crate::in_flight(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn a_busy_replica_is_avoided() {
    let db = documented(Strategy::LeastLoaded);
    let mut stuck = Vec::new();
    for _ in 0..24 {
        let pick = read(&db);
        if pick.name() == "replica-1" {
            stuck.push(pick);
        } else {
            pick.succeeded();
        }
    }
    // It holds one or two of 24, not the nine of its turns.
    assert!((1..=2).contains(&stuck.len()), "{}", stuck.len());
}

#[tokio::test(start_paused = true)]
async fn writes_and_pinned_reads_go_to_the_primary() {
    let db = documented(Strategy::LeastLoaded);
    let write = db.write().unwrap();
    assert_eq!((*write, write.role(), write.reason()), ("primary", Role::Primary, Reason::Write));
    let pinned = db.read(&Session::pinned_to_primary()).unwrap();
    assert_eq!((pinned.name(), pinned.reason()), ("primary", Reason::Pinned));
    assert_eq!(node(&db, "primary").in_flight, 2);
}

#[tokio::test(start_paused = true)]
async fn an_ailing_primary_still_takes_writes_and_pinned_reads() {
    let db = documented(Strategy::LeastLoaded);
    for _ in 0..3 {
        db.write().unwrap().failed();
    }
    assert!(!node(&db, "primary").healthy);
    assert_eq!(db.write().unwrap().name(), "primary");
    assert_eq!(db.read(&Session::pinned_to_primary()).unwrap().name(), "primary");
}

#[tokio::test(start_paused = true)]
async fn a_balancer_has_nobody_for_writes_and_pinned_reads() {
    let balancer = Replicas::without_primary().replica("a", 1, 'a').replica("b", 1, 'b');
    let balancer = balancer.build().unwrap();
    assert_eq!(balancer.write().unwrap_err(), RouteError::NoPrimary);
    let pinned = Session::pinned_to_primary();
    assert_eq!(balancer.read(&pinned).unwrap_err(), RouteError::NoPrimary);
    assert_eq!(balancer.stats().refused_total, 2);
    assert_eq!(shares(&balancer, 4), expected([("a", 2), ("b", 2)]));
}

#[tokio::test(start_paused = true)]
async fn a_lone_node_serves_whatever_its_health() {
    let alone = Replicas::builder("primary").build().unwrap();
    for _ in 0..5 {
        let pick = read(&alone);
        assert_eq!((pick.name(), pick.reason()), ("primary", Reason::OnlyNode));
        pick.failed();
    }
    let alone = Replicas::without_primary().replica("a", 1, "a").build().unwrap();
    for _ in 0..5 {
        let pick = read(&alone);
        assert_eq!((pick.name(), pick.reason()), ("a", Reason::OnlyNode));
        pick.failed();
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_shows_the_nodes_themselves() {
    let secret = "postgres://user:hunter2@db";
    let builder = Replicas::builder(secret).replica("a", 1, secret);
    let shown = format!("{builder:?}");
    let db = builder.build().unwrap();
    let shown = format!("{shown} {db:?} {:?} {:?}", db.write().unwrap(), db.service());
    assert!(shown.contains("\"a\""), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
