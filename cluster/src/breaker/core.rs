//! What all handles of one breaker share: a closed circuit is a few atomics, every other state and
//! every move goes through the machine behind its lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::machine::{Machine, State, Ticket, Verdict};
use super::stats::{BreakerStats, Counters};
use super::window::{BUCKETS, Totals, Window};
use super::{BreakerConfig, Open};

/// The part of an epoch that fits beside a count.
const EPOCH_MASK: u64 = u32::MAX as u64;

/// How a call has ended, in the terms of the statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Succeeded,
    Failed,
    Ignored,
    Cancelled,
    Abandoned,
    Panicked,
}

#[derive(Debug)]
pub(super) struct Core {
    name: Arc<str>,
    config: BreakerConfig,
    /// Time zero of the machine and of the window.
    origin: Instant,
    bucket_nanos: u64,
    /// `epoch << 3 | state`: what a call on a closed circuit has to read. Written under the
    /// machine's lock.
    word: AtomicU64,
    /// When the open time ends, in nanoseconds since `origin`, so that an open circuit rejects
    /// without a lock. Written before `word`.
    open_until: AtomicU64,
    /// `epoch << 32 | failures in a row`: a count of another epoch reads as zero.
    consecutive: AtomicU64,
    window: Window,
    counters: Counters,
    machine: Mutex<Machine>,
}

