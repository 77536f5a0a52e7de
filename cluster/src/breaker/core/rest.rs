//! What a registry asks a circuit: quietly, since it asks under a lock of its own. Nothing here
//! moves the circuit, so nobody is told.

use std::time::Duration;

use super::super::cell::Sums;
use super::super::machine::Moves;
use super::{Acquire, Call, Cell, Core, NEVER, Open, Relaxed, State};

/// What a circuit has counted, as far as it does not depend on the time.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Rest {
    pub(in super::super) sums: Sums,
    pub(in super::super) state: State,
    /// Whether somebody has set its mode: it does not move by itself, or rejects nothing.
    pub(in super::super) by_hand: bool,
    /// Whether the circuit is closed and holds nothing against its backend.
    pub(in super::super) blank: bool,
    /// Whether it is closed and lets only a share of the calls through.
    pub(in super::super) ramping: bool,
    /// How long its open time has been over, or longer if it was not open last.
    pub(in super::super) open_over: Duration,
}

impl Core {
    /// What a call meets. `None` for one that may move the circuit.
    #[inline]
    pub(in super::super) fn admit_quietly(&self, cell: &Cell) -> Option<Result<Call, Open>> {
        let mut since = NEVER;
        if !self.slow().is_off() {
            since = self.now();
            if since >= self.hot.check_at.load(Relaxed) {
                return None;
            }
        }
        let word = self.word();
        if word.admits_all() {
            cell.admitted();
            return Some(Ok(Call::new(word.epoch(), since)));
        }
        let open = self.rejects()?;
        cell.rejected();
        Some(Err(open))
    }

    pub(in super::super) fn rest(&self) -> Rest {
        let state = self.quiet_state();
        let sums = Sums::of(&self.cells);
        let shadow = self.hot.shadow.load(Acquire);
        let moves = matches!(state, State::Closed | State::HalfOpen | State::Open);
        let open_over = self.now().saturating_sub(self.hot.open_until.load(Acquire));
        Rest {
            sums,
            state,
            by_hand: shadow || !moves,
            blank: state == State::Closed && self.is_blank(&sums),
            ramping: state == State::Closed && self.is_ramping(),
            open_over: Duration::from_nanos(open_over),
        }
    }

    pub(in super::super) fn moves(&self) -> Moves {
        self.books.lock().machine.moves()
    }

    /// Without a look at the calls under way.
    fn quiet_state(&self) -> State {
        match self.word().state() {
            State::Open if self.hot.open_until.load(Acquire) <= self.now() => State::HalfOpen,
            state => state,
        }
    }

    /// A ramp that is over is one until the next call.
    fn is_ramping(&self) -> bool {
        if self.word().admits_all() {
            return false;
        }
        let books = self.books.lock();
        let age = |began| Duration::from_nanos(self.now()).saturating_sub(began);
        books.machine.ramp().is_some_and(|began| age(began) < books.config.ramp)
    }

    fn is_blank(&self, sums: &Sums) -> bool {
        let bad = sums.failed + sums.throttled + sums.abandoned + sums.panicked + sums.slow;
        // Most circuits have never seen one, and those need no lock.
        bad == 0 || self.row(self.word().epoch(), 0) == 0 && self.windows_are_blank()
    }

    fn windows_are_blank(&self) -> bool {
        let mut books = self.books.lock();
        self.advance(&mut books, self.now());
        let (time, calls) = books.counts();
        time.failures + time.slow + calls.failures + calls.slow == 0
    }
}
