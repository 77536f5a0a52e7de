//! The set as a tower service, over mock nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

use escala_replicas::{
    BoxError, Member, Outcome, Reason, ReplicaService, Replicas, Route, RouteError, Routed, Session,
};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Service, ServiceExt};
use tower_test::mock::{self, Handle, Mock};

use crate::{in_flight, node, steady};

#[derive(Debug, PartialEq)]
pub(crate) struct Ask(pub(crate) Route);

impl Routed for Ask {
    fn route(&self) -> Route {
        self.0
    }
}

pub(crate) type Node = Mock<Ask, &'static str>;

/// A primary and one replica, with the handles that answer for them.
pub(crate) fn pair() -> (Replicas<Node>, Handle<Ask, &'static str>, Handle<Ask, &'static str>) {
    let (primary, primary_handle) = mock::pair();
    let (replica, replica_handle) = mock::pair();
    let db = Replicas::builder(primary).replica("replica-1", 1, replica).config(steady());
    (db.build().unwrap(), primary_handle, replica_handle)
}

#[tokio::test(start_paused = true)]
async fn each_request_goes_where_it_asks_to() {
    let (db, mut primary, mut replica) = pair();
    let mut service = db.service();
    let mut read = task::spawn(service.ready().await.unwrap().call(Ask(Route::Read)));
    assert_pending!(read.poll());
    let (request, reply) = replica.next_request().await.unwrap();
    assert_eq!(request, Ask(Route::Read));
    reply.send_response("from the replica");
    assert_eq!(assert_ready!(read.poll()).unwrap(), "from the replica");

    let mut write = task::spawn(service.call(Ask(Route::Write)));
    assert_pending!(write.poll());
    let (request, reply) = primary.next_request().await.unwrap();
    assert_eq!(request, Ask(Route::Write));
    reply.send_response("from the primary");
    assert_eq!(assert_ready!(write.poll()).unwrap(), "from the primary");
    assert_eq!(in_flight(&db), 0);
    assert_eq!(node(&db, "primary").succeeded_total, 1);
    assert_eq!(node(&db, "replica-1").succeeded_total, 1);
}

#[tokio::test(start_paused = true)]
async fn the_request_waits_for_its_node_and_counts_as_in_flight_meanwhile() {
    let (db, _primary, mut replica) = pair();
    replica.allow(0);
    let mut read = task::spawn(db.service().call(Ask(Route::Read)));
    assert_pending!(read.poll());
    assert_eq!(node(&db, "replica-1").in_flight, 1);
    replica.allow(1);
    assert!(read.is_woken());
    assert_pending!(read.poll());
    let (_, reply) = replica.next_request().await.unwrap();
    assert_eq!(node(&db, "replica-1").in_flight, 1);
    reply.send_response("late");
    assert_eq!(assert_ready!(read.poll()).unwrap(), "late");
    assert_eq!(node(&db, "replica-1").in_flight, 0);
}

/// Panics when it is called without having been ready itself, as a clone of a ready one is.
struct OnlyIfReady {
    ready: bool,
    calls: Arc<AtomicUsize>,
}

impl Clone for OnlyIfReady {
    fn clone(&self) -> Self {
        Self { ready: false, calls: Arc::clone(&self.calls) }
    }
}

