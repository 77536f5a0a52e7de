//! A worker's place in the schedule and the job it holds: both given back by being dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::engine::Entry;
use crate::job::Job;
use crate::lane::Lane;
use crate::retry::{Ending, judge};
use crate::schedule::WorkerId;
use crate::shared::Shared;
use crate::trace;

/// A worker as the scheduler knows it. Dropping it takes the worker out of the schedule.
pub(crate) struct Seat {
    shared: Arc<Shared>,
    id: WorkerId,
    home: Lane,
    bell: Arc<Notify>,
    /// Jobs given back by all workers of one run.
    aborted: Arc<AtomicUsize>,
}

impl Seat {
    pub(crate) fn take(shared: &Arc<Shared>, home: Lane, aborted: &Arc<AtomicUsize>) -> Self {
        let (id, bell) = shared.change(|core| core.join(home));
        Self { shared: Arc::clone(shared), id, home, bell, aborted: Arc::clone(aborted) }
    }

    /// Resolves when there may be a job for this worker.
    pub(crate) async fn called(&self) {
        while !self.shared.read(|core| core.scheduler.is_called(self.id)) {
            self.bell.notified().await;
        }
    }

    /// Says that the service is not ready, so that the job calls other workers too.
    pub(crate) fn unready(&self) {
        self.shared.change(|core| core.scheduler.unready(self.id));
    }

    /// Says that the service has failed to become ready.
    pub(crate) fn service_failed(&self, error: &str) {
        self.shared.change(|core| {
            core.service_errors += 1;
            core.scheduler.unready(self.id);
        });
        trace::service_failed(self.home, error);
    }

    /// Takes the job that is most this worker's by now. `None` if there is none: others were
    /// quicker.
    pub(crate) fn claim(&self) -> Option<Lease<'_>> {
        let started = Instant::now();
        let entry = self.shared.change(|core| {
            let lane = core.scheduler.select(self.id, &core.store.ready())?;
            core.store.claim(lane, lane != self.home, started)
        })?;
        Some(Lease { seat: self, entry: Some(entry), started })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.change(|core| core.scheduler.leave(self.id));
    }
}

/// A job in the hands of a worker. Dropped without being settled, as when its task is aborted, it
/// goes back to its place and the attempt does not count.
pub(crate) struct Lease<'a> {
    seat: &'a Seat,
    entry: Option<Entry>,
    started: Instant,
}

impl Lease<'_> {
    /// The job, for the handler; the lease keeps its own.
    pub(crate) fn job(&self) -> &Job {
        &self.entry.as_ref().expect("only settling and dropping take the entry").job
    }

    /// Ends the attempt.
    pub(crate) fn settle(mut self, ending: Ending) {
        let shared = &self.seat.shared;
        let verdict = judge(self.job(), ending, &shared.config.retry, fastrand::f64());
        trace::settled(self.job(), &verdict);
        let Some(entry) = self.entry.take() else { return };
        let now = Instant::now();
        let ran = now.saturating_duration_since(self.started);
        let lane = entry.job.lane;
        shared.change(|core| {
            if core.store.settle(entry, verdict, ran, now) {
                // Under the lock, so that who sees the job gone also finds its place free.
                shared.places[lane].add_permits(1);
            }
            core.scheduler.rest(self.seat.id, &core.store.ready());
        });
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        self.seat.shared.change(|core| {
            core.store.release(entry);
            core.scheduler.rest(self.seat.id, &core.store.ready());
        });
        self.seat.aborted.fetch_add(1, Ordering::Relaxed);
    }
}
