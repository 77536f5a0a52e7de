//! Moves of the circuit, by itself or by hand, and its figures.

use std::time::Duration;

use super::super::cell::Sums;
use super::super::hook::Told;
use super::super::machine::Machine;
use super::super::stats::{BreakerStats, Snapshot};
use super::{
    Acquire, AtomicU64, Books, BreakerConfig, Core, Relaxed, Release, State, Word, abandoned_nanos,
    nanos, slow_nanos,
};

impl Core {
    /// Moves the machine, publishes where it stands now, and tells who wants to know.
    pub(super) fn change<T>(&self, step: impl FnOnce(&mut Books, Duration, f64) -> T) -> T {
        let (answer, moves) = {
            let mut books = self.books.lock();
            // Read under the lock: the machine's time does not go back.
            let now = self.now();
            let answer = step(&mut books, Duration::from_nanos(now), fastrand::f64());
            self.publish(&mut books, now);
            (answer, books.machine.take_untold())
        };
        for told in moves {
            let shadow = self.hot.shadow.load(Acquire);
            self.hook.tell(&Told { name: &self.name, shadow, told });
        }
        answer
    }

    fn publish(&self, books: &mut Books, now: u64) {
        let machine = &books.machine;
        let (epoch, state) = (machine.epoch(), machine.state());
        let open_until = match state {
            State::ForcedOpen => books.config.open_for,
            _ => machine.open_until(),
        };
        set(&self.hot.open_until, nanos(open_until));
        let word = Word::new(epoch, state, machine.ramp().is_some());
        if state == State::Closed && self.word().epoch() != epoch {
            books.clear(self.good(epoch), now);
        }
        set(&self.hot.roll_at, books.next_bucket());
        set(&self.hot.word, word.bits());
    }

    /// Sets the mode: a step of the machine, and whether the circuit rejects in truth.
    pub(in super::super) fn set_mode(&self, shadow: bool, step: impl FnOnce(&mut Machine)) {
        self.change(|books, _, _| {
            self.hot.shadow.store(shadow, Release);
            step(&mut books.machine);
        });
    }

    pub(in super::super) fn reconfigure(&self, config: BreakerConfig) {
        self.change(|books, now, chance| {
            self.advance(books, nanos(now));
            let slow = self.slow().changed(slow_nanos(&config));
            set(&self.hot.slow, slow.word());
            // By the new numbers, what is under way may be too slow already.
            self.hot.check_at.store(0, Release);
            set(&self.hot.abandoned, abandoned_nanos(&config));
            books.reconfigure(config, now, chance);
        });
    }

    pub(in super::super) fn stats(&self) -> BreakerStats {
        let state = self.state();
        let snapshot = self.change(|books, now, _| {
            let closed = books.machine.state() == State::Closed;
            self.advance(books, nanos(now));
            let epoch = books.machine.epoch();
            Snapshot {
                state,
                shadow: self.hot.shadow.load(Acquire),
                moves: books.machine.moves(),
                windows: if closed { books.counts() } else { Default::default() },
                consecutive: self.row(epoch, 0),
                in_flight_slow: if closed { self.too_slow(epoch, nanos(now)) } else { 0 },
                hook_panicked: self.hook.panicked(),
            }
        });
        BreakerStats::new(self.name(), &snapshot, &Sums::of(&self.cells))
    }
}

/// Writes only what differs: a line that all read stays theirs.
pub(super) fn set(word: &AtomicU64, value: u64) {
    if word.load(Relaxed) != value {
        word.store(value, Release);
    }
}
