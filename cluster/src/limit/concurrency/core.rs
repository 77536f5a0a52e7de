//! What all handles, layers and permits of one limit share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::adaptive::{Adaptive, Told};
use super::slots::{Entry, Slots};
use super::{Concurrency, ConcurrencyConfig, ConcurrencyLimitStats, Overloaded};

#[derive(Debug)]
pub(super) struct Core {
    slots: Slots,
    counters: Counters,
    adaptive: Option<Adaptive>,
    name: Arc<str>,
    max_waiting: usize,
    max_wait: Duration,
    retry_after: Duration,
}

/// How a call ended that held a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Succeeded,
    Failed,
    /// Counted as failed.
    Throttled,
    Ignored,
    /// Given up early, or by somebody whose patience says nothing.
    Cancelled,
    /// Given up late.
    Abandoned,
    Panicked,
    /// There was no call: who waited for the place had left.
    Returned,
}

/// What is not counted follows from the rest: the usual end of a call writes one word.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counters {
    /// Calls that ended otherwise than well, by [`End`].
    ends: [AtomicU64; 6],
    /// The most that ended well as far as anybody was told.
    succeeded: AtomicU64,
    rejected: AtomicU64,
    wait_timed_out: AtomicU64,
    wait_cancelled: AtomicU64,
}

/// A newcomer's place, or its number in the queue.
pub(super) enum Admission {
    Place(Option<Instant>),
    Number(u64),
}

