//! What tower asks of whoever calls a service, and what is asked of public types.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::{future, io};

use escala_queue::{
    EnqueueError, Job, JobId, Lane, Outcome, Queue, QueueBuilder, QueueStats, Workers,
};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{Service, ServiceBuilder};

use crate::scene::{adds_up, handler, job, lane, seconds, small};

#[test]
fn public_types_cross_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Queue>();
    check::<QueueBuilder>();
    check::<QueueStats>();
    check::<Workers>();
    check::<EnqueueError>();
    check::<Job>();
}

#[tokio::test(start_paused = true)]
async fn no_job_is_taken_before_the_service_is_ready_and_the_ready_clone_is_called() {
    let queue = small().build().unwrap();
    let (service, mut handle) = tower_test::mock::pair::<Job, Outcome>();
    handle.allow(0);
    let workers = queue.run(service, pending());
    queue.enqueue(job("first")).await.unwrap();
    sleep(seconds(30)).await;
    let stats = queue.stats();
    let medium = lane(&stats, Lane::Medium);
    assert_eq!((medium.depth, medium.running, medium.started_total), (1, 0, 0));

    // The mock panics when a clone is called that was not made ready itself.
    for kind in ["first", "second", "third"] {
        if kind != "first" {
            queue.enqueue(job(kind)).await.unwrap();
        }
        handle.allow(1);
        let (request, answer) = handle.next_request().await.unwrap();
        assert_eq!(request.kind, kind);
        answer.send_response(Outcome::Done);
    }
    queue.wait_idle().await;
    let stats = queue.stats();
    assert_eq!(lane(&stats, Lane::Medium).succeeded_total, 3);
    assert_eq!(lane(&stats, Lane::Medium).failed_total, 0);
    queue.close();
    assert_eq!(workers.join().await.remaining, 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_does_not_sit_on_a_permit() {
    let queue = small().build().unwrap();
    let permits = Arc::new(Semaphore::new(1));
    let service = ServiceBuilder::new()
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits)))
        .service(handler(|_| async {
            sleep(seconds(1)).await;
            Outcome::Done
        }));
    drop(queue.run(service, pending()));
    // The high worker never serves other lanes here, so one permit in its idle hands would stop
    // the queue for good.
    for round in 0..5 {
        for lane in Lane::ALL {
            queue.enqueue(job(format!("{round}")).lane(lane)).await.unwrap();
        }
    }
    queue.wait_idle().await;
    sleep(seconds(1)).await;
    assert_eq!(permits.available_permits(), 1);
    adds_up(&queue.stats());
    assert_eq!(lane(&queue.stats(), Lane::Low).succeeded_total, 5);
}

/// Fails in `poll_ready`, by error and by panic, before it works.
#[derive(Clone)]
struct Moody(Arc<AtomicUsize>);

impl Service<Job> for Moody {
    type Response = Outcome;
    type Error = io::Error;
    type Future = future::Ready<Result<Outcome, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0..4 => Poll::Ready(Err(io::Error::other("not today"))),
            4..8 => panic!("not today either"),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, _: Job) -> Self::Future {
        future::ready(Ok(Outcome::Done))
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_to_become_ready_costs_no_attempt_and_no_worker() {
    let queue = small().build().unwrap();
    drop(queue.run(Moody(Arc::default()), pending()));
    let id = queue.enqueue(job("patient")).await.unwrap().id;
    queue.wait_idle().await;
    let stats = queue.stats();
    let medium = lane(&stats, Lane::Medium);
    assert_eq!((medium.started_total, medium.succeeded_total), (1, 1));
    assert!(stats.service_errors_total >= 4, "{stats:?}");
    assert_eq!(medium.workers_alive, 1);
    assert_ne!(id, JobId::clone(&queue.enqueue(job("other")).await.unwrap().id));
}

/// Whichever clone is asked first is never ready.
#[derive(Clone)]
struct OneLame {
    asked: Arc<AtomicUsize>,
    lame: bool,
}

impl Service<Job> for OneLame {
    type Response = Outcome;
    type Error = io::Error;
    type Future = future::Ready<Result<Outcome, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        self.lame |= self.asked.fetch_add(1, Ordering::Relaxed) == 0;
        if self.lame { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn call(&mut self, _: Job) -> Self::Future {
        future::ready(Ok(Outcome::Done))
    }
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_is_not_ready_does_not_keep_its_job_from_the_others() {
    let queue = small().build().unwrap();
    let service = OneLame { asked: Arc::default(), lame: false };
    drop(queue.run(service, pending()));
    queue.enqueue(job("impatient")).await.unwrap();
    sleep(seconds(1)).await;
    let stats = queue.stats();
    let medium = lane(&stats, Lane::Medium);
    assert_eq!((medium.succeeded_total, medium.borrowed_total), (1, 1));
}

/// Panics in `call`, not in its future.
#[derive(Clone)]
struct Rude;

impl Service<Job> for Rude {
    type Response = Outcome;
    type Error = io::Error;
    type Future = future::Ready<Result<Outcome, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Job) -> Self::Future {
        panic!("slammed the door")
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_call_itself_is_a_failed_attempt() {
    let queue = small().build().unwrap();
    drop(queue.run(Rude, pending()));
    queue.enqueue(job("guest").max_attempts(2)).await.unwrap();
    queue.wait_idle().await;
    let letter = &queue.dead_letters()[0];
    assert_eq!(letter.job.attempt, 2);
    assert_eq!(letter.reason, "the handler panicked: slammed the door");
    adds_up(&queue.stats());
}
