//! Limits, and waiting for a place in the order of arrival.

use std::time::{Duration, SystemTime};

use escala_replicas::{
    Fault, Member, Observation, Observed, Pick, Reason, Replicas, Role, RouteError, Session, Token,
};
use futures_util::FutureExt as _;
use tokio::time::Instant;
use tokio_test::{assert_pending, assert_ready, task};

use crate::{Name, in_flight, node, steady};

const WAIT: Duration = Duration::from_secs(5);

/// A primary and a replica of one place each.
fn narrow(max_wait: Duration, max_waiters: usize) -> Replicas<Name> {
    let members = [Member::primary("primary", "primary"), Member::replica("replica", "replica")];
    Replicas::with_members(members.map(|member| member.max_in_flight(1)))
        .config(steady().max_wait(max_wait).max_waiters(max_waiters))
        .build()
        .unwrap()
}

/// A session that wrote what has this position.
fn writer(position: u64) -> Session {
    let mut session = Session::new();
    session.wrote(Token::new(7, 1, position, SystemTime::now()));
    session
}

fn read(db: &Replicas<Name>) -> Result<Pick<Name>, RouteError> {
    db.read(&Session::new())
}

#[tokio::test(start_paused = true)]
async fn a_full_node_gets_no_more_and_others_take_over() {
    let members = ["a", "b"].map(|name| Member::replica(name, name));
    let [a, b] = members;
    let db = Replicas::with_members([a.max_in_flight(2), b.max_in_flight(3)]);
    let db = db.config(steady()).build().unwrap();
    let held: Vec<_> = (0..5).map(|_| read(&db).unwrap()).collect();
    assert_eq!((node(&db, "a").in_flight, node(&db, "b").in_flight), (2, 3));
    let error = read(&db).unwrap_err();
    assert_eq!(error, RouteError::Saturated);
    assert!(error.is_retryable() && error.retry_after().is_some());
    // Without `max_wait` nobody waits.
    let rejected = db.wait_read(&Session::new()).now_or_never();
    assert_eq!(rejected.unwrap().unwrap_err(), RouteError::Saturated);
    assert_eq!(db.stats().refused_total, 2);
    // A raised limit is in force at once, and a full set has ejected nobody.
    db.change(|members| members.set_max_in_flight("a", Some(3))).unwrap();
    assert_eq!(read(&db).unwrap().name(), "a");
    drop(held);
    assert!(db.stats().nodes.iter().all(|node| node.healthy));
    assert_eq!(in_flight(&db), 0);
}

