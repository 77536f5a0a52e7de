//! Reads that must see something: which replicas may serve them, and how they wait for one.

use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use escala_replicas::{
    Exclusion, Fault, Member, Observation, Observed, Reason, Replicas, Role, Route, RouteError,
    Routed, Session, Strategy, TOKEN_LIFE, Token, WriteError,
};
use tokio::time::{Instant, advance, sleep, timeout};
use tower::{ServiceExt, service_fn};

use crate::{Name, documented, in_flight, steady};

const MS: Duration = Duration::from_millis(1);
const REPLICAS: [Name; 3] = ["replica-1", "replica-2", "replica-3"];

fn token(position: u64) -> Token {
    Token::new(7, 1, position, SystemTime::now())
}

fn writer(position: u64) -> Session {
    let mut session = Session::new();
    session.wrote(token(position));
    session
}

/// The monitor says that a node has come so far and lags by so much.
fn observe<N>(db: &Replicas<N>, name: &str, position: u64, lag: Duration) {
    let role = if name == "primary" { Role::Primary } else { Role::Replica };
    let seen = Observation::new(role).of_system(7).at(1, position).lag(Some(lag), None);
    assert_eq!(db.observe(name, seen), Observed::Applied);
}

fn observed(strategy: Strategy, positions: [u64; 3]) -> Replicas<Name> {
    let db = documented(strategy);
    observe(&db, "primary", 100, Duration::ZERO);
    for (name, position) in REPLICAS.into_iter().zip(positions) {
        observe(&db, name, position, MS);
    }
    db
}

fn read(db: &Replicas<Name>, session: &Session) -> (Name, Reason) {
    let pick = db.read(session).unwrap();
    (*pick, pick.reason())
}

