//! The shell around the adaptive limit: collects what calls tell, and moves the limit when a window
//! has ended.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::AdaptiveConfig;
use super::gradient::Gradient;
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
    /// For the statistics, in nanoseconds: of the last window, and without a queue.
    sampled: AtomicU64,
    floor: AtomicU64,
}

/// What the end of a call tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The backend takes this long.
    Latency,
    /// There are too many calls.
    Drop,
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
            sampled: AtomicU64::new(0),
            floor: AtomicU64::new(0),
        }
    }

    pub(super) fn began(&self, under_way: u64) {
        self.samples.saw(under_way);
    }

    /// Whether a call that is given up after this long says that there are too many.
    pub(super) fn is_late(&self, age: Duration) -> bool {
        self.abandoned_after.is_some_and(|limit| age >= limit)
    }

    pub(super) fn ended(&self, began: Instant, told: Told, slots: &Slots) {
        if self.time(began) < self.counts_from.load(Relaxed) {
            return;
        }
        let now = Instant::now();
        let count = match told {
            Told::Latency => self.samples.record(now.saturating_duration_since(began)),
            Told::Drop => self.samples.record_drop(),
        };
        if count >= self.min_samples && self.time(now) >= self.closes_at.load(Relaxed) {
            self.close(now, slots);
        }
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
        self.floor.store(gradient.floor().map_or(0, whole_nanos), Relaxed);
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