impl Core {
    pub(super) fn new(name: Arc<str>, config: &ConcurrencyConfig) -> Self {
        let adaptive = match &config.limit {
            Concurrency::Fixed(_) => None,
            Concurrency::Adaptive(config) => Some(Adaptive::new(config)),
        };
        Self {
            slots: Slots::new(u64::from(config.initial())),
            counters: Counters::default(),
            adaptive,
            name,
            max_waiting: config.max_waiting as usize,
            max_wait: config.max_wait,
            retry_after: config.retry_after,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn limit(&self) -> u64 {
        self.slots.limit()
    }

    pub(super) fn max_wait(&self) -> Duration {
        self.max_wait
    }

    /// Whether a call that finds no place waits for one, or is refused at once.
    pub(super) fn may_wait(&self) -> bool {
        self.max_waiting > 0
    }

    /// Whether a call would be refused now, or have to wait.
    pub(super) fn is_full(&self) -> bool {
        self.slots.is_full() && (!self.look() || self.slots.is_full())
    }

    /// Ends what holds the limit down for longer than it should. Returns whether there was such.
    #[cold]
    fn look(&self) -> bool {
        self.adaptive.as_ref().is_some_and(|adaptive| adaptive.look(&self.slots))
    }

    /// Takes a place if one is free: when the call began, if that is of interest.
    #[inline]
    pub(super) fn try_take(&self) -> Option<Option<Instant>> {
        let under_way = match self.slots.try_take() {
            Some(under_way) => under_way,
            None if self.look() => self.slots.try_take()?,
            None => return None,
        };
        Some(self.began(under_way))
    }

    /// Takes a place or a number in the queue.
    ///
    /// # Errors
    /// [`Overloaded`] if there is neither.
    pub(super) fn enter(&self, waker: &Waker) -> Result<Admission, Overloaded> {
        match self.slots.enter(self.max_waiting, waker) {
            Entry::Taken(under_way) => Ok(Admission::Place(self.began(under_way))),
            Entry::Queued(number) => Ok(Admission::Number(number)),
            Entry::Full => Err(self.reject()),
        }
    }

    /// Whether the one with this number has its place now.
    pub(super) fn poll(&self, number: u64, waker: &Waker) -> Option<Option<Instant>> {
        self.slots.poll(number, waker).then(|| self.began(self.slots.under_way()))
    }

    /// The one with this number stops waiting; it may have been given its place just now.
    pub(super) fn give_up(&self, number: u64) -> Result<Option<Instant>, Overloaded> {
        if self.slots.leave(number) {
            return Ok(self.began(self.slots.under_way()));
        }
        self.counters.wait_timed_out.fetch_add(1, Ordering::Relaxed);
        Err(self.overloaded())
    }

    /// The one with this number is no more.
    pub(super) fn cancel(&self, number: u64) {
        if self.slots.leave(number) {
            self.leave(End::Returned);
        }
        self.counters.wait_cancelled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn reject(&self) -> Overloaded {
        self.counters.rejected.fetch_add(1, Ordering::Relaxed);
        self.overloaded()
    }

    fn overloaded(&self) -> Overloaded {
        Overloaded { retry_after: self.retry_after }
    }

    #[inline]
    fn began(&self, under_way: u64) -> Option<Instant> {
        let adaptive = self.adaptive.as_ref()?;
        adaptive.began(under_way);
        Some(Instant::now())
    }

    /// What a call's result tells about the limit; the place is kept.
    #[inline]
    pub(super) fn learn(&self, end: End, began: Option<Instant>) {
        let (Some(adaptive), Some(began)) = (&self.adaptive, began) else { return };
        let told = match end {
            End::Succeeded => Told::Latency,
            End::Failed => Told::Failure,
            End::Throttled => Told::Throttled,
            End::Abandoned => Told::Abandoned,
            End::Ignored | End::Cancelled | End::Panicked | End::Returned => {
                adaptive.look(&self.slots);
                return;
            }
        };
        adaptive.ended(began, told, &self.slots);
    }

    /// How a call counts that was given up without a result.
    pub(super) fn given_up(&self, began: Option<Instant>) -> End {
        if std::thread::panicking() {
            return End::Panicked;
        }
        let late = match (&self.adaptive, began) {
            (Some(adaptive), Some(began)) => adaptive.is_late(began.elapsed()),
            _ => false,
        };
        if late { End::Abandoned } else { End::Cancelled }
    }

    /// Gives the place back, the call being counted first: see [`Core::stats`].
    #[inline]
    pub(super) fn leave(&self, end: End) {
        if let Some(counter) = self.counters.of(end) {
            counter.fetch_add(1, Ordering::Release);
        }
        self.slots.give_back();
    }

    pub(super) fn set_limit(&self, limit: u32) {
        if let Some(adaptive) = &self.adaptive {
            adaptive.set(limit, &self.slots);
        } else {
            self.slots.set_limit(u64::from(limit));
            self.slots.hand_out();
        }
    }

    pub(super) fn stats(&self) -> ConcurrencyLimitStats {
        // In this order: a call is among those that ended otherwise before it is among those that
        // ended, and those that began are the last to be read. So none is missed, and what succeeded
        // may come out too low by what ends meanwhile, but never too high.
        let all_ended = self.slots.ended();
        let count =
            |end| self.counters.of(end).map_or(0, |counter| counter.load(Ordering::Acquire));
        let [failed_total, ignored_total, cancelled_total, abandoned_total, panicked_total] =
            [End::Failed, End::Ignored, End::Cancelled, End::Abandoned, End::Panicked].map(count);
        let returned = count(End::Returned);
        let otherwise =
            failed_total + ignored_total + cancelled_total + abandoned_total + panicked_total;
        let succeeded = all_ended.saturating_sub(otherwise + returned);
        let succeeded_total =
            self.counters.succeeded.fetch_max(succeeded, Ordering::AcqRel).max(succeeded);
        let admitted_total = self.slots.begun() - returned;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ConcurrencyLimitStats {
            name: self.name.to_string(),
            limit: self.slots.limit(),
            in_flight: admitted_total - succeeded_total - otherwise,
            waiting: self.slots.waiting() as u64,
            latency: self.adaptive.as_ref().map_or(Duration::ZERO, Adaptive::sampled),
            min_latency: self.adaptive.as_ref().map_or(Duration::ZERO, Adaptive::floor),
            admitted_total,
            rejected_total: read(&self.counters.rejected),
            wait_timed_out_total: read(&self.counters.wait_timed_out),
            wait_cancelled_total: read(&self.counters.wait_cancelled),
            succeeded_total,
            failed_total,
            ignored_total,
            cancelled_total,
            abandoned_total,
            panicked_total,
        }
    }
}

impl Counters {
    fn of(&self, end: End) -> Option<&AtomicU64> {
        let index = match end {
            End::Succeeded => return None,
            End::Failed | End::Throttled => 0,
            End::Ignored => 1,
            End::Cancelled => 2,
            End::Abandoned => 3,
            End::Panicked => 4,
            End::Returned => 5,
        };
        Some(&self.ends[index])
    }
}