impl Core {
    pub(super) fn new(name: Arc<str>, config: BreakerConfig) -> Self {
        let bucket_nanos = nanos(config.window.unwrap_or(Duration::from_secs(10)) / BUCKETS);
        Self {
            name,
            origin: Instant::now(),
            bucket_nanos,
            word: AtomicU64::new(pack(0, State::Closed)),
            open_until: AtomicU64::new(0),
            consecutive: AtomicU64::new(0),
            window: Window::default(),
            counters: Counters::default(),
            machine: Mutex::new(Machine::new(&config)),
            config,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn config(&self) -> &BreakerConfig {
        &self.config
    }

    pub(super) fn state(&self) -> State {
        match state_of(self.word.load(Ordering::Acquire)) {
            State::Open if self.open_for_now().is_none() => State::HalfOpen,
            state => state,
        }
    }

    pub(super) fn admit(&self) -> Result<Ticket, Open> {
        if let Some(ticket) = self.admit_closed() {
            return Ok(ticket);
        }
        let word = self.word.load(Ordering::Acquire);
        let answer = match self.rejects_now(word) {
            Some(open) => Err(open),
            None => self.admit_by_machine(),
        };
        match answer {
            Ok(_) => self.counters.admitted(),
            Err(_) => self.counters.rejected(),
        }
        answer
    }

    /// Lets a call into a closed circuit; every other one has to be asked by `admit`.
    pub(super) fn admit_closed(&self) -> Option<Ticket> {
        let word = self.word.load(Ordering::Acquire);
        if !state_of(word).is_closed() {
            return None;
        }
        self.counters.admitted();
        Some(Ticket { epoch: epoch_of(word), probe: None })
    }

    /// Calls so far, let in or rejected.
    pub(super) fn calls(&self) -> u64 {
        self.counters.calls()
    }

    /// Calls under way, or a few more than that.
    pub(super) fn in_flight(&self) -> u64 {
        self.counters.in_flight()
    }

    /// Whether a closed circuit holds nothing against its backend.
    pub(super) fn is_blank(&self) -> bool {
        let stats = self.stats();
        stats.consecutive_failures == 0 && stats.window_failures == 0
    }

    /// The rejection that a call would meet now, as far as that is known without the lock: a
    /// half-open circuit has to be asked.
    pub(super) fn rejects(&self) -> Option<Open> {
        let word = self.word.load(Ordering::Acquire);
        if state_of(word).is_closed() { None } else { self.rejects_now(word) }
    }

    /// Counts a call that was refused without asking the machine.
    pub(super) fn rejected(&self) {
        self.counters.rejected();
    }

    /// Takes the result of a call.
    pub(super) fn settle(&self, ticket: Ticket, end: End) {
        self.counters.ended(end);
        let verdict = match end {
            End::Succeeded => Verdict::Success,
            End::Failed | End::Abandoned | End::Panicked => Verdict::Failure,
            End::Ignored | End::Cancelled => Verdict::Neutral,
        };
        if ticket.probe.is_some() {
            let now = self.elapsed();
            self.change(|machine| machine.settle(ticket, verdict, now, fastrand::f64()));
        } else if self.word.load(Ordering::Acquire) == pack(ticket.epoch, State::Closed) {
            match verdict {
                Verdict::Success => self.note_success(ticket.epoch),
                Verdict::Failure => self.note_failure(ticket.epoch),
                Verdict::Neutral => {}
            }
        }
    }

    /// Moves the machine and publishes where it stands now.
    pub(super) fn change<T>(&self, step: impl FnOnce(&mut Machine) -> T) -> T {
        let (answer, before, after) = {
            let mut machine = self.machine.lock();
            let (before, epoch) = (machine.state(), machine.epoch());
            let answer = step(&mut machine);
            if machine.epoch() != epoch {
                self.open_until.store(nanos(machine.open_until()), Ordering::Release);
                self.word.store(pack(machine.epoch(), machine.state()), Ordering::Release);
            }
            (answer, (before, epoch), (machine.state(), machine.epoch()))
        };
        if before.1 != after.1 {
            self.report(before.0, after.0);
        }
        answer
    }

    pub(super) fn stats(&self) -> BreakerStats {
        let moves = self.machine.lock().moves();
        let word = self.word.load(Ordering::Acquire);
        let epoch = epoch_of(word);
        let totals = if state_of(word) == State::Closed && self.config.failure_rate.is_some() {
            self.window.totals(self.tick(epoch, self.elapsed()))
        } else {
            Totals::default()
        };
        let consecutive = self.consecutive.load(Ordering::Acquire);
        let current = consecutive >> 32 == epoch & EPOCH_MASK;
        let consecutive = if current { consecutive as u32 } else { 0 };
        self.counters.snapshot(self.name(), self.state(), moves, totals, consecutive)
    }

    fn admit_by_machine(&self) -> Result<Ticket, Open> {
        let now = self.elapsed();
        let answer = self.change(|machine| machine.admit(now, fastrand::f64()));
        answer.map_err(|retry_after| Open { retry_after })
    }

    fn rejects_now(&self, word: u64) -> Option<Open> {
        match state_of(word) {
            State::Open => self.open_for_now(),
            State::ForcedOpen => Some(Open { retry_after: self.config.open_for }),
            _ => None,
        }
    }

    /// What is left of the open time.
    fn open_for_now(&self) -> Option<Open> {
        let until = self.open_until.load(Ordering::Acquire);
        let left = until.saturating_sub(nanos(self.elapsed()));
        (left > 0).then(|| Open { retry_after: Duration::from_nanos(left) })
    }

    fn note_success(&self, epoch: u64) {
        // Read before write: on the usual path the count is zero and the line stays shared.
        let word = self.consecutive.load(Ordering::Acquire);
        if word as u32 > 0 && word >> 32 == epoch & EPOCH_MASK {
            // Lost only to another result of the same moment, whose order is open anyway.
            let none = epoch << 32;
            let _raced =
                self.consecutive.compare_exchange(word, none, Ordering::AcqRel, Ordering::Acquire);
        }
        if self.config.failure_rate.is_some() {
            self.window.record(self.tick(epoch, self.elapsed()), false);
        }
    }

    fn note_failure(&self, epoch: u64) {
        let now = self.elapsed();
        let in_a_row = self.too_many_in_a_row(epoch);
        if self.too_high_a_rate(epoch, now) || in_a_row {
            self.change(|machine| machine.trip(epoch, now, fastrand::f64()));
        }
    }

    fn too_many_in_a_row(&self, epoch: u64) -> bool {
        let Some(limit) = self.config.consecutive_failures else { return false };
        let mut word = self.consecutive.load(Ordering::Acquire);
        loop {
            let count = match ((word >> 32) as u32).wrapping_sub(epoch as u32) {
                0 => word as u32,
                // A count of a newer epoch: this result is stale after all.
                ahead if ahead < u32::MAX / 2 => return false,
                _ => 0,
            };
            let count = count.saturating_add(1);
            let next = epoch << 32 | u64::from(count);
            let swap = self.consecutive.compare_exchange_weak(
                word,
                next,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match swap {
                Ok(_) => return count >= limit,
                Err(current) => word = current,
            }
        }
    }

    /// Judged on failures only: a success never opens a circuit.
    fn too_high_a_rate(&self, epoch: u64, now: Duration) -> bool {
        let Some(rate) = self.config.failure_rate else { return false };
        let tick = self.tick(epoch, now);
        self.window.record(tick, true);
        let totals = self.window.totals(tick);
        totals.calls >= u64::from(self.config.minimum_calls)
            && totals.failures as f64 >= rate * totals.calls as f64
    }

    /// The window's tick. Each epoch starts more than a whole ring after the one before, so that
    /// nothing counted before a move is seen after it and no bucket has to be cleared.
    fn tick(&self, epoch: u64, now: Duration) -> u32 {
        let skipped = epoch.wrapping_mul(u64::from(BUCKETS + 1));
        (nanos(now) / self.bucket_nanos).wrapping_add(skipped) as u32
    }

    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    #[cfg(feature = "tracing")]
    fn report(&self, from: State, to: State) {
        let breaker = self.name();
        if to.is_closed() {
            tracing::info!(breaker, %from, %to, "circuit closed");
        } else {
            tracing::warn!(breaker, %from, %to, "circuit rejects calls");
        }
    }

    #[cfg(not(feature = "tracing"))]
    #[expect(clippy::unused_self, reason = "the same call with and without the feature")]
    fn report(&self, _from: State, _to: State) {}
}

fn pack(epoch: u64, state: State) -> u64 {
    let code = match state {
        State::Closed => 0,
        State::ForcedClosed => 1,
        State::HalfOpen => 2,
        State::Open => 3,
        State::ForcedOpen => 4,
    };
    epoch << 3 | code
}

fn state_of(word: u64) -> State {
    match word & 7 {
        0 => State::Closed,
        1 => State::ForcedClosed,
        2 => State::HalfOpen,
        3 => State::Open,
        _ => State::ForcedOpen,
    }
}

fn epoch_of(word: u64) -> u64 {
    word >> 3
}

/// Nanoseconds, saturated after 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