impl Service<Ask> for OnlyIfReady {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), BoxError>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Ask) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        self.calls.fetch_add(1, SeqCst);
        std::future::ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn the_value_that_was_ready_is_the_one_called() {
    let calls = Arc::<AtomicUsize>::default();
    let one = OnlyIfReady { ready: true, calls: Arc::clone(&calls) };
    let db = Replicas::builder(one.clone()).replica("replica-1", 1, one).build().unwrap();
    let mut service = db.service();
    for _ in 0..3 {
        service.ready().await.unwrap().call(Ask(Route::Read)).await.unwrap();
        service.clone().oneshot(Ask(Route::Write)).await.unwrap();
    }
    assert_eq!(calls.load(SeqCst), 6);
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_node_count_against_it_and_pass_through() {
    let (db, _primary, mut replica) = pair();
    for _ in 0..3 {
        let mut read = task::spawn(db.service().call(Ask(Route::Read)));
        assert_pending!(read.poll());
        let (_, reply) = replica.next_request().await.unwrap();
        reply.send_error("connection reset");
        let error = assert_ready!(read.poll()).unwrap_err();
        assert_eq!(error.to_string(), "connection reset");
    }
    assert_eq!(node(&db, "replica-1").failed_total, 3);
    assert!(!node(&db, "replica-1").healthy);

    let mut read = task::spawn(db.service().call(Ask(Route::Read)));
    assert_pending!(read.poll());
    assert_eq!(db.stats().picks_for(Reason::Ejected), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_becomes_ready_has_failed() {
    let (db, _primary, replica) = pair();
    // A mock whose handle is gone answers `poll_ready` with an error.
    drop(replica);
    let error = db.service().oneshot(Ask(Route::Read)).await.unwrap_err();
    assert!(error.downcast_ref::<RouteError>().is_none(), "{error}");
    assert_eq!(node(&db, "replica-1").failed_total, 1);
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_node_the_call_is_refused_but_the_service_stays_ready() {
    let (replica, _handle) = mock::pair::<Ask, &'static str>();
    let db = Replicas::without_primary().replica("a", 1, replica).build().unwrap();
    let mut service = ReplicaService::new(db.clone());
    for _ in 0..2 {
        let error = service.ready().await.unwrap().call(Ask(Route::Write)).await.unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&RouteError::NoPrimary));
    }
    assert_eq!(db.stats().refused_total, 2);
}

#[tokio::test(start_paused = true)]
async fn results_are_judged_by_the_classifier() {
    let (db, _primary, mut replica) = pair();
    let mut service = db.service().classify(|result: &Result<&str, BoxError>| match result {
        Ok(answer) if answer.starts_with('5') => Outcome::Failure,
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Neutral,
    });
    let mut answer = async |answer: Result<&'static str, &'static str>| {
        let mut read = task::spawn(service.call(Ask(Route::Read)));
        assert_pending!(read.poll());
        let (_, reply) = replica.next_request().await.unwrap();
        match answer {
            Ok(response) => reply.send_response(response),
            Err(error) => reply.send_error(error),
        }
        assert_ready!(read.poll()).map_err(|error| error.to_string())
    };
    for _ in 0..10 {
        assert_eq!(answer(Err("pool is full")).await, Err("pool is full".to_owned()));
    }
    assert!(node(&db, "replica-1").healthy);
    for _ in 0..3 {
        assert_eq!(answer(Ok("503")).await, Ok("503"));
    }
    let stats = node(&db, "replica-1");
    assert!(!stats.healthy);
    assert_eq!((stats.succeeded_total, stats.failed_total), (10, 3));
}

/// One replica of one place, for which requests may wait.
fn narrow() -> (Replicas<Node>, Handle<Ask, &'static str>) {
    let (replica, handle) = mock::pair();
    let db = Replicas::with_members([Member::replica("replica-1", replica).max_in_flight(1)]);
    let db = db.config(steady().max_wait(Duration::from_secs(5)).max_waiters(1));
    (db.build().unwrap(), handle)
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_place_and_then_for_its_node() {
    let (db, mut replica) = narrow();
    let held = db.read(&Session::new()).unwrap();
    let mut service = db.service();
    let mut queued = task::spawn(service.ready().await.unwrap().call(Ask(Route::Read)));
    assert_pending!(queued.poll());
    assert_eq!((db.stats().waiting, in_flight(&db)), (1, 1));
    // One may wait; the service stays ready for what it refuses.
    let refused = service.ready().await.unwrap().call(Ask(Route::Read)).await.unwrap_err();
    assert_eq!(refused.downcast_ref(), Some(&RouteError::Saturated));
    held.succeeded();
    assert!(queued.is_woken());
    assert_pending!(queued.poll());
    assert_eq!((db.stats().waiting, in_flight(&db)), (0, 1));
    let (_, reply) = replica.next_request().await.unwrap();
    reply.send_response("after all");
    assert_eq!(assert_ready!(queued.poll()).unwrap(), "after all");
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_while_it_waits_leaves_nothing_behind() {
    let (db, _replica) = narrow();
    let held = db.read(&Session::new()).unwrap();
    // Before it was polled, while it queues, and when a place was freed that it has not seen.
    drop(db.service().call(Ask(Route::Read)));
    let mut queued = task::spawn(db.service().call(Ask(Route::Read)));
    assert_pending!(queued.poll());
    drop(queued);
    let mut queued = task::spawn(db.service().call(Ask(Route::Read)));
    assert_pending!(queued.poll());
    drop(held);
    assert!(queued.is_woken());
    drop(queued);
    assert_eq!((db.stats().waiting, in_flight(&db)), (0, 0));
    assert_eq!(db.read(&Session::new()).unwrap().name(), "replica-1");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_too_long_is_refused() {
    let (db, _replica) = narrow();
    let _held = db.read(&Session::new()).unwrap();
    let error = db.service().oneshot(Ask(Route::Read)).await.unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&RouteError::Saturated));
    assert_eq!((db.stats().waiting, db.stats().refused_total), (0, 1));
}
