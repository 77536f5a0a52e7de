//! The two phases: one operation each at the same moment, then a sustained run.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::client::Client;
use super::measure::{Concurrency, Outcome, Sample};
use super::plan::{ENDPOINTS, Operation};
use super::user::User;
use crate::enterprise::store::USERS;

/// An operation that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections opened at once: as many as a listener's backlog holds for sure.
const OPENING: usize = 64;
/// Distinct failures that are kept; the rest is counted as one.
const KEPT_FAILURES: usize = 20;

/// Opens a connection for each user.
pub(super) async fn connect(
    server: SocketAddr,
    users: usize,
    seed: u64,
) -> anyhow::Result<Vec<User>> {
    let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
    let run = u64::try_from(run).context("clock")?;
    // Spread over all users of the database.
    let step = (USERS / i64::try_from(users)?).max(1);
    let mut crowd = Vec::with_capacity(users);
    let mut opening = JoinSet::new();
    for index in 0..users {
        if opening.len() >= OPENING {
            crowd.push(opened(opening.join_next().await)?);
        }
        let id = i64::try_from(index)? * step % USERS + 1;
        opening.spawn(async move {
            anyhow::Ok(User::new(id, Client::connect(server).await?, seed, run))
        });
    }
    while !opening.is_empty() {
        crowd.push(opened(opening.join_next().await)?);
    }
    crowd.sort_by_key(User::id);
    Ok(crowd)
}

fn opened(
    joined: Option<Result<anyhow::Result<User>, tokio::task::JoinError>>,
) -> anyhow::Result<User> {
    joined.context("a connection is opening")?.context("connecting")?
}

/// Every user does one operation, all released at the same moment.
pub(super) async fn burst(
    crowd: &mut Vec<User>,
    mut choose: impl FnMut(usize, &mut User) -> Operation,
) -> anyhow::Result<Outcome> {
    phase(crowd, |index, user| Work::Once(choose(index, user))).await
}

/// Every user works on for the duration, pausing for `think` between two operations; each finished
/// operation is counted in `progress`.
pub(super) async fn sustained(
    crowd: &mut Vec<User>,
    duration: Duration,
    think: Duration,
    progress: &Arc<AtomicU64>,
) -> anyhow::Result<Outcome> {
    phase(crowd, |_, _| Work::On { duration, think, progress: Arc::clone(progress) }).await
}

/// What a user does in a phase.
enum Work {
    Once(Operation),
    On { duration: Duration, think: Duration, progress: Arc<AtomicU64> },
}

impl Work {
    async fn run(self, worker: &mut Worker) {
        match self {
            Self::Once(operation) => worker.perform(&operation).await,
            Self::On { duration, think, progress } => {
                while !worker.out && worker.began.elapsed() < duration {
                    let id = worker.user.id();
                    let operation = Operation::choose(&mut worker.user.chance, id);
                    worker.perform(&operation).await;
                    progress.fetch_add(1, Ordering::Relaxed);
                    if !think.is_zero() {
                        tokio::time::sleep(think).await;
                    }
                }
            }
        }
    }
}

/// A user at work, with what it measured.
struct Worker {
    user: User,
    began: Instant,
    samples: Vec<Sample>,
    failures: BTreeMap<String, u64>,
    concurrency: Arc<Concurrency>,
    /// The server takes no new connection: this user is out.
    out: bool,
}

impl Worker {
    async fn perform(&mut self, operation: &Operation) {
        let started = Instant::now();
        let entered = self.concurrency.enter();
        let result = tokio::time::timeout(PATIENCE, self.user.perform(operation)).await;
        drop(entered);
        let ended = Instant::now();
        let failure = match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some(format!("no answer within {PATIENCE:?}")),
        };
        let endpoint = operation.endpoint();
        let (ended, took) = (ended - self.began, ended - started);
        let cached = self.user.was_cached();
        self.samples
            .push(Sample { cached, ..Sample::new(endpoint, failure.is_none(), ended, took) });
        if let Some(failure) = failure {
            let failure = format!("{}: {failure}", ENDPOINTS[usize::from(endpoint)]);
            count(&mut self.failures, failure, 1);
            self.out = self.user.reconnect().await.is_err();
        }
    }
}

fn count(failures: &mut BTreeMap<String, u64>, failure: String, times: u64) {
    let full = failures.len() >= KEPT_FAILURES && !failures.contains_key(&failure);
    let key = if full { "other failures".to_owned() } else { failure };
    *failures.entry(key).or_default() += times;
}

async fn phase(
    crowd: &mut Vec<User>,
    mut work: impl FnMut(usize, &mut User) -> Work,
) -> anyhow::Result<Outcome> {
    let users = crowd.len();
    let concurrency = Arc::new(Concurrency::default());
    let (release, released) = watch::channel(None::<Instant>);
    let mut working = JoinSet::new();
    for (index, mut user) in crowd.drain(..).enumerate() {
        let work = work(index, &mut user);
        let (concurrency, mut released) = (Arc::clone(&concurrency), released.clone());
        working.spawn(async move {
            let began = released.wait_for(Option::is_some).await.ok().and_then(|at| *at);
            let began = began.unwrap_or_else(Instant::now);
            let (samples, failures) = (Vec::new(), BTreeMap::new());
            let mut worker = Worker { user, began, samples, failures, concurrency, out: false };
            work.run(&mut worker).await;
            worker
        });
    }
    drop(released);
    let began = Instant::now();
    release.send_replace(Some(began));
    let mut outcome = Outcome {
        users,
        samples: Vec::new(),
        peak_concurrent: 0,
        total: Duration::ZERO,
        failures: BTreeMap::new(),
    };
    while let Some(worker) = working.join_next().await {
        let worker = worker.context("a user panicked")?;
        outcome.samples.extend(worker.samples);
        for (failure, times) in worker.failures {
            count(&mut outcome.failures, failure, times);
        }
        crowd.push(worker.user);
    }
    outcome.total = began.elapsed();
    outcome.peak_concurrent = concurrency.peak();
    crowd.sort_by_key(User::id);
    Ok(outcome)
}
