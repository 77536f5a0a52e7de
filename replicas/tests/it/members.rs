//! Sets that change while they run: nodes that come, go, and turn out to be something else.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use escala_replicas::{
    ConfigError, Exclusion, Member, Observation, Observed, Outcome, Reason, Replicas, Role,
    RouteError, Session, Strategy,
};
use tokio::time::advance;

use crate::{Name, documented, in_flight, node, released, steady};

fn shares(db: &Replicas<Name>, count: usize) -> BTreeMap<Name, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        let pick = db.read(&Session::new()).unwrap();
        *shares.entry(*pick).or_default() += 1;
        pick.succeeded();
    }
    shares
}

fn names<N>(db: &Replicas<N>) -> Vec<String> {
    db.stats().nodes.into_iter().map(|node| node.name).collect()
}

/// A node that takes another one out of its set when it goes.
struct Guardian {
    set: Arc<OnceLock<Replicas<Guardian>>>,
    ward: Option<Name>,
}

impl Drop for Guardian {
    fn drop(&mut self) {
        if let (Some(ward), Some(db)) = (self.ward, self.set.get()) {
            db.change(|members| members.remove(ward)).unwrap();
        }
    }
}

#[test]
fn a_node_that_is_gone_may_change_the_set_itself() {
    let set = Arc::<OnceLock<Replicas<Guardian>>>::default();
    let guardian = |ward| Guardian { set: Arc::clone(&set), ward };
    let db = Replicas::builder(guardian(None))
        .replica("a", 1, guardian(Some("b")))
        .replica("b", 1, guardian(None))
        .replica("c", 1, guardian(None))
        .build()
        .unwrap();
    assert!(set.set(db.clone()).is_ok());
    db.change(|members| members.remove("a")).unwrap();
    assert_eq!(names(&db), ["primary", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_takes_effect_as_a_whole() {
    let db = documented(Strategy::Weighted);
    shares(&db, 3);
    db.change(|members| {
        members.remove("replica-1")?;
        members.set_weight("replica-3", 3)?;
        members.add(Member::replica("replica-4", "replica-4").weight(2))
    })
    .unwrap();
    assert_eq!(names(&db), ["primary", "replica-2", "replica-3", "replica-4"]);
    let expected = [("replica-2", 3), ("replica-3", 3), ("replica-4", 2)];
    assert_eq!(shares(&db, 8), expected.into());
    assert_eq!(node(&db, "replica-3").started_total, 1 + 3, "its counters went on");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_fails_changes_nothing() {
    let db = documented(Strategy::Weighted);
    let refused = |change: &dyn Fn(&mut escala_replicas::Members<'_, Name>) -> _| {
        let result: Result<(), ConfigError> = db.change(|members| {
            members.remove("replica-1")?;
            change(members)
        });
        result.unwrap_err().to_string()
    };
    let rule = "but must differ from every other node's name";
    let taken = Member::<Name>::replica("replica-2", "x");
    assert!(format!("{taken:?}").contains("replica-2"));
    assert_eq!(
        refused(&|members| members.add(Member::replica("replica-2", "x"))),
        format!("member.name is \"replica-2\", {rule}")
    );
    assert_eq!(
        refused(&|members| members.add(Member::replica("r", "x").weight(0))),
        "member.weight is \"0\", but must be from 1 to 1000; leave the node out to give it nothing"
    );
    assert_eq!(
        refused(&|members| members.set_weight("replica-2", 1_001)),
        "replica-2.weight is \"1001\", but must be from 1 to 1000; leave the node out to give it \
         nothing"
    );
    assert_eq!(
        refused(&|members| members.set_max_in_flight("replica-2", Some(0))),
        "replica-2.max_in_flight is \"0\", but must be at least 1; leave the node out to give it \
         nothing"
    );
    assert_eq!(
        refused(&|members| members.remove("replica-9")),
        "member is \"replica-9\", but must be a node of the set"
    );
    assert_eq!(
        refused(&|members| members.add(Member::primary("other", "x"))),
        "number of primaries is \"2\", but must be at most 1"
    );
    assert_eq!(
        refused(&|members| {
            members.remove("primary")?;
            members.remove("replica-2")?;
            members.remove("replica-3")
        }),
        "number of nodes is \"0\", but must be from 1 to 64, the primary included"
    );
    let kept = ["primary", "replica-1", "replica-2", "replica-3"];
    assert_eq!(names(&db), kept);
    // Also when the closure goes on after an error.
    db.change(|members| {
        assert!(members.set_weight("replica-1", 0).is_err());
        Ok::<_, ConfigError>(())
    })
    .unwrap();
    assert_eq!(node(&db, "replica-1").weight, 3);
}

#[tokio::test(start_paused = true)]
async fn a_removed_node_drains() {
    let value = Arc::new("replica-1");
    let db = Replicas::builder(Arc::new("primary")).replica("replica-1", 1, Arc::clone(&value));
    let db = db.config(steady()).build().unwrap();
    let held = db.read(&Session::new()).unwrap();
    db.change(|members| members.remove("replica-1")).unwrap();
    assert_eq!(db.stats().draining, 1);
    for _ in 0..10 {
        assert_eq!(db.read(&Session::new()).unwrap().name(), "primary");
    }
    assert_eq!((held.name(), **held), ("replica-1", "replica-1"), "it still serves its request");
    // A new node of the same name is not mistaken for the old one.
    db.change(|members| members.add(Member::replica("replica-1", Arc::new("new")))).unwrap();
    held.failed();
    assert_eq!(db.stats().draining, 0);
    assert_eq!(node(&db, "replica-1").failed_total, 0);
    released(&value).await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_node_is_not_probed_any_more_and_an_added_one_is() {
    let probes = Arc::new(parking_lot::Mutex::new(BTreeMap::<Name, u64>::new()));
    let seen = Arc::clone(&probes);
    let db = Replicas::builder("primary")
        .replica("old", 1, "old")
        .config(steady())
        .probe(move |node: Name| {
            *seen.lock().entry(node).or_default() += 1;
            std::future::ready(Ok(()))
        })
        .build()
        .unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let pick = db.read(&Session::new()).unwrap();
    assert_eq!(pick.name(), "old");
    db.change(|members| {
        members.remove("old")?;
        members.add(Member::replica("new", "new"))
    })
    .unwrap();
    let before = probes.lock()["old"];
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(probes.lock()["old"], before, "although a pick still holds it");
    assert!(probes.lock()["new"] >= 3);
    drop(pick);
}

#[tokio::test(start_paused = true)]
async fn the_strategy_changes_at_once() {
    let db = documented(Strategy::Weighted);
    shares(&db, 5);
    db.set_strategy(Strategy::RoundRobin);
    let equal = [("replica-1", 3), ("replica-2", 3), ("replica-3", 3)];
    assert_eq!(shares(&db, 9), equal.into());
    assert_eq!(db.stats().strategy, "round_robin");
}

fn observe(db: &Replicas<Name>, name: &str, observation: Observation) {
    assert_eq!(db.observe(name, observation), Observed::Applied);
}

#[tokio::test(start_paused = true)]
async fn a_node_takes_nothing_before_its_role_is_known() {
    let db = Replicas::with_members(["a", "b", "c"].map(|name| Member::unknown(name, name)));
    let db = db.config(steady()).build().unwrap();
    assert_eq!(db.write().unwrap_err(), RouteError::PrimaryUnknown);
    let error = db.read(&Session::new()).unwrap_err();
    assert_eq!(error, RouteError::NoFitNode);
    assert!(error.is_retryable() && error.retry_after().is_some());
    observe(&db, "b", Observation::new(Role::Primary).at(1, 100));
    assert_eq!(db.write().unwrap().name(), "b");
    let pick = db.read(&Session::new()).unwrap();
    assert_eq!((pick.name(), pick.reason()), ("b", Reason::PrimaryFallback));
    observe(&db, "a", Observation::new(Role::Replica).at(1, 90));
    assert_eq!(db.read(&Session::new()).unwrap().name(), "a");
    assert_eq!(db.observe("z", Observation::new(Role::Replica)), Observed::NoSuchNode);
    assert_eq!(db.freshness("a").unwrap().position, 90);
    assert_eq!(db.freshness("c"), Some(escala_replicas::Freshness::default()));
}

#[tokio::test(start_paused = true)]
async fn a_promotion_moves_the_writes_and_leaves_no_second_primary() {
    let db = documented(Strategy::Weighted);
    observe(&db, "primary", Observation::new(Role::Primary).at(1, 100));
    observe(&db, "replica-1", Observation::new(Role::Primary).at(2, 90));
    let primaries = |db: &Replicas<Name>| {
        let nodes = db.stats().nodes.into_iter();
        nodes.filter(|node| node.role == Role::Primary).map(|node| node.name).collect::<Vec<_>>()
    };
    assert_eq!(primaries(&db), ["replica-1"]);
    assert_eq!(node(&db, "primary").role, Role::None, "nothing more is known of it");
    assert_eq!(db.write().unwrap().name(), "replica-1");

    // The old one comes back and still thinks that it is the primary.
    let back = Observation::new(Role::Primary).at(1, 110);
    assert_eq!(db.observe("primary", back), Observed::SecondPrimary);
    // And a split brain within one timeline.
    let twin = Observation::new(Role::Primary).at(2, 500);
    assert_eq!(db.observe("replica-2", twin), Observed::SecondPrimary);
    assert_eq!(primaries(&db), ["replica-1"]);
    for name in ["primary", "replica-2"] {
        assert_eq!(node(&db, name).role, Role::None);
    }
    assert!((0..20).all(|_| db.read(&Session::new()).unwrap().name() == "replica-3"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_the_primary_is_demoted_at_once_and_its_monitor_asked() {
    let db = documented(Strategy::LeastLoaded);
    observe(&db, "primary", Observation::new(Role::Primary).at(1, 1));
    let kicks = db.kicks("primary").unwrap();
    let write = db.write().unwrap();
    let other = db.write().unwrap();
    write.end(Outcome::NotPrimary);
    assert_eq!(db.write().unwrap_err(), RouteError::PrimaryUnknown);
    assert_eq!(node(&db, "primary").role, Role::None);
    assert!(node(&db, "primary").healthy, "a standby is no sick node");
    kicks.notified().await;
    // Promoted meanwhile: what an old pick says of a replica or a new primary changes nothing there.
    observe(&db, "replica-1", Observation::new(Role::Primary).at(2, 1));
    other.end(Outcome::NotPrimary);
    assert_eq!(db.write().unwrap().name(), "replica-1");
    assert_eq!(in_flight(&db), 0);
    assert_eq!(node(&db, "primary").failed_total, 2);
}

/// What was picked as a replica ends, badly, when the replica has become the primary.
#[tokio::test(start_paused = true)]
async fn what_fails_a_replica_that_was_promoted_meanwhile_says_nothing_of_the_primary() {
    let db = documented(Strategy::Weighted);
    observe(&db, "primary", Observation::new(Role::Primary).at(1, 1));
    observe(&db, "replica-1", Observation::new(Role::Replica).at(1, 1));
    let mut old: Vec<_> = (0..16).map(|_| db.read(&Session::new()).unwrap()).collect();
    old.retain(|pick| pick.name() == "replica-1");
    observe(&db, "replica-1", Observation::new(Role::Primary).at(2, 1));
    old.pop().unwrap().failed();
    // It would take over if the other one's history were forgotten.
    let back = db.observe("primary", Observation::new(Role::Primary).at(1, 9));
    assert_eq!(back, Observed::SecondPrimary);
    old.pop().unwrap().end(Outcome::NotPrimary);
    assert_eq!(db.write().unwrap().name(), "replica-1");
    assert_eq!(db.freshness("replica-1").unwrap().position, 1, "nor is its place");
    drop(old);
    assert_eq!((in_flight(&db), node(&db, "replica-1").failed_total), (0, 2));
}

/// A read is on its way to a replica; another one fails there.
#[tokio::test(start_paused = true)]
async fn what_a_replica_showed_before_it_failed_is_forgotten_but_not_its_history() {
    let db = documented(Strategy::Weighted);
    observe(&db, "replica-1", Observation::new(Role::Replica).of_system(7).at(3, 1));
    while node(&db, "replica-1").failed_total == 0 {
        let pick = db.read(&Session::new()).unwrap();
        if pick.name() == "replica-1" {
            pick.failed();
        }
    }
    let seen = db.freshness("replica-1").unwrap();
    assert_eq!((seen.system, seen.timeline, seen.position), (7, 3, 0));
    assert_eq!(seen.observed_at, None);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_nobody_observes_stays_it_whatever_it_says() {
    let db = documented(Strategy::LeastLoaded);
    for _ in 0..10 {
        db.write().unwrap().end(Outcome::NotPrimary);
    }
    let primary = node(&db, "primary");
    assert_eq!((primary.role, primary.failed_total), (Role::Primary, 10));
    assert_eq!(db.write().unwrap().name(), "primary", "it may be one again");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_promoted_is_given_another_chance() {
    let db = documented(Strategy::Weighted);
    observe(&db, "primary", Observation::new(Role::Primary).at(1, 1));
    while node(&db, "replica-1").healthy {
        db.read(&Session::new()).unwrap().failed();
    }
    observe(&db, "replica-1", Observation::new(Role::Primary).at(2, 1));
    let promoted = node(&db, "replica-1");
    assert_eq!((promoted.healthy, promoted.returns_total), (true, 1));
    for _ in 0..3 {
        db.write().unwrap().failed();
    }
    assert!(!node(&db, "replica-1").healthy, "one");
    observe(&db, "replica-1", Observation::new(Role::Primary).at(2, 2));
    assert!(!node(&db, "replica-1").healthy, "it was the primary before");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_asks_the_monitor_to_look() {
    let db = documented(Strategy::LeastLoaded);
    db.write().unwrap().failed();
    db.kicks("primary").unwrap().notified().await;
    assert_eq!(node(&db, "primary").role, Role::Primary);
}

#[tokio::test(start_paused = true)]
async fn an_excluded_replica_takes_nothing() {
    let db = documented(Strategy::Weighted);
    let replica = Observation::new(Role::Replica);
    for why in [Exclusion::Lag, Exclusion::Fenced, Exclusion::Unknown] {
        observe(&db, "replica-1", replica.excluded(why));
        assert_eq!(shares(&db, 5), [("replica-2", 3), ("replica-3", 2)].into());
        assert_eq!(node(&db, "replica-1").excluded, Some(why));
        observe(&db, "replica-1", replica);
        assert_eq!(shares(&db, 8)["replica-1"], 3);
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_lag_the_primary_reads_and_without_it_the_least_stale() {
    let db = documented(Strategy::Weighted);
    for (name, seconds) in [("replica-1", 9), ("replica-2", 5), ("replica-3", 7)] {
        let lag = Some(Duration::from_secs(seconds));
        observe(&db, name, Observation::new(Role::Replica).lag(lag, None).excluded(Exclusion::Lag));
    }
    let pick = db.read(&Session::new()).unwrap();
    assert_eq!((pick.name(), pick.reason()), ("primary", Reason::LagExcluded));
    drop(pick);
    observe(&db, "primary", Observation::new(Role::None));
    let pick = db.read(&Session::new()).unwrap();
    assert_eq!((pick.name(), pick.reason()), ("replica-2", Reason::PanicMode));
    let stats = db.stats();
    assert_eq!(stats.node("replica-1").unwrap().lag_seconds, Some(9.0));
}

/// Of which nobody knows whether they lag: they share what the primary does not take.
#[tokio::test(start_paused = true)]
async fn silent_replicas_are_used_as_those_that_lag_and_in_turn() {
    let db = documented(Strategy::Weighted);
    let silent = Observation::new(Role::Replica).excluded(Exclusion::Silent);
    for name in ["replica-1", "replica-2", "replica-3"] {
        observe(&db, name, silent);
    }
    assert_eq!(db.read(&Session::new()).unwrap().name(), "primary");
    observe(&db, "primary", Observation::new(Role::None));
    let shared = shares(&db, 90);
    assert!(shared.len() == 3 && shared.values().all(|share| *share >= 20), "{shared:?}");
    // One that is known to lag is preferred.
    let lag = Some(Duration::from_secs(60));
    let lags = Observation::new(Role::Replica).lag(lag, None).excluded(Exclusion::Lag);
    observe(&db, "replica-2", lags);
    assert_eq!(shares(&db, 8), [("replica-2", 8)].into());
    // And one of which only the bytes are known.
    observe(&db, "replica-2", silent);
    let lags = Observation::new(Role::Replica).lag(None, Some(9)).excluded(Exclusion::Lag);
    observe(&db, "replica-3", lags);
    assert_eq!(shares(&db, 8), [("replica-3", 8)].into());
}

#[tokio::test(start_paused = true)]
async fn replicas_that_nobody_can_measure_are_the_last_resort_of_those_who_ask_for_nothing() {
    let db = documented(Strategy::Weighted);
    let replica = Observation::new(Role::Replica);
    let unmeasured = replica.excluded(Exclusion::Unknown);
    for name in ["replica-1", "replica-2", "replica-3"] {
        observe(&db, name, unmeasured);
    }
    assert_eq!(db.read(&Session::new()).unwrap().name(), "primary");
    // The primary is gone before anybody could be measured by it.
    observe(&db, "primary", Observation::new(Role::None));
    let reads: Vec<_> = (0..9).map(|_| db.read(&Session::new()).unwrap()).collect();
    assert!(reads.iter().all(|pick| pick.reason() == Reason::PanicMode));
    for name in ["replica-1", "replica-2", "replica-3"] {
        assert!(reads.iter().any(|pick| pick.name() == name), "{name}");
    }
    drop(reads);
    let bounded = Session::new().max_lag(Duration::from_secs(3_600));
    assert_eq!(db.read(&bounded).unwrap_err(), RouteError::NoFitNode);

    // One that only lags is better, and one that is fenced is never good enough.
    observe(&db, "replica-1", replica.excluded(Exclusion::Lag));
    assert!((0..9).all(|_| db.read(&Session::new()).unwrap().name() == "replica-1"));
    for name in ["replica-1", "replica-2", "replica-3"] {
        observe(&db, name, replica.excluded(Exclusion::Fenced));
    }
    assert_eq!(db.read(&Session::new()).unwrap_err(), RouteError::NoFitNode);
}

#[tokio::test(start_paused = true)]
async fn reads_for_want_of_a_replica_take_at_most_their_share_of_the_primary() {
    let db = Replicas::with_members([
        Member::primary("primary", "primary").max_in_flight(11),
        Member::replica("replica", "replica"),
    ]);
    let db = db.config(steady()).build().unwrap();
    observe(&db, "replica", Observation::new(Role::None));
    let read = || db.read(&Session::new());
    let reads: Vec<_> = (0..3).map(|_| read().unwrap()).collect();
    assert!(reads.iter().all(|pick| pick.reason() == Reason::PrimaryFallback));
    assert_eq!(read().unwrap_err(), RouteError::PrimaryReadsExhausted, "ceil(0.2 x 11) are there");
    // Pinned reads and writes are not among them, but there is an end to all.
    let pinned = db.read(&Session::pinned_to_primary()).unwrap();
    let writes: Vec<_> = (0..7).map(|_| db.write().unwrap()).collect();
    assert_eq!(db.write().unwrap_err(), RouteError::Saturated);
    drop((pinned, writes));
    drop(reads);
    read().unwrap().succeeded();
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn the_share_holds_for_an_ejected_primary_too() {
    let db = Replicas::with_members([
        Member::primary("primary", "primary").max_in_flight(10),
        Member::replica("replica", "replica"),
    ]);
    let db = db.config(steady()).build().unwrap();
    observe(&db, "replica", Observation::new(Role::None));
    for _ in 0..3 {
        db.write().unwrap().failed();
    }
    assert!(!node(&db, "primary").healthy);
    let read = || db.read(&Session::new());
    let reads: Vec<_> = (0..2).map(|_| read().unwrap()).collect();
    assert!(reads.iter().all(|pick| pick.reason() == Reason::PanicMode));
    assert_eq!(read().unwrap_err(), RouteError::Saturated, "0.2 x 10 are there");
    let writes: Vec<_> = (0..8).map(|_| db.write().unwrap()).collect();
    drop((reads, writes));
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_returns_or_joins_starts_slowly() {
    let slow = Replicas::builder("primary").replica("old", 1, "old").strategy(Strategy::Weighted);
    let slow = slow.config(steady().slow_start(Duration::from_secs(30))).build().unwrap();
    slow.change(|members| members.add(Member::replica("new", "new"))).unwrap();
    // Counts over 110 picks: 1 to 10, then 5 to 10, then equal.
    assert_eq!(shares(&slow, 110)["new"], 10);
    advance(Duration::from_secs(15)).await;
    assert_eq!(shares(&slow, 150)["new"], 50);
    advance(Duration::from_secs(15)).await;
    assert_eq!(shares(&slow, 100)["new"], 50);

    // And after it has lagged or was fenced, but not when nobody could tell for a moment.
    let replica = Observation::new(Role::Replica);
    for (why, share) in [
        (Exclusion::Lag, 10),
        (Exclusion::Silent, 10),
        (Exclusion::Fenced, 10),
        (Exclusion::Unknown, 55),
    ] {
        observe(&slow, "new", replica.excluded(why));
        observe(&slow, "new", replica);
        assert_eq!(shares(&slow, 110)["new"], share, "{why:?}");
        advance(Duration::from_secs(30)).await;
    }

    // And after an ejection.
    for _ in 0..40 {
        let pick = slow.read(&Session::new()).unwrap();
        if pick.name() == "new" {
            pick.failed();
        }
    }
    assert!(!node(&slow, "new").healthy);
    advance(Duration::from_secs(30)).await;
    let trial = slow.read(&Session::new()).unwrap();
    assert_eq!(trial.reason(), Reason::Trial);
    trial.succeeded();
    assert_eq!(shares(&slow, 110)["new"], 10);
}

#[tokio::test(start_paused = true)]
async fn a_lone_node_serves_only_what_it_is_known_to_be() {
    let db = Replicas::builder("primary").config(steady()).build().unwrap();
    for why in [Exclusion::Fenced, Exclusion::Unknown] {
        observe(&db, "primary", Observation::new(Role::Primary).excluded(why));
        assert_eq!(db.read(&Session::new()).unwrap_err(), RouteError::NoFitNode);
        assert_eq!(db.write().unwrap_err(), RouteError::PrimaryUnknown);
    }
    for why in [Exclusion::Lag, Exclusion::Unknown] {
        observe(&db, "primary", Observation::new(Role::Replica).excluded(why));
        assert_eq!(db.read(&Session::new()).unwrap().reason(), Reason::OnlyNode);
    }
    observe(&db, "primary", Observation::new(Role::Replica).excluded(Exclusion::Fenced));
    assert_eq!(db.read(&Session::new()).unwrap_err(), RouteError::NoFitNode);
    observe(&db, "primary", Observation::new(Role::None));
    assert_eq!(db.read(&Session::new()).unwrap_err(), RouteError::NoFitNode);
}

/// Readers that never pause while nodes come, go, change their weight, limit, role and strategy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_under_load_fail_no_read_and_lose_no_count() {
    let values: Vec<Arc<usize>> = (0..40).map(Arc::new).collect();
    let db = Replicas::builder(Arc::clone(&values[0])).replica("keep", 1, Arc::clone(&values[1]));
    let db = db.config(steady()).build().unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (db, stop) = (db.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut reads = 0_u64;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let operation = async |node: Arc<usize>| {
                        tokio::task::yield_now().await;
                        if *node % 5 == 4 { Err("ill") } else { Ok(*node) }
                    };
                    db.read_with(&Session::new(), |_| true, operation).await.unwrap();
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    let strategies = [Strategy::Weighted, Strategy::PeakEwma, Strategy::LeastLoaded];
    for (at, value) in values.iter().enumerate().skip(2) {
        let name = at.to_string();
        let member = Member::replica(&name, Arc::clone(value)).max_in_flight(3);
        db.change(|members| members.add(member)).unwrap();
        db.set_strategy(strategies[at % 3]);
        tokio::task::yield_now().await;
        let excluded = Observation::new(Role::Replica).excluded(Exclusion::Lag);
        assert_eq!(db.observe(&name, excluded), Observed::Applied);
        assert_eq!(db.observe(&name, Observation::new(Role::Replica)), Observed::Applied);
        tokio::time::sleep(Duration::from_millis(2)).await;
        db.change(|members| {
            members.set_weight("keep", u32::try_from(at).unwrap())?;
            members.remove(&name)
        })
        .unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    assert_eq!((in_flight(&db), db.stats().draining), (0, 0));
    assert_eq!(names(&db), ["primary", "keep"]);
    for value in &values[2..] {
        released(value).await;
    }
}
