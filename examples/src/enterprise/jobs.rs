//! What the priority lanes work on: a worker is a `tower::Service<Job>`.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use escala_cache::LoadError;
use escala_cluster::Drain;
use escala_queue::{EnqueueError, Job, Lane, Outcome};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tower::Service;

use super::app::App;
use super::store::StoreError;

const SETTLE: &str = "settle";
const BOOK: &str = "book";
const REBUILD: &str = "rebuild-report";

#[derive(Debug, Serialize, Deserialize)]
struct Subject {
    id: i64,
}

/// Settles an order; high lane. The key keeps a sweep from doubling a waiting job.
pub(super) fn settle(order: i64) -> Job {
    job(SETTLE, order).lane(Lane::High).idempotency_key(format!("{SETTLE}:{order}"))
}

/// Writes a transfer's ledger entries; medium lane.
pub(super) fn book(transfer: i64) -> Job {
    job(BOOK, transfer).lane(Lane::Medium).idempotency_key(format!("{BOOK}:{transfer}"))
}

/// Computes a user's affiliate report anew; background lane.
pub(super) fn rebuild(user: i64) -> Job {
    job(REBUILD, user).lane(Lane::Background)
}

fn job(kind: &'static str, id: i64) -> Job {
    Job::new(kind, &Subject { id }).expect("a number is JSON")
}

/// Enqueues what unfinished orders and transfers still need.
///
/// A memory queue forgets its jobs with the process, the database does not: run at the start and
/// now and then, this makes every acknowledged order settle in the end.
///
/// # Errors
/// The database refuses; a lane that is full only ends the sweep early, the next one goes on.
pub(super) async fn sweep(app: &App) -> Result<usize, StoreError> {
    let (orders, transfers) = app.jobs_db()?.unfinished().await?;
    let jobs = orders.into_iter().map(settle).chain(transfers.into_iter().map(book));
    let mut swept = 0;
    for job in jobs {
        if let Err(error) = app.queue.enqueue(job).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "sweep ends early");
            break;
        }
        swept += 1;
    }
    Ok(swept)
}

/// Enqueues, and leaves to the next [`sweep`] what a full lane refuses: the transaction that wants
/// the job is committed, so its request must not fail.
pub(super) async fn enqueue(app: &App, job: Job) {
    let refused: Result<_, EnqueueError> = app.queue.enqueue(job).await;
    if let Err(error) = refused {
        tracing::warn!(error = &error as &dyn std::error::Error, "left to the sweep");
    }
}

/// The worker of every lane.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) app: App,
    /// Waits for the jobs at work.
    pub(super) drain: Drain,
}

impl Service<Job> for Worker {
    type Response = Outcome;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Outcome, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, job: Job) -> Self::Future {
        let app = self.app.clone();
        let registered = self.drain.job(format!("{} in lane {:?}", job.kind, job.lane));
        Box::pin(async move {
            let done = registered.run(work(&app, &job)).await;
            // Cut with the process: the database still has it unfinished, and the next start sweeps it.
            Ok(done.unwrap_or(Outcome::Retry(None)))
        })
    }
}

async fn work(app: &App, job: &Job) -> Outcome {
    let Some(id) = subject(job) else {
        return Outcome::Dead("the payload is not an id".to_owned());
    };
    match &*job.kind {
        SETTLE | BOOK => outcome(write(app, &job.kind, id).await.as_ref().err()),
        REBUILD => rebuild_report(app, id).await,
        other => Outcome::Dead(format!("nobody works on {other}")),
    }
}

async fn write(app: &App, kind: &str, id: i64) -> Result<(), StoreError> {
    let db = app.jobs_db()?;
    if kind == SETTLE { db.settle(id).await } else { db.book(id).await }
}

/// Done without an error; what is not there will not come, anything else is tried again.
fn outcome(error: Option<&StoreError>) -> Outcome {
    match error {
        None => Outcome::Done,
        Some(StoreError::Absent { what, value }) => {
            Outcome::Discard(format!("there is no {what} {value}"))
        }
        Some(error) => {
            tracing::warn!(error = error as &dyn std::error::Error, "job failed");
            Outcome::Retry(None)
        }
    }
}

fn subject(job: &Job) -> Option<i64> {
    fn parse<T: DeserializeOwned>(job: &Job) -> Option<T> {
        job.parse().ok()
    }
    parse::<Subject>(job).map(|subject| subject.id)
}

async fn rebuild_report(app: &App, user: i64) -> Outcome {
    // Through the loader, not by an insert: an order that arrives meanwhile removes the entry and
    // must win over what was computed before it.
    app.caches.reports.remove(&user).await;
    match app.report(user).await {
        Ok(Some(_)) => Outcome::Done,
        Ok(None) => Outcome::Discard(format!("there is no user {user}")),
        Err(LoadError::Source(error)) => outcome(Some(&error)),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "job failed");
            Outcome::Retry(None)
        }
    }
}
