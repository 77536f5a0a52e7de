//! The shell around the adaptive limit: collects what calls tell, and moves the limit when a window
//! has ended.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::AdaptiveConfig;
use super::gradient::{Gradient, Plan, Window};
use super::samples::Samples;
use super::slots::Slots;

#[derive(Debug)]
pub(super) struct Adaptive {
    samples: Samples,
    min_samples: u64,
    abandoned_after: Option<Duration>,
    gradient: Mutex<Gradient>,
    /// Times are counted from here, so that they fit a word.
    origin: Instant,
    /// The window does not end before.
    closes_at: AtomicU64,
    /// Calls that began earlier do not count.
    counts_from: AtomicU64,
    /// The probe under way is overdue from then on; `u64::MAX` without one.
    probe_until: AtomicU64,
    /// Bounds for the ages of calls, in nanoseconds; see [`Gradient`].
    late: AtomicU64,
    instant: AtomicU64,
    /// For the statistics, in nanoseconds: of the last window, and without a queue.
    sampled: AtomicU64,
    floor: AtomicU64,
}

/// What the end of a call tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The backend takes this long.
    Latency,
    /// The backend says that there are too many calls.
    Throttled,
    /// There are too many calls, unless it failed too soon to have met a queue.
    Failure,
    /// There may be too many calls.
    Abandoned,
}

impl Adaptive {
    pub(super) fn new(config: &AdaptiveConfig) -> Self {
        Self {
            samples: Samples::new(),
            min_samples: u64::from(config.min_samples),
            abandoned_after: config.abandoned_after,
            gradient: Mutex::new(Gradient::new(config.clone())),
            origin: Instant::now(),
            // A shorter first window would hold the fastest calls only.
            closes_at: AtomicU64::new(nanos(config.window)),
            counts_from: AtomicU64::new(0),
            probe_until: AtomicU64::new(u64::MAX),
            late: AtomicU64::new(0),
            instant: AtomicU64::new(0),
            sampled: AtomicU64::new(0),
            floor: AtomicU64::new(0),
        }
    }

    pub(super) fn began(&self, under_way: u64) {
        self.samples.saw(under_way);
    }

    /// Whether a call that is given up after this long says that there are too many.
    pub(super) fn is_late(&self, age: Duration) -> bool {
        let late = nanos(age) >= self.late.load(Relaxed);
        late && self.abandoned_after.is_some_and(|least| age >= least)
    }

    pub(super) fn ended(&self, began: Instant, told: Told, slots: &Slots) {
        let now = Instant::now();
        let count = self.take_down(began, now, told);
        if count >= self.min_samples && self.time(now) >= self.closes_at.load(Relaxed) {
            self.close(now, slots);
        } else if self.is_overdue(now) {
            self.end_probe(now, slots);
        }
    }

    /// How many calls the window holds with this one; 0 if it does not count.
    fn take_down(&self, began: Instant, now: Instant, told: Told) -> u64 {
        if self.time(began) < self.counts_from.load(Relaxed) {
            return 0;
        }
        let age = now.saturating_duration_since(began);
        match told {
            Told::Latency => self.samples.record(age),
            Told::Failure if nanos(age) < self.instant.load(Relaxed) => 0,
            Told::Failure | Told::Throttled => self.samples.record_drop(),
            Told::Abandoned => self.samples.record_abandoned(),
        }
    }

    /// Ends a probe that lasts too long: whoever meets the limit, or ends in any way, comes here.
    /// Returns whether it did.
    pub(super) fn look(&self, slots: &Slots) -> bool {
        // Without a probe no clock is read.
        if self.probe_until.load(Relaxed) == u64::MAX {
            return false;
        }
        let now = Instant::now();
        self.is_overdue(now) && self.end_probe(now, slots)
    }

    fn is_overdue(&self, now: Instant) -> bool {
        self.time(now) >= self.probe_until.load(Relaxed)
    }

    #[cold]
    fn end_probe(&self, now: Instant, slots: &Slots) -> bool {
        let Some(mut gradient) = self.gradient.try_lock() else { return false };
        if !self.is_overdue(now) {
            return false;
        }
        let peak = self.samples.take(slots.under_way()).peak;
        let plan = gradient.step(now, &Window::empty(peak), fastrand::f64());
        self.follow(now, plan, gradient, slots);
        true
    }

    /// One caller does it; the others do not wait for it.
    #[cold]
    fn close(&self, now: Instant, slots: &Slots) {
        let Some(mut gradient) = self.gradient.try_lock() else { return };
        if self.time(now) < self.closes_at.load(Relaxed) {
            return;
        }
        let window = self.samples.take(slots.under_way());
        let plan = gradient.step(now, &window, fastrand::f64());
        if let Some(latency) = window.latency {
            self.sampled.store(whole_nanos(latency.median), Relaxed);
        }
        self.follow(now, plan, gradient, slots);
    }

    fn follow(&self, now: Instant, plan: Plan, gradient: MutexGuard<'_, Gradient>, slots: &Slots) {
        self.floor.store(gradient.floor().map_or(0, whole_nanos), Relaxed);
        self.late.store(whole_nanos(gradient.late()), Relaxed);
        self.instant.store(whole_nanos(gradient.instant()), Relaxed);
        self.probe_until.store(plan.probe_until.map_or(u64::MAX, |at| self.time(at)), Relaxed);
        self.closes_at.store(self.time(now).saturating_add(nanos(plan.window)), Relaxed);
        if let Some(from) = plan.counts_from {
            self.counts_from.store(self.time(from), Relaxed);
        }
        // With the lock: no later window may be overtaken by this one.
        slots.set_limit(u64::from(plan.limit));
        drop(gradient);
        slots.hand_out();
    }

    /// Continues from this limit, within the bounds.
    pub(super) fn set(&self, limit: u32, slots: &Slots) {
        let mut gradient = self.gradient.lock();
        slots.set_limit(u64::from(gradient.set(limit)));
        drop(gradient);
        slots.hand_out();
    }

    pub(super) fn sampled(&self) -> Duration {
        Duration::from_nanos(self.sampled.load(Relaxed))
    }

    pub(super) fn floor(&self) -> Duration {
        Duration::from_nanos(self.floor.load(Relaxed))
    }

    fn time(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.origin))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn whole_nanos(seconds: f64) -> u64 {
    Duration::try_from_secs_f64(seconds).map_or(u64::MAX, nanos)
}