#[test]
fn no_node_ever_has_more_than_its_limit() {
    let members = ["a", "b"].map(|name| Member::replica(name, name).max_in_flight(3));
    let db = Replicas::with_members(members).config(steady()).build().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    let held: Vec<_> = (0..2).map(|_| read(&db)).collect();
                    for name in ["a", "b"] {
                        assert!(node(&db, name).in_flight <= 3);
                    }
                    drop(held);
                }
            });
        }
    });
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn places_are_given_in_the_order_of_arrival() {
    let db = narrow(WAIT, 10);
    let mut held = Some(read(&db).unwrap());
    let session = Session::new();
    let mut waiting: Vec<_> = (0..4).map(|_| task::spawn(db.wait_read(&session))).collect();
    for waiter in &mut waiting {
        assert_pending!(waiter.poll());
    }
    assert_eq!(db.stats().waiting, 4);
    for mut waiter in waiting {
        drop(held.take());
        assert!(waiter.is_woken());
        held = Some(assert_ready!(waiter.poll()).unwrap());
    }
    drop(held);
    assert_eq!(db.stats().waiting, 0);
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_gives_up_at_any_moment_passes_its_chance_on() {
    let db = narrow(WAIT, 10);
    let session = Session::new();
    // Dropped before it was polled, while it queues, at the head, and when woken but not polled.
    drop(db.wait_read(&session));
    let held = read(&db).unwrap();
    let mut head = task::spawn(db.wait_read(&session));
    let mut second = task::spawn(db.wait_read(&session));
    let mut third = task::spawn(db.wait_read(&session));
    assert_pending!(head.poll());
    assert_pending!(second.poll());
    assert_pending!(third.poll());
    drop(second);
    drop(held);
    assert!(head.is_woken());
    drop(head);
    assert!(third.is_woken(), "else the place would stay free while somebody waits");
    drop(assert_ready!(third.poll()).unwrap());
    assert_eq!((db.stats().waiting, in_flight(&db)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_the_time_and_has_a_bound() {
    let db = narrow(WAIT, 1);
    let (_held, session) = (read(&db).unwrap(), Session::new());
    let start = Instant::now();
    let mut first = task::spawn(db.wait_read(&session));
    assert_pending!(first.poll());
    let rejected = db.wait_read(&session).now_or_never();
    assert_eq!(rejected.unwrap().unwrap_err(), RouteError::Saturated, "one may wait, no more");
    assert_eq!(first.await.unwrap_err(), RouteError::Saturated);
    assert_eq!(start.elapsed(), WAIT);
    assert_eq!((db.stats().waiting, db.stats().refused_total), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_primary_is_in_no_reader_s_way() {
    let db = narrow(WAIT, 10);
    let session = Session::new();
    let (write, held) = (db.write().unwrap(), read(&db).unwrap());
    let mut writer = task::spawn(db.wait_write());
    assert_pending!(writer.poll());
    let mut reader = task::spawn(db.wait_read(&session));
    assert_pending!(reader.poll());
    drop(held);
    drop(assert_ready!(reader.poll()).unwrap());
    assert_pending!(writer.poll());
    drop(write);
    assert_eq!(assert_ready!(writer.poll()).unwrap().name(), "primary");
}

/// It may have to wait for a primary that nobody knows yet.
#[tokio::test(start_paused = true)]
async fn who_wrote_to_a_later_primary_is_in_no_writer_s_way() {
    let db = narrow(WAIT, 10);
    let seen = Observation::new(Role::Primary).of_system(7).at(1, 1);
    assert_eq!(db.observe("primary", seen), Observed::Applied);
    let mut session = Session::pinned_to_primary();
    session.wrote(Token::new(7, 2, 1, SystemTime::now()));
    let mut reader = task::spawn(db.wait_read(&session));
    assert_pending!(reader.poll());
    assert_eq!(db.wait_write().now_or_never().unwrap().unwrap().name(), "primary");
    let later = Observation::new(Role::Primary).of_system(7).at(2, 1);
    assert_eq!(db.observe("primary", later), Observed::Applied);
    assert_eq!(assert_ready!(reader.poll()).unwrap().name(), "primary");
}

/// Nor when it came to wait while the primary was full, so that nobody knew yet.
#[tokio::test(start_paused = true)]
async fn those_with_a_token_wait_for_the_primary_in_turn_with_the_others() {
    let db = narrow(WAIT, 10);
    let of_timeline = |timeline| {
        let mut session = Session::pinned_to_primary();
        session.wrote(Token::new(7, timeline, 1, SystemTime::now()));
        session
    };
    let seen = |timeline| Observation::new(Role::Primary).of_system(7).at(timeline, 1);
    assert_eq!(db.observe("primary", seen(1)), Observed::Applied);
    let held = db.write().unwrap();
    let (later, known) = (of_timeline(2), of_timeline(1));
    let mut first = task::spawn(db.wait_write());
    let mut second = task::spawn(db.wait_read(&later));
    let mut third = task::spawn(db.wait_read(&known));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    assert_pending!(third.poll());
    drop(held);
    assert_pending!(third.poll());
    let held = assert_ready!(first.poll()).unwrap();
    drop(held);
    let kicks = db.kicks("primary").unwrap();
    assert!(kicks.notified().now_or_never().is_none());
    assert_pending!(second.poll());
    assert!(kicks.notified().now_or_never().is_some(), "it has the later one looked for");
    let held = assert_ready!(third.poll()).unwrap();
    // Known, but full: it is one of all who wait for it.
    assert_eq!(db.observe("primary", seen(2)), Observed::Applied);
    assert_pending!(second.poll());
    let mut last = task::spawn(db.wait_write());
    assert_pending!(last.poll());
    drop(held);
    assert_pending!(last.poll());
    assert_eq!(assert_ready!(second.poll()).unwrap().name(), "primary");
    drop(assert_ready!(last.poll()).unwrap());
    assert_eq!((db.stats().waiting, in_flight(&db)), (0, 0));
}

/// Nothing is freed meanwhile, and nobody else comes.
#[tokio::test(start_paused = true)]
async fn one_who_waits_tries_an_ejected_replica_when_its_time_is_up() {
    let members = ["a", "b"].map(|name| Member::replica(name, name).max_in_flight(3));
    let config = steady().max_wait(60 * Duration::from_secs(1));
    let db = Replicas::with_members(members).config(config).build().unwrap();
    let start = Instant::now();
    let (out, held): (Vec<_>, Vec<_>) =
        (0..6).map(|_| read(&db).unwrap()).partition(|pick| pick.name() == "a");
    out.into_iter().for_each(Pick::failed);
    assert!(!node(&db, "a").healthy);
    let pick = db.wait_read(&Session::new()).await.unwrap();
    assert_eq!((pick.name(), pick.reason()), ("a", Reason::Trial));
    assert!((30..31).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    drop((held, pick));
    assert_eq!((db.stats().waiting, in_flight(&db)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_write_waits_for_a_primary_to_be_known() {
    let db = Replicas::with_members(["a", "b"].map(|name| Member::unknown(name, name)));
    let db = db.config(steady().max_wait(WAIT)).build().unwrap();
    let mut write = task::spawn(db.wait_write());
    assert_pending!(write.poll());
    assert_eq!(db.observe("b", Observation::new(Role::Primary).at(1, 1)), Observed::Applied);
    assert_eq!(assert_ready!(write.poll()).unwrap().name(), "b");
}

#[tokio::test(start_paused = true)]
async fn one_who_waits_for_a_place_hears_of_a_replica_that_has_caught_up() {
    let config = steady().max_wait(WAIT).token_wait(Duration::ZERO);
    let primary = Member::primary("primary", "primary").max_in_flight(1);
    let members = [primary, Member::replica("replica", "replica")];
    let db = Replicas::with_members(members).config(config).build().unwrap();
    let seen = |position| Observation::new(Role::Replica).of_system(7).at(1, position);
    assert_eq!(db.observe("replica", seen(1)), Observed::Applied);
    let _full = db.write().unwrap();
    let session = writer(2);
    let mut waiter = task::spawn(db.wait_read(&session));
    assert_pending!(waiter.poll());
    // Neither its role nor anything else has changed.
    assert_eq!(db.observe("replica", seen(2)), Observed::Applied);
    assert!(waiter.is_woken());
    assert_eq!(assert_ready!(waiter.poll()).unwrap().name(), "replica");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_what_nobody_has_is_in_the_way_of_none_who_could_be_served() {
    let config = steady().max_wait(WAIT).token_wait(Duration::ZERO);
    let members = [
        Member::primary("primary", "primary"),
        Member::replica("a", "a"),
        Member::replica("b", "b"),
    ];
    let members = members.map(|member| member.max_in_flight(1));
    let db = Replicas::with_members(members).config(config).build().unwrap();
    for (name, position) in [("a", 10), ("b", 20)] {
        let seen = Observation::new(Role::Replica).of_system(7).at(1, position);
        assert_eq!(db.observe(name, seen), Observed::Applied);
    }
    let write = db.write().unwrap();
    let [nobody, of_b, of_a] = [30, 20, 10].map(writer);
    let mut first = task::spawn(db.wait_read(&nobody));
    assert_pending!(first.poll());
    // One that comes after it and could be served at once is.
    let on_b = assert_ready!(task::spawn(db.wait_read(&of_b)).poll()).unwrap();
    assert_eq!(on_b.name(), "b");
    let on_a = db.wait_read(&of_a).await.unwrap();
    assert_eq!(on_a.name(), "a");
    // So is one that has waited behind it.
    let mut second = task::spawn(db.wait_read(&of_b));
    let mut third = task::spawn(db.wait_read(&of_a));
    assert_pending!(second.poll());
    assert_pending!(third.poll());
    drop(on_a);
    assert_pending!(second.poll());
    let on_a = assert_ready!(third.poll()).unwrap();
    assert_eq!(on_a.name(), "a");
    // And so is one that any replica could serve.
    let anybody = Session::new();
    let mut fourth = task::spawn(db.wait_read(&anybody));
    assert_pending!(fourth.poll());
    drop((on_a, on_b));
    assert!(assert_ready!(second.poll()).is_ok());
    assert!(assert_ready!(fourth.poll()).is_ok());
    drop(write);
    assert_eq!(assert_ready!(first.poll()).unwrap().name(), "primary");
    assert_eq!((db.stats().waiting, in_flight(&db)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_second_try_is_in_the_way_of_no_first_one() {
    let members = ["a", "b"].map(|name| Member::replica(name, name).max_in_flight(1));
    let config = steady().max_wait(WAIT);
    let db = Replicas::with_members(members).config(config).build().unwrap();
    let (session, on_a) = (Session::new(), read(&db).unwrap());
    assert_eq!(on_a.name(), "a");
    // It fails on b and waits for a.
    let mut retry = task::spawn(db.read_with(
        &session,
        |fault: &Fault| *fault,
        |node: Name| {
            let failed = node == "b";
            async move { if failed { Err(Fault::Node) } else { Ok(node) } }
        },
    ));
    assert_pending!(retry.poll());
    let on_b = assert_ready!(task::spawn(db.wait_read(&session)).poll()).unwrap();
    assert_eq!(on_b.name(), "b");
    let mut next = task::spawn(db.wait_read(&session));
    assert_pending!(next.poll());
    drop(on_b);
    assert_pending!(retry.poll());
    assert_eq!(assert_ready!(next.poll()).unwrap().name(), "b");
    drop(on_a);
    assert_eq!(assert_ready!(retry.poll()), Ok("a"));
}

/// Threads that pick, hold, end and give up, with two places among them: whoever can wait long
/// enough is served, so no wake-up was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost_under_load() {
    let members = ["a", "b"].map(|name| Member::replica(name, name).max_in_flight(1));
    let config = steady().max_wait(Duration::from_secs(60));
    let db = Replicas::with_members(members).config(config).build().unwrap();
    let tasks: Vec<_> = (0..16)
        .map(|seed| {
            let db = db.clone();
            tokio::spawn(async move {
                let (session, mut random) = (Session::new(), fastrand::Rng::with_seed(seed));
                for _ in 0..500 {
                    if random.u8(..) < 60 {
                        tokio::select! {
                            biased;
                            pick = db.wait_read(&session) => drop(pick.unwrap()),
                            () = tokio::task::yield_now() => {}
                        }
                        continue;
                    }
                    let pick = db.wait_read(&session).await.unwrap();
                    if random.bool() {
                        tokio::task::yield_now().await;
                    }
                    pick.succeeded();
                }
            })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(30), task).await.unwrap().unwrap();
    }
    assert_eq!((db.stats().waiting, in_flight(&db)), (0, 0));
}
