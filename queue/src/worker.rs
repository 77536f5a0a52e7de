//! The workers: tasks that take jobs, call the service and are stopped together.

use std::error::Error;
use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet, consume_budget};
use tokio::time::{sleep, timeout};
use tower_service::Service;

use crate::attempt::{Attempt, Broken, CatchUnwind, guarded};
use crate::error::BoxError;
use crate::job::{Job, Outcome};
use crate::lane::Lane;
use crate::retry::Ending;
use crate::seat::{Lease, Seat};
use crate::shared::Shared;

/// How long a worker leaves alone a service that failed to become ready. Long enough not to fill a
/// log, short beside any timeout.
const SERVICE_PAUSE: Duration = Duration::from_secs(1);

/// How long a stop waits for aborted tasks. They end at their next await; one that does not get
/// there within this time is blocking its thread.
const ABORT_PATIENCE: Duration = Duration::from_secs(1);

/// Causes of an error that are told; a chain that bites its own tail must end somewhere.
const MOST_CAUSES: usize = 16;

/// The workers of one [`run`](crate::Queue::run).
///
/// Dropping this does **not** stop them: it only gives up the report. They end when the shutdown
/// future resolves, when the queue is closed and empty, or with the runtime.
#[derive(Debug)]
pub struct Workers {
    supervisor: JoinHandle<RunReport>,
}

/// How the workers ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunReport {
    /// Jobs aborted because the grace was over; they are in the queue again, the attempt uncounted.
    pub aborted: usize,
    /// Workers that did not end even when aborted, because a handler blocks its thread. Their
    /// jobs still count as running.
    pub stuck: usize,
    /// Jobs the queue held when the workers had ended, the aborted ones included.
    pub remaining: usize,
}

impl Workers {
    pub(crate) fn start<S, F>(shared: &Arc<Shared>, service: &S, shutdown: F) -> Self
    where
        S: Service<Job, Response = Outcome> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        let aborted = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for lane in Lane::ALL {
            for _ in 0..shared.config.lane(lane).workers {
                let seat = Seat::take(shared, lane, &aborted);
                let (template, service) = (service.clone(), service.clone());
                let timeouts = Arc::clone(shared);
                let stopped = stopped.clone();
                tasks.spawn(work(seat, timeouts, template, service, stopped));
            }
        }
        let supervisor = supervise(Arc::clone(shared), tasks, stop, aborted, shutdown);
        Self { supervisor: tokio::spawn(supervisor) }
    }

    /// Waits until the workers have ended and says what they left behind. Dropping the future
    /// gives up the report only.
    ///
    /// # Panics
    /// If the runtime of the workers was shut down before they had ended.
    pub async fn join(self) -> RunReport {
        self.supervisor.await.expect("the supervisor catches every panic of the user's code")
    }
}

/// Keeps the time until the stop, then stops the workers.
async fn supervise<F: Future<Output = ()>>(
    shared: Arc<Shared>,
    mut tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    aborted: Arc<AtomicUsize>,
    shutdown: F,
) -> RunReport {
    tokio::select! {
        // A shutdown signal that panics has at least fired.
        _ = CatchUnwind::new(shutdown) => {}
        () = shared.until_drained() => {}
        () = shared.keep_time() => {}
    }
    stop.send_replace(true);
    ended_within(shared.config.grace, &mut tasks).await;
    if !tasks.is_empty() {
        tasks.abort_all();
        ended_within(ABORT_PATIENCE, &mut tasks).await;
    }
    let stuck = tasks.len();
    let remaining = shared.read(|core| core.store.held());
    RunReport { aborted: aborted.load(Ordering::Relaxed), stuck, remaining }
}

/// Returns when all tasks have ended, or after this long.
async fn ended_within(patience: Duration, tasks: &mut JoinSet<()>) {
    let all_ended = async { while tasks.join_next().await.is_some() {} };
    // What has not ended by then is still in the set, which the caller looks at.
    let _ = timeout(patience, all_ended).await;
}

/// One worker: be called, make the service ready, take a job, call that very service, settle.
async fn work<S>(
    seat: Seat,
    shared: Arc<Shared>,
    template: S,
    mut service: S,
    mut stopped: watch::Receiver<bool>,
) where
    S: Service<Job, Response = Outcome> + Clone,
    S::Error: Into<BoxError>,
{
    loop {
        if *stopped.borrow() {
            return;
        }
        let ready = tokio::select! {
            biased;
            ready = ready_when_called(&seat, &mut service) => ready,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        if let Err(error) = ready {
            seat.service_failed(&error);
            renew(&mut service, &template);
            tokio::select! {
                () = sleep(SERVICE_PAUSE) => continue,
                _ = stopped.wait_for(|stop| *stop) => return,
            }
        }
        let Some(lease) = seat.claim() else {
            // What `poll_ready` reserved goes back: nobody knows when the next job comes.
            renew(&mut service, &template);
            continue;
        };
        let limit = shared.config.lane(lease.job().lane).timeout;
        let ending = attempt(&mut service, &lease, limit).await;
        if matches!(ending, Ending::Panicked(_)) {
            renew(&mut service, &template);
        }
        lease.settle(ending);
        // A loop of jobs that never wait must let other tasks run too.
        consume_budget().await;
    }
}

/// Waits for a call, then makes the service ready.
async fn ready_when_called<S>(seat: &Seat, service: &mut S) -> Result<(), String>
where
    S: Service<Job>,
    S::Error: Into<BoxError>,
{
    seat.called().await;
    let mut told = false;
    poll_fn(|cx| {
        match guarded(|| service.poll_ready(cx).map_err(|error| describe(&*error.into()))) {
            Ok(Poll::Ready(result)) => Poll::Ready(result),
            Err(panic) => Poll::Ready(Err(panic)),
            Ok(Poll::Pending) => {
                if !told {
                    told = true;
                    seat.unready();
                }
                Poll::Pending
            }
        }
    })
    .await
}

/// Replaces a service whose readiness is not wanted or not to be trusted. `Clone` and `Drop` are
/// the user's and may panic; the next `poll_ready` then shows what the service is worth.
fn renew<S: Clone>(service: &mut S, template: &S) {
    let _ = guarded(|| *service = template.clone());
}

async fn attempt<S>(service: &mut S, lease: &Lease<'_>, limit: Duration) -> Ending
where
    S: Service<Job, Response = Outcome>,
    S::Error: Into<BoxError>,
{
    let job = lease.job().clone();
    let result = match guarded(|| service.call(job)) {
        Ok(future) => Attempt::new(future, limit).await,
        Err(message) => Err(Broken::Panicked(message)),
    };
    match result {
        Ok(Ok(outcome)) => Ending::Returned(outcome),
        Ok(Err(error)) => {
            guarded(|| describe(&*error.into())).map_or_else(Ending::Panicked, Ending::Failed)
        }
        Err(Broken::Panicked(message)) => Ending::Panicked(message),
        Err(Broken::TimedOut) => Ending::TimedOut(limit),
    }
}

/// An error and its causes in one line.
fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let causes = iter::successors(error.source(), |&cause| cause.source());
    for cause in causes.take(MOST_CAUSES) {
        let _ = write!(text, ": {cause}");
    }
    text
}