#[tokio::test(start_paused = true)]
async fn only_replicas_that_have_the_write_serve_its_session() {
    for strategy in [Strategy::Weighted, Strategy::LeastLoaded, Strategy::RoundRobin] {
        let db = observed(strategy, [99, 100, 101]);
        let session = writer(100);
        for _ in 0..10 {
            let (name, reason) = read(&db, &session);
            assert!(["replica-2", "replica-3"].contains(&name), "{name}");
            assert_eq!(reason, Reason::RywToken);
        }
        assert_eq!(read(&db, &writer(102)), ("primary", Reason::RywToken));
        let mut unplaced = Session::new();
        unplaced.wrote(Token::unplaced(SystemTime::now()));
        assert_eq!(read(&db, &unplaced), ("primary", Reason::RywToken));
        // Others are served by all.
        let others: Vec<Name> = (0..8).map(|_| read(&db, &Session::new()).0).collect();
        assert!(REPLICAS.iter().all(|name| others.contains(name)), "{others:?}");
        assert_eq!(in_flight(&db), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_monitor_the_primary_reads_until_the_token_expires() {
    let db = documented(Strategy::Weighted);
    let session = writer(1);
    let start = Instant::now();
    let pick = db.wait_read(&session).await.unwrap();
    assert_eq!((*pick, pick.reason()), ("primary", Reason::RywToken));
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody to wait for");
    advance(TOKEN_LIFE).await;
    assert_eq!(read(&db, &session), ("replica-1", Reason::Weighted));
    let bounded = Session::new().max_lag(Duration::from_secs(1));
    assert_eq!(read(&db, &bounded), ("primary", Reason::LagExcluded));
}

#[tokio::test(start_paused = true)]
async fn a_bound_passes_over_replicas_that_lag_more() {
    let db = observed(Strategy::Weighted, [0, 0, 0]);
    observe(&db, "replica-1", 0, Duration::from_secs(3));
    observe(&db, "replica-2", 0, Duration::from_millis(900));
    let bounded = Session::new().max_lag(Duration::from_secs(1));
    for _ in 0..8 {
        assert!(["replica-2", "replica-3"].contains(&read(&db, &bounded).0));
    }
    // Nobody looked again: who was 900 ms behind may be 1,001 ms behind.
    advance(101 * MS).await;
    assert_eq!(read(&db, &bounded), ("replica-3", Reason::Weighted));
    advance(899 * MS).await;
    assert_eq!(read(&db, &bounded), ("primary", Reason::LagExcluded));
    // A look is all it takes.
    let kick = db.kicks("replica-3").unwrap();
    let look = async {
        kick.notified().await;
        observe(&db, "replica-3", 0, MS);
    };
    let (pick, ()) = tokio::join!(db.wait_read(&bounded), look);
    assert_eq!(*pick.unwrap(), "replica-3");
}

#[tokio::test(start_paused = true)]
async fn a_read_waits_for_the_replica_that_is_coming() {
    let db = observed(Strategy::Weighted, [0, 0, 0]);
    let start = Instant::now();
    let catch_up = async {
        sleep(7 * MS).await;
        observe(&db, "replica-3", 50, MS);
        sleep(MS).await;
        observe(&db, "replica-2", 100, MS);
    };
    let session = writer(100);
    let (pick, ()) = tokio::join!(db.wait_read(&session), catch_up);
    let pick = pick.unwrap();
    assert_eq!((*pick, pick.reason()), ("replica-2", Reason::RywToken));
    assert_eq!(start.elapsed(), 8 * MS);
    let stats = db.stats();
    assert_eq!((stats.token_waits_total, stats.token_waits_missed_total), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_failed_is_looked_at_before_it_is_relied_on() {
    let db = observed(Strategy::Weighted, [100, 100, 100]);
    let kick = db.kicks("replica-1").unwrap();
    let pick = loop {
        let pick = db.read(&writer(100)).unwrap();
        if *pick == "replica-1" {
            break pick;
        }
    };
    pick.failed();
    for _ in 0..10 {
        assert_ne!(read(&db, &writer(100)).0, "replica-1", "it may have lost what it showed");
    }
    let others: Vec<Name> = (0..8).map(|_| read(&db, &Session::new()).0).collect();
    assert!(others.contains(&"replica-1"), "one failure is no reason not to read there at all");
    kick.notified().await;
    observe(&db, "replica-1", 100, MS);
    assert!((0..10).any(|_| read(&db, &writer(100)).0 == "replica-1"));
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_later_timeline_outdates_the_primary() {
    let db = observed(Strategy::Weighted, [100, 100, 100]);
    let later = || {
        let mut session = Session::new();
        session.wrote(Token::new(7, 2, 50, SystemTime::now()));
        session
    };
    // Another process wrote to a primary that this one has not heard of.
    assert_eq!(db.read(&later()).unwrap_err(), RouteError::PrimaryUnknown);
    let mut pinned = Session::pinned_to_primary();
    pinned.wrote(Token::new(7, 2, 50, SystemTime::now()));
    assert_eq!(db.read(&pinned).unwrap_err(), RouteError::PrimaryUnknown);
    let kick = db.kicks("replica-2").unwrap();
    let monitor = async {
        kick.notified().await;
        sleep(20 * MS).await;
        promoted(&db, "replica-2");
    };
    let session = later();
    let (pick, ()) = tokio::join!(db.wait_read(&session), monitor);
    let pick = pick.unwrap();
    assert_eq!((*pick, pick.role()), ("replica-2", Role::Primary));
    // Of another database it says nothing.
    let mut foreign = Session::new();
    foreign.wrote(Token::new(8, 9, 50, SystemTime::now()));
    assert_eq!(read(&db, &foreign), ("replica-2", Reason::RywToken));
}

#[tokio::test(start_paused = true)]
async fn a_read_waits_no_longer_than_it_may() {
    let db = observed(Strategy::Weighted, [0, 0, 0]);
    let start = Instant::now();
    let pick = db.wait_read(&writer(100)).await.unwrap();
    assert_eq!((*pick, pick.reason()), ("primary", Reason::RywToken));
    assert_eq!(start.elapsed(), 50 * MS);
    assert_eq!(db.stats().token_waits_missed_total, 1);

    // Nor at all for one that cannot make it: too far behind, of another timeline or database.
    for seen in [
        Observation::new(Role::Replica).of_system(7).at(1, 0).lag(Some(2_000 * MS), None),
        Observation::new(Role::Replica).of_system(7).at(2, 500).lag(Some(MS), None),
        Observation::new(Role::Replica).of_system(8).at(1, 500).lag(Some(MS), None),
        Observation::new(Role::None),
    ] {
        for name in REPLICAS {
            assert_eq!(db.observe(name, seen), Observed::Applied);
        }
        let start = Instant::now();
        assert_eq!(*db.wait_read(&writer(100)).await.unwrap(), "primary");
        assert_eq!(start.elapsed(), Duration::ZERO, "{seen:?}");
    }
    let impatient = Replicas::builder("primary").replica("replica-1", 1, "replica-1");
    let impatient = impatient.config(steady().token_wait(Duration::ZERO)).build().unwrap();
    observe(&impatient, "replica-1", 0, MS);
    let start = Instant::now();
    assert_eq!(*impatient.wait_read(&writer(100)).await.unwrap(), "primary");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_share_the_looks_they_ask_for() {
    let db = observed(Strategy::Weighted, [0, 0, 0]);
    let mut looks = 0_u64;
    let kick = db.kicks("replica-1").unwrap();
    let monitor = async {
        loop {
            kick.notified().await;
            looks += 1;
            observe(&db, "replica-1", looks, MS);
        }
    };
    let session = Arc::new(writer(100));
    let readers = (0..100).map(|_| {
        let (db, session) = (db.clone(), Arc::clone(&session));
        async move { *db.wait_read(&session).await.unwrap() }
    });
    let readers = futures_util::future::join_all(readers);
    let names = tokio::select! {
        names = readers => names,
        () = monitor => unreachable!(),
    };
    assert!(names.iter().all(|name| *name == "primary"), "it was looked at too seldom for that");
    // At once and every 2 ms for 50 ms, however many wait.
    assert!((20..=26).contains(&looks), "{looks} looks");
    let stats = db.stats();
    assert_eq!((stats.token_waits_total, stats.token_waits_missed_total), (100, 100));
}

#[tokio::test(start_paused = true)]
async fn more_than_may_wait_go_to_the_primary() {
    let config = steady().max_waiters(1);
    let db = Replicas::builder("primary").replica("r", 1, "r").config(config).build().unwrap();
    observe(&db, "r", 0, MS);
    let session = writer(100);
    let first = db.wait_read(&session);
    let second = async {
        // The first one waits by then.
        sleep(MS).await;
        let start = Instant::now();
        assert_eq!(*db.wait_read(&session).await.unwrap(), "primary");
        assert_eq!(start.elapsed(), Duration::ZERO);
        observe(&db, "r", 100, MS);
    };
    let (first, ()) = tokio::join!(first, second);
    assert_eq!(*first.unwrap(), "r");
    // One that is dropped makes room.
    let session = writer(200);
    assert!(timeout(MS, db.wait_read(&session)).await.is_err());
    let late = async {
        sleep(MS).await;
        observe(&db, "r", 200, MS);
    };
    let (pick, ()) = tokio::join!(db.wait_read(&session), late);
    assert_eq!(*pick.unwrap(), "r");
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn when_those_that_have_the_write_are_full_the_primary_reads_within_its_share() {
    let members = ["a", "b"].map(|name| Member::replica(name, name).max_in_flight(1));
    let primary = Member::primary("primary", "primary").max_in_flight(5);
    let db = Replicas::with_members(members.into_iter().chain([primary]));
    let db = db.config(steady()).build().unwrap();
    observe(&db, "a", 100, MS);
    observe(&db, "b", 0, MS);
    let _full = db.read(&writer(100)).unwrap();
    let pick = db.wait_read(&writer(100)).await.unwrap();
    assert_eq!((*pick, pick.reason()), ("primary", Reason::PrimaryFallback));
    // One is what a fifth of its five places comes to.
    assert_eq!(db.read(&writer(100)).unwrap_err(), RouteError::Saturated);
    drop(pick);
    let bounded = Session::new().max_lag(Duration::from_secs(1));
    let held = db.read(&bounded).unwrap();
    assert_eq!(*held, "b");
    assert_eq!(*db.read(&bounded).unwrap(), "primary");
    // Who may go anywhere leaves the primary to the writes.
    assert_eq!(db.read(&Session::new()).unwrap_err(), RouteError::Saturated);
    drop(held);
    // A second try does not: the other replica is full.
    let classify = |fault: &Fault| *fault;
    let anybody = Session::new();
    let answer = db.read_with(&anybody, classify, |node: Name| async move {
        if node == "primary" { Ok(node) } else { Err(Fault::Node) }
    });
    assert_eq!(answer.await, Ok("primary"));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_conflicts_or_meets_a_busy_node_goes_on_elsewhere_and_blames_nobody() {
    for fault in [Fault::Conflict, Fault::Busy] {
        let db = observed(Strategy::Weighted, [100, 100, 0]);
        // Often enough to eject whom it blames.
        for _ in 0..10 {
            let mut asked = Vec::new();
            let answer = db
                .read_with(
                    &writer(100),
                    |fault: &Fault| *fault,
                    |node: Name| {
                        asked.push(node);
                        let primary = node == "primary";
                        async move { if primary { Ok(node) } else { Err(fault) } }
                    },
                )
                .await;
            assert_eq!(answer, Ok("primary"));
            asked.sort_unstable();
            assert_eq!(asked, ["primary", "replica-1", "replica-2"], "not one without the write");
        }
        for name in REPLICAS {
            let node = crate::node(&db, name);
            assert_eq!((node.failed_total, node.healthy), (0, true));
        }
        assert_eq!(in_flight(&db), 0);
    }
}

struct Read(Session);

impl Routed for Read {
    fn route(&self) -> Route {
        Route::Read
    }

    fn session(&self) -> Option<&Session> {
        Some(&self.0)
    }
}

struct Write(Session);

impl Routed for Write {
    fn route(&self) -> Route {
        Route::Write
    }

    fn session(&self) -> Option<&Session> {
        Some(&self.0)
    }
}

/// It would be lost with the primary that it went to.
#[tokio::test(start_paused = true)]
async fn a_write_of_a_session_that_knows_a_later_primary_waits_for_that_one() {
    let node = |name: Name| service_fn(move |_: Write| ready(Ok::<_, std::io::Error>(name)));
    let wrote = |timeline| {
        let mut session = Session::new();
        session.wrote(Token::new(7, timeline, 50, SystemTime::now()));
        Write(session)
    };
    for wait in [Duration::ZERO, 5_000 * MS] {
        let db = Replicas::builder(node("primary")).replica("r", 1, node("r"));
        let db = db.config(steady().max_wait(wait)).build().unwrap();
        observe(&db, "primary", 50, Duration::ZERO);
        observe(&db, "r", 50, MS);
        assert_eq!(db.service().oneshot(wrote(1)).await.unwrap(), "primary");
        let kicks = db.kicks("r").unwrap();
        let monitor = async {
            kicks.notified().await;
            let seen = Observation::new(Role::Primary).of_system(7).at(2, 100);
            assert_eq!(db.observe("r", seen), Observed::Applied);
        };
        let (answer, ()) = tokio::join!(db.service().oneshot(wrote(2)), monitor);
        if wait.is_zero() {
            let refused = answer.unwrap_err();
            let refused = refused.downcast_ref::<RouteError>();
            assert_eq!(refused, Some(&RouteError::PrimaryUnknown));
        } else {
            assert_eq!(answer.unwrap(), "r");
        }
        assert_eq!(db.service().oneshot(wrote(2)).await.unwrap(), "r");
        assert_eq!(in_flight(&db), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_waits_too() {
    let node = |name: Name| service_fn(move |_: Read| async move { Ok::<_, std::io::Error>(name) });
    let db = Replicas::builder(node("primary")).replica("r", 1, node("r")).config(steady());
    let db = db.build().unwrap();
    observe(&db, "r", 0, MS);
    let late = async {
        sleep(5 * MS).await;
        observe(&db, "r", 100, MS);
    };
    let (answer, ()) = tokio::join!(db.service().oneshot(Read(writer(100))), late);
    assert_eq!(answer.unwrap(), "r");
    assert_eq!(db.service().oneshot(Read(writer(101))).await.unwrap(), "primary");
    assert_eq!(db.service().oneshot(Read(Session::pinned_to_primary())).await.unwrap(), "primary");
    assert_eq!(in_flight(&db), 0);
}

fn promoted(db: &Replicas<Name>, name: &str) {
    let seen = Observation::new(Role::Primary).of_system(7).at(2, 100);
    assert_eq!(db.observe(name, seen), Observed::Applied);
}

#[tokio::test(start_paused = true)]
async fn a_write_follows_the_primary() {
    let db = observed(Strategy::Weighted, [100, 100, 100]);
    let kick = db.kicks("replica-1").unwrap();
    let monitor = async {
        kick.notified().await;
        sleep(300 * MS).await;
        promoted(&db, "replica-1");
    };
    let mut asked = Vec::new();
    let write = db.write_with(
        Duration::from_secs(5),
        |fault: &Fault| *fault,
        |node: Name| {
            asked.push(node);
            async move { if node == "primary" { Err(Fault::NotPrimary) } else { Ok(node) } }
        },
    );
    let (written, ()) = tokio::join!(write, monitor);
    assert_eq!(written, Ok("replica-1"));
    assert_eq!(asked, ["primary", "replica-1"], "it takes nothing once it has refused");
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn a_write_is_made_again_only_if_it_had_no_effect() {
    for (fault, attempts) in [
        (Fault::Node, 1..=1),
        (Fault::Conflict, 1..=1),
        (Fault::Operation, 1..=1),
        (Fault::Busy, 1..=1),
        (Fault::NotSent, 5..=20),
    ] {
        let db = documented(Strategy::Weighted);
        let mut asked = 0;
        let start = Instant::now();
        let written: Result<(), _> = db
            .write_with(
                Duration::from_secs(1),
                |fault: &Fault| *fault,
                |_| {
                    asked += 1;
                    async move { Err(fault) }
                },
            )
            .await;
        assert_eq!(written, Err(WriteError::Operation(fault)));
        assert!(attempts.contains(&asked), "{fault:?}: {asked}");
        assert!(start.elapsed() <= Duration::from_secs(1), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_without_a_primary_waits_and_then_says_so() {
    let db = observed(Strategy::Weighted, [100, 100, 100]);
    assert_eq!(db.observe("primary", Observation::new(Role::None)), Observed::Applied);
    let write = |within| {
        let classify = |fault: &Fault| *fault;
        db.write_with(within, classify, |node: Name| async move { Ok::<_, Fault>(node) })
    };
    let error = write(300 * MS).await.unwrap_err();
    assert_eq!(error, WriteError::NoNode(RouteError::PrimaryUnknown));
    let later = async {
        sleep(500 * MS).await;
        promoted(&db, "replica-2");
    };
    let (written, ()) = tokio::join!(write(Duration::from_secs(5)), later);
    assert_eq!(written, Ok("replica-2"));
    let balancer = Replicas::without_primary().replica("r", 1, "r").build().unwrap();
    let classify = |fault: &Fault| *fault;
    let never = balancer.write_with(Duration::from_secs(5), classify, |_| async { Ok(()) });
    assert_eq!(never.await, Err(WriteError::NoNode(RouteError::NoPrimary)), "and at once");
}

#[tokio::test(start_paused = true)]
async fn a_write_waits_for_a_place_no_longer_than_it_may_and_is_refused_once() {
    let primary = Member::primary("primary", "primary").max_in_flight(1);
    let config = steady().max_wait(Duration::from_secs(5));
    let db = Replicas::with_members([primary]).config(config).build().unwrap();
    let held = db.write().unwrap();
    let write = |within| {
        let classify = |fault: &Fault| *fault;
        db.write_with(within, classify, |node: Name| async move { Ok::<_, Fault>(node) })
    };
    let start = Instant::now();
    let written = write(300 * MS).await;
    assert_eq!(written, Err(WriteError::NoNode(RouteError::Saturated)));
    assert_eq!(start.elapsed(), 300 * MS);
    assert_eq!(db.stats().refused_total, 1);
    drop(held);
    assert_eq!(write(Duration::ZERO).await, Ok("primary"));
    assert_eq!(write(Duration::MAX).await, Ok("primary"));

    // A second try that finds nobody is no request that was refused, and neither is a round of waiting.
    let observed = observed(Strategy::Weighted, [100, 100, 100]);
    assert_eq!(observed.observe("primary", Observation::new(Role::None)), Observed::Applied);
    let classify = |fault: &Fault| *fault;
    let write = observed.write_with(300 * MS, classify, |_| async { Ok::<_, Fault>(()) });
    assert!(write.await.unwrap_err().is_no_node());
    assert_eq!(observed.stats().refused_total, 1);
    let session = writer(100);
    let read = observed.read_with(&session, classify, |_| async { Err::<(), _>(Fault::Node) });
    assert_eq!(read.await.unwrap_err().into_operation(), Some(Fault::Node));
    assert_eq!(observed.stats().refused_total, 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_expired_asks_for_nothing() {
    let db = documented(Strategy::Weighted);
    let session = writer(1);
    assert_eq!(db.observe("primary", Observation::new(Role::None)), Observed::Applied);
    let lags = Observation::new(Role::Replica).excluded(Exclusion::Lag);
    for name in REPLICAS {
        assert_eq!(db.observe(name, lags), Observed::Applied);
    }
    assert_eq!(db.read(&session).unwrap_err(), RouteError::NoFitNode);
    advance(TOKEN_LIFE).await;
    assert_eq!(read(&db, &session).1, Reason::PanicMode, "one that lags will do");
}

#[tokio::test(start_paused = true)]
async fn a_write_answers_with_its_own_error_rather_than_that_there_is_no_primary() {
    let db = observed(Strategy::Weighted, [100, 100, 100]);
    let classify = |fault: &Fault| *fault;
    let write = db.write_with(300 * MS, classify, |_| async { Err::<(), _>(Fault::NotPrimary) });
    assert_eq!(write.await, Err(WriteError::Operation(Fault::NotPrimary)));
    let node = crate::node(&db, "primary");
    assert_eq!((node.role, node.started_total), (Role::None, 1));
}
