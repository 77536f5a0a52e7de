//! What is counted of jobs, and who is told of it.

use std::panic::Location;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::PoolError;
use crate::event::{Hook, Observer, PoolEvent};
use crate::meter::Outcome;
use crate::stats::PoolStats;

/// The counts of a pool whose connections are threads, behind one lock, so that a snapshot always
/// adds up; and whoever is told of what is counted.
#[derive(Debug)]
pub(super) struct Meter {
    stats: Mutex<PoolStats>,
    observer: Observer,
}

impl Meter {
    pub(super) fn new(hook: Option<Hook>) -> Self {
        Self { stats: Mutex::default(), observer: Observer::new(hook) }
    }

    pub(super) fn start(&self) {
        self.stats.lock().start();
    }

    pub(super) fn cancelled(&self) {
        self.stats.lock().settle(Outcome::Cancelled);
    }

    /// A thread begins a job.
    pub(super) fn acquired(&self, waited: Duration, place: &'static Location<'static>) {
        {
            let mut stats = self.stats.lock();
            stats.settle(Outcome::Acquired);
            stats.waited(waited);
        }
        self.observer.tell(&PoolEvent::Acquired { waited, place });
    }

    /// A job was not begun.
    pub(super) fn failed(
        &self,
        error: &PoolError,
        waited: Duration,
        place: &'static Location<'static>,
    ) {
        self.stats.lock().settle(Outcome::of(error));
        self.observer.tell(&PoolEvent::AcquireFailed { waited, place, error });
    }

    /// A job has ended.
    pub(super) fn returned(&self, held: Duration, place: &'static Location<'static>) {
        self.stats.lock().hold_seconds_total += held.as_secs_f64();
        self.observer.tell(&PoolEvent::Returned { held, place });
    }

    /// A job ran at once, where it was asked for.
    pub(super) fn ran_inline(&self, held: Duration, place: &'static Location<'static>) {
        {
            let mut stats = self.stats.lock();
            stats.started_total += 1;
            stats.acquired_total += 1;
            stats.inline_total += 1;
            stats.hold_seconds_total += held.as_secs_f64();
        }
        self.observer.tell(&PoolEvent::Acquired { waited: Duration::ZERO, place });
        self.observer.tell(&PoolEvent::Returned { held, place });
    }

    /// A job was begun where it was asked for, and goes to a thread after all.
    pub(super) fn moved(&self) {
        self.stats.lock().moved_total += 1;
    }

    /// The counts; the gauges of the threads are the caller's to fill in.
    pub(super) fn snapshot(&self) -> PoolStats {
        *self.stats.lock()
    }
}
