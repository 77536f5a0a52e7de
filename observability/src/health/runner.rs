//! Runs the checks that are due, each timed and apart from the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::check::Check;
use super::redact::redact;
use super::state::{CheckStatus, Outcome, State};

/// All checks with what is known of them.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    entries: RwLock<Vec<Arc<Entry>>>,
    /// Wakes the background task when a check was added.
    pub(crate) changed: Arc<Notify>,
}

#[derive(Debug)]
struct Entry {
    check: Check,
    state: Mutex<State>,
    runs: AtomicU64,
}

/// One check at one moment.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) name: Arc<str>,
    pub(crate) critical: bool,
    pub(crate) status: CheckStatus,
    /// Why, redacted.
    pub(crate) why: String,
    /// Age of the last result.
    pub(crate) age: Option<Duration>,
    pub(crate) took: Option<Duration>,
    pub(crate) at: Option<SystemTime>,
    /// Whether it has ever had a result.
    pub(crate) known: bool,
}

impl Checks {
    /// A check of a name that is taken replaces the other.
    pub(crate) fn add(&self, check: Check, now: Instant) {
        let mut check = check;
        check.timeout = check.timeout.min(check.interval);
        let entry =
            Arc::new(Entry { state: Mutex::new(State::new(now)), runs: AtomicU64::new(0), check });
        let mut entries = self.entries.write();
        match entries.iter_mut().find(|e| e.check.name == entry.check.name) {
            Some(old) => *old = entry,
            None => entries.push(entry),
        }
        drop(entries);
        self.changed.notify_one();
    }

    pub(crate) fn views(&self, now: Instant) -> Vec<View> {
        self.entries.read().iter().map(|entry| entry.view(now)).collect()
    }

    /// Starts what is due; says when the next one will be.
    pub(crate) fn start_due(&self, now: Instant, runs: &mut JoinSet<()>) -> Option<Instant> {
        let mut next = None;
        for entry in self.entries.read().iter() {
            let mut state = entry.state.lock();
            match state.due() {
                Some(due) if due <= now => {
                    state.begin();
                    runs.spawn(Arc::clone(entry).run());
                }
                Some(due) => next = Some(next.map_or(due, |n: Instant| n.min(due))),
                None => {}
            }
        }
        next
    }
}

impl Entry {
    async fn run(self: Arc<Self>) {
        let _ended = Ended(&self.state);
        let started = Instant::now();
        let check = &self.check;
        // A task of its own: a panic ends there, and dropping the set aborts the run with us.
        let mut task = JoinSet::new();
        let run = Arc::clone(&check.run);
        task.spawn(async move { run().await });
        let result = match timeout(check.timeout, task.join_next()).await {
            Ok(Some(Ok(result))) => result,
            Ok(_) => Err("the check panicked".to_owned()),
            Err(_) => Err(format!("timed out after {:?}", check.timeout)),
        };
        let now = Instant::now();
        let outcome = Outcome { at: now, wall: SystemTime::now(), took: now - started, result };
        let before = self.state.lock().status(now, check.interval, check.failures).0;
        self.state.lock().record(outcome, check.interval, self.jitter());
        self.log_change(before, now);
        // After a timeout the run may still hold a thread; until it is gone no other starts.
        task.shutdown().await;
    }

    /// From 0.9 to 1.1, differently for each run and each process.
    fn jitter(&self) -> f64 {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let hash = std::hash::BuildHasher::hash_one(&ahash::RandomState::new(), run);
        0.9 + (hash % 1_000) as f64 / 5_000.0
    }

    fn log_change(&self, before: CheckStatus, now: Instant) {
        let View { name, status, why, .. } = self.view(now);
        match status {
            _ if status == before => {}
            CheckStatus::Fail => tracing::error!(check = %name, why, "health check failed"),
            CheckStatus::Warn => tracing::warn!(check = %name, why, "health check in doubt"),
            CheckStatus::Pass => tracing::info!(check = %name, "health check passes"),
            CheckStatus::Unknown => {}
        }
    }

    fn view(&self, now: Instant) -> View {
        let state = self.state.lock();
        let (status, why) = state.status(now, self.check.interval, self.check.failures);
        let last = state.last.as_ref();
        View {
            name: Arc::clone(&self.check.name),
            critical: self.check.critical,
            status,
            why: redact(&why),
            age: last.map(|o| now.saturating_duration_since(o.at)),
            took: last.map(|o| o.took),
            at: last.map(|o| o.wall),
            known: last.is_some(),
        }
    }
}

/// Marks the run as over, also when the background task is dropped in the middle of it.
struct Ended<'a>(&'a Mutex<State>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.lock().end();
    }
}
