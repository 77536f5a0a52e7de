//! started = succeeded + failed + cancelled + in flight, wherever a request is dropped, aborted or
//! panics.

use std::future::{pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use escala_replicas::{BoxError, Outcome, Replicas, Route, Session, Strategy};
use tokio::sync::oneshot;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Service, ServiceExt, service_fn};

use crate::service::{Ask, pair};
use crate::{Name, documented, eventually, in_flight};

/// (succeeded, failed, cancelled) over all nodes, once the books are seen to balance at rest.
fn ended<N>(db: &Replicas<N>) -> (u64, u64, u64) {
    assert_eq!(in_flight(db), 0);
    let nodes = db.stats().nodes;
    (
        nodes.iter().map(|node| node.succeeded_total).sum(),
        nodes.iter().map(|node| node.failed_total).sum(),
        nodes.iter().map(|node| node.cancelled_total).sum(),
    )
}

#[tokio::test(start_paused = true)]
async fn a_pick_ends_once_in_each_way() {
    let db = documented(Strategy::LeastLoaded);
    let read = || db.read(&Session::new()).unwrap();
    let held = read();
    assert_eq!(in_flight(&db), 1);
    held.succeeded();
    assert_eq!(ended(&db), (1, 0, 0));
    read().failed();
    assert_eq!(ended(&db), (1, 1, 0));
    drop(read());
    assert_eq!(ended(&db), (1, 1, 1));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _pick = read();
        panic!("while holding a pick");
    }));
    assert!(panicked.is_err());
    assert_eq!(ended(&db), (1, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_service_future_is_dropped_at_every_step() {
    let (db, _primary, mut replica) = pair();
    // Before it was polled.
    drop(db.service().call(Ask(Route::Read)));
    assert_eq!(ended(&db), (0, 0, 1));

    // While its node is not ready.
    replica.allow(0);
    let mut waiting = task::spawn(db.service().call(Ask(Route::Read)));
    assert_pending!(waiting.poll());
    assert_eq!(in_flight(&db), 1);
    drop(waiting);
    assert_eq!(ended(&db), (0, 0, 2));

    // While its node works.
    replica.allow(2);
    let mut called = task::spawn(db.service().call(Ask(Route::Read)));
    assert_pending!(called.poll());
    let (_, _reply) = replica.next_request().await.unwrap();
    assert_eq!(in_flight(&db), 1);
    drop(called);
    assert_eq!(ended(&db), (0, 0, 3));

    // When it is answered, but nobody looked.
    let mut answered = task::spawn(db.service().call(Ask(Route::Read)));
    assert_pending!(answered.poll());
    let (_, reply) = replica.next_request().await.unwrap();
    reply.send_response("unseen");
    drop(answered);
    assert_eq!(ended(&db), (0, 0, 4));

    // After its end.
    replica.allow(1);
    let mut done = task::spawn(db.service().call(Ask(Route::Read)));
    assert_pending!(done.poll());
    let (_, reply) = replica.next_request().await.unwrap();
    reply.send_response("seen");
    assert_eq!(assert_ready!(done.poll()).unwrap(), "seen");
    assert_eq!(ended(&db), (1, 0, 4));
    drop(done);
    assert_eq!(ended(&db), (1, 0, 4));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_panics_leaves_nothing_behind() {
    let in_call = service_fn(|ask: Ask| {
        assert_eq!(ask, Ask(Route::Write), "told to panic in call");
        ready(Ok::<_, BoxError>(()))
    });
    let db = Replicas::builder(in_call).replica("replica-1", 1, in_call).build().unwrap();
    let task = tokio::spawn(db.service().oneshot(Ask(Route::Read)));
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(ended(&db), (0, 0, 1));

    let in_future = service_fn(async |_: Ask| -> Result<(), BoxError> { panic!("in the future") });
    let db = Replicas::builder(in_future).build().unwrap();
    let task = tokio::spawn(db.service().oneshot(Ask(Route::Read)));
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(ended(&db), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_classifier_that_panics_leaves_nothing_behind() {
    let node = service_fn(|_: Ask| ready(Ok::<_, BoxError>(())));
    let db = Replicas::builder(node).build().unwrap();
    let service =
        db.service().classify(|_: &Result<(), BoxError>| -> Outcome { panic!("undecided") });
    let task = tokio::spawn(service.oneshot(Ask(Route::Read)));
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(ended(&db), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_read_is_dropped_at_every_step() {
    let db = documented(Strategy::LeastLoaded);
    let session = Session::new();
    let is_down = |_: &()| true;

    // Before it was polled: it has not started.
    drop(db.read_with(&session, is_down, |_: Name| pending::<Result<(), ()>>()));
    assert_eq!(ended(&db), (0, 0, 0));

    // In the first attempt.
    let mut first =
        task::spawn(db.read_with(&session, is_down, |_: Name| pending::<Result<(), ()>>()));
    assert_pending!(first.poll());
    assert_eq!(in_flight(&db), 1);
    drop(first);
    assert_eq!(ended(&db), (0, 0, 1));

    // In the second attempt.
    let mut attempts = 0;
    let mut second = task::spawn(db.read_with(&session, is_down, |_: Name| {
        attempts += 1;
        let fails = attempts == 1;
        async move { if fails { Err(()) } else { pending::<Result<(), ()>>().await } }
    }));
    assert_pending!(second.poll());
    assert_eq!(in_flight(&db), 1);
    drop(second);
    assert_eq!(ended(&db), (0, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_panics_or_is_aborted_leaves_nothing_behind() {
    let db = documented(Strategy::LeastLoaded);
    let read = |operation: fn(Name) -> std::future::Ready<Result<(), ()>>| {
        let db = db.clone();
        tokio::spawn(async move { db.read_with(&Session::new(), |()| true, operation).await })
    };
    assert!(read(|_| panic!("in the operation")).await.unwrap_err().is_panic());
    assert_eq!(ended(&db), (0, 0, 1));

    let (started, has_started) = oneshot::channel();
    let mut started = Some(started);
    let hanging = tokio::spawn({
        let db = db.clone();
        async move {
            let operation = |_: Name| {
                let _ = started.take().map(|started| started.send(()));
                pending::<Result<(), ()>>()
            };
            db.read_with(&Session::new(), |()| true, operation).await
        }
    });
    has_started.await.unwrap();
    assert_eq!(in_flight(&db), 1);
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
    assert_eq!(ended(&db), (0, 0, 2));
}

/// What became of the attempts, counted by those who made them.
#[derive(Default)]
struct Counted {
    succeeded: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// One attempt; dropped without an end, it was cancelled.
struct Attempt(Option<Arc<Counted>>);

impl Attempt {
    fn end(mut self, fails: bool) -> Result<(), ()> {
        let counted = self.0.take().unwrap();
        if fails {
            counted.failed.fetch_add(1, Relaxed);
            return Err(());
        }
        counted.succeeded.fetch_add(1, Relaxed);
        Ok(())
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(counted) = &self.0 {
            counted.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Threads that succeed, fail, drop and abort at once, with ejections and trials among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_balance_after_a_storm() {
    let config = crate::steady()
        .ejection_base(std::time::Duration::from_millis(1))
        .probe_timeout(std::time::Duration::from_millis(1));
    let db = Replicas::builder("primary")
        .replica("a", 3, "a")
        .replica("b", 3, "b")
        .replica("c", 2, "c")
        .config(config)
        .build()
        .unwrap();
    let counted = Arc::<Counted>::default();
    let tasks: Vec<_> = (0..200)
        .map(|seed| {
            let (db, counted) = (db.clone(), Arc::clone(&counted));
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..50 {
                    let fails = random.u8(..) < 100;
                    let operation = |_: Name| {
                        let attempt = Attempt(Some(Arc::clone(&counted)));
                        async move {
                            tokio::task::yield_now().await;
                            attempt.end(fails)
                        }
                    };
                    let session = Session::new();
                    let mut read = Box::pin(db.read_with(&session, |()| true, operation));
                    if random.u8(..) < 50 {
                        tokio::select! {
                            biased;
                            _ = &mut read => {}
                            () = tokio::task::yield_now() => {}
                        }
                    } else {
                        let _ = read.await;
                    }
                }
            })
        })
        .collect();
    for (position, task) in tasks.iter().enumerate() {
        if position % 7 == 0 {
            task.abort();
        }
    }
    for task in tasks {
        let _ = task.await;
    }
    // Aborted tasks are dropped by the time their handle says so.
    eventually("nothing is in flight", || in_flight(&db) == 0).await;
    let Counted { succeeded, failed, dropped } = &*counted;
    let [succeeded, failed, cancelled] =
        [succeeded, failed, dropped].map(|count| count.load(Relaxed));
    assert_eq!(ended(&db), (succeeded, failed, cancelled));
    assert!(succeeded > 0 && failed > 0 && cancelled > 0);
    assert!(db.stats().nodes.iter().any(|node| node.ejections_total > 0));
}
