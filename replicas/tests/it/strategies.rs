//! Strategies that look at more than turns: the quicker of two, and one's own.

use std::sync::Arc;
use std::time::Duration;

use escala_replicas::{
    Balancer, Candidates, Member, Observation, Observed, Outcome, Reason, Replicas, Role,
    RouteError, Session, Strategy,
};
use tokio::time::advance;

use crate::{Name, documented, in_flight, node, steady};

/// Serves `count` requests one after the other, each node taking its time; returns the shares.
async fn serve(
    db: &Replicas<Name>,
    count: usize,
    answer: impl Fn(Name) -> (Duration, Outcome),
) -> Vec<(String, u64)> {
    let before = db.stats();
    for _ in 0..count {
        let pick = db.read(&Session::new()).unwrap();
        let (took, outcome) = answer(*pick);
        advance(took).await;
        pick.end(outcome);
    }
    let nodes = db.stats().nodes.into_iter().zip(before.nodes);
    nodes.map(|(now, before)| (now.name, now.started_total - before.started_total)).collect()
}

fn share(shares: &[(String, u64)], name: &str) -> u64 {
    shares.iter().find(|(other, _)| other == name).unwrap().1
}

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn the_quicker_of_two_spares_a_slow_replica() {
    let db = documented(Strategy::PeakEwma);
    let took = |name| (if name == "replica-1" { 50 * MS } else { 5 * MS }, Outcome::Success);
    serve(&db, 100, took).await;
    let shares = serve(&db, 1_000, took).await;
    // By turns it would get 375.
    assert!(share(&shares, "replica-1") < 60, "{shares:?}");
    // Not written off: when it is quick again, it is used again.
    advance(Duration::from_secs(60)).await;
    let shares = serve(&db, 1_000, |_| (5 * MS, Outcome::Success)).await;
    assert!(share(&shares, "replica-1") > 200, "{shares:?}");
    assert_eq!(db.stats().picks_for(Reason::Balanced), 2_100);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_fails_fast_does_not_look_fast() {
    let db = documented(Strategy::PeakEwma);
    serve(&db, 50, |_| (5 * MS, Outcome::Success)).await;
    // Once, which ejects nobody.
    let fails = |name| name == "replica-1" && node(&db, name).failed_total == 0;
    let fails_at_once =
        |name| if fails(name) { (MS, Outcome::Failure) } else { (5 * MS, Outcome::Success) };
    serve(&db, 50, fails_at_once).await;
    assert_eq!(node(&db, "replica-1").failed_total, 1);
    let shares = serve(&db, 300, |_| (5 * MS, Outcome::Success)).await;
    assert_eq!(share(&shares, "replica-1"), 0, "{shares:?}");
    assert!(node(&db, "replica-1").healthy);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_returns_is_used_again_although_it_failed_before() {
    let db = documented(Strategy::PeakEwma);
    serve(&db, 50, |_| (5 * MS, Outcome::Success)).await;
    // Requests that a client gives up last long, and fail it in the end whatever it is by then.
    let mut old: Vec<_> = (0..40).map(|_| db.read(&Session::new()).unwrap()).collect();
    old.retain(|pick| pick.name() == "replica-1");
    for pick in old.drain(3..6) {
        pick.failed();
    }
    assert!(!node(&db, "replica-1").healthy);
    advance(Duration::from_secs(30)).await;
    let fast = |_| (5 * MS, Outcome::Success);
    serve(&db, 1, fast).await;
    assert!(node(&db, "replica-1").healthy, "by a trial");
    for pick in old {
        pick.failed();
    }
    let shares = serve(&db, 300, fast).await;
    assert!(share(&shares, "replica-1") > 60, "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_asks_to_be_left_alone_is_and_it_ejects_nobody() {
    let overloaded = |retry_after| Outcome::Overloaded { retry_after };
    for (retry_after, spared) in [(None, 40), (Some(Duration::from_secs(60)), 70)] {
        let db = documented(Strategy::PeakEwma);
        serve(&db, 100, |_| (5 * MS, Outcome::Success)).await;
        let busy = |name| {
            (5 * MS, if name == "replica-1" { overloaded(retry_after) } else { Outcome::Success })
        };
        while node(&db, "replica-1").started_total < 100 {
            serve(&db, 100, busy).await;
            advance(Duration::from_secs(spared)).await;
        }
        let stats = node(&db, "replica-1");
        assert!(stats.healthy);
        assert_eq!((stats.failed_total, stats.ejections_total), (0, 0));
        let busy = serve(&db, 1_000, busy).await;
        assert!(share(&busy, "replica-1") < 20, "{busy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_node_is_neither_shunned_nor_flooded() {
    let db = documented(Strategy::PeakEwma);
    serve(&db, 200, |_| (5 * MS, Outcome::Success)).await;
    db.change(|members| members.add(Member::replica("new", "new").weight(3))).unwrap();
    // Held, so that none of them is ever measured.
    let held: Vec<_> = (0..110).map(|_| db.read(&Session::new()).unwrap()).collect();
    let new = held.iter().filter(|pick| pick.name() == "new").count();
    assert!((10..60).contains(&new), "{new} of 110");
}

#[tokio::test(start_paused = true)]
async fn requests_without_an_answer_count_if_they_took_longer() {
    let db = Replicas::without_primary().replica("a", 1, "a").replica("b", 1, "b");
    let db = db.config(steady()).strategy(Strategy::PeakEwma).build().unwrap();
    serve(&db, 100, |_| (5 * MS, Outcome::Success)).await;
    // Callers give up on a, which does not answer any more.
    for _ in 0..100 {
        let pick = db.read(&Session::new()).unwrap();
        let hangs = *pick == "a";
        advance(if hangs { 1_000 * MS } else { 5 * MS }).await;
        if hangs {
            drop(pick);
        } else {
            pick.succeeded();
        }
    }
    let shares = serve(&db, 100, |_| (5 * MS, Outcome::Success)).await;
    assert!(share(&shares, "a") < 10, "{shares:?}");
}

/// Takes what it is told to, and notes what it was shown.
struct Told {
    answer: Option<usize>,
    seen: parking_lot::Mutex<Vec<String>>,
}

impl Balancer for Told {
    fn choose(&self, candidates: &Candidates<'_>) -> Option<usize> {
        let seen = candidates.iter().map(|candidate| format!("{candidate:?}"));
        *self.seen.lock() = seen.collect();
        assert_eq!(candidates.len(), self.seen.lock().len());
        self.answer
    }

    fn wants_latency(&self) -> bool {
        true
    }

    fn name(&self) -> &'static str {
        "told"
    }
}

#[tokio::test(start_paused = true)]
async fn a_strategy_of_one_s_own_sees_the_candidates_and_is_obeyed() {
    let told = Arc::new(Told { answer: Some(1), seen: parking_lot::Mutex::default() });
    let db = Replicas::with_members([
        Member::primary("primary", "primary"),
        Member::replica("a", "a").weight(3).zone("z1"),
        Member::replica("b", "b"),
        Member::replica("c", "c"),
    ]);
    let db = db.config(steady()).strategy(Arc::clone(&told)).build().unwrap();
    let lag = Observation::new(Role::Replica).at(1, 7).lag(Some(Duration::from_secs(2)), None);
    assert_eq!(db.observe("c", lag), Observed::Applied);
    let shares = serve(&db, 100, |_| (5 * MS, Outcome::Success)).await;
    assert_eq!(share(&shares, "b"), 100);
    assert_eq!(db.stats().strategy, "told");
    let seen = told.seen.lock().clone();
    assert!(seen[0].contains("name: \"a\", weight: 3, in_flight: 0, latency: None"), "{seen:?}");
    assert!(seen[0].contains("zone: Some(\"z1\")"), "{seen:?}");
    assert!(seen[1].contains("latency: Some("), "{seen:?}");
    assert!(seen[2].contains("position: 7, lag: Some(2s)"), "{seen:?}");

    // Only those that may serve are shown.
    for _ in 0..3 {
        db.read(&Session::new()).unwrap().failed();
    }
    assert!(!node(&db, "b").healthy);
    assert_eq!(db.read(&Session::new()).unwrap().name(), "c");
    assert_eq!(told.seen.lock().len(), 2);
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_there_is_not_leaves_the_choice_to_the_load() {
    for answer in [None, Some(3), Some(usize::MAX)] {
        let db = documented(Strategy::Weighted);
        db.set_strategy(Arc::new(Told { answer, seen: parking_lot::Mutex::default() }));
        let held: Vec<_> = (0..80).map(|_| db.read(&Session::new()).unwrap()).collect();
        assert_eq!(node(&db, "replica-1").in_flight, 30);
        assert_eq!(node(&db, "replica-3").in_flight, 20);
        drop(held);
    }
}

#[tokio::test(start_paused = true)]
async fn a_strategy_of_one_s_own_is_not_asked_when_all_are_full() {
    let told = Arc::new(Told { answer: Some(0), seen: parking_lot::Mutex::default() });
    let members = ["a", "b"].map(|name| Member::replica(name, name).max_in_flight(1));
    let db = Replicas::with_members(members).strategy(Arc::clone(&told)).build().unwrap();
    let _held = [0, 1].map(|_| db.read(&Session::new()).unwrap());
    told.seen.lock().push("nothing".to_owned());
    let before = told.seen.lock().clone();
    assert_eq!(db.read(&Session::new()).unwrap_err(), RouteError::Saturated);
    assert_eq!(*told.seen.lock(), before, "there is no candidate to show");
}
