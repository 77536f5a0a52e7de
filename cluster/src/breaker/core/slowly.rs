//! The ways beside the fast one: results that are no plain successes, circuits that are not
//! closed, and looks at the calls under way.

use std::time::Duration;

use super::super::window::Mark;
use super::books::{Event, verdict};
use super::moves::set;
use super::{
    AcqRel, Acquire, Books, Call, Cell, Core, EPOCH_MASK, End, NEVER, NO_EPOCH, Open, Relaxed,
    State, Ticket, Word, nanos,
};

impl Core {
    /// Lets a call in that has to ask. `None` for one that is not counted at all.
    pub(in super::super) fn admit_slowly(&self, cell: &Cell) -> Result<Option<Call>, Open> {
        // First, as a disabled circuit is not to cost a look at the clock.
        if self.word().state() == State::Disabled {
            return Ok(None);
        }
        let since = if self.slow().is_off() { NEVER } else { self.look(self.now()) };
        let ticket = match self.ask() {
            Ok(ticket) => ticket,
            Err(_) if self.hot.shadow.load(Acquire) => {
                cell.shadow_rejected();
                Ticket { epoch: NO_EPOCH, probe: None }
            }
            Err(open) => {
                cell.rejected();
                return Err(open);
            }
        };
        cell.admitted();
        Ok(Some(Call::of(ticket, since)))
    }

    /// Lets a call in that has failed already, before it could be made. `None` if it would not have
    /// been let in, and for one that is not counted.
    pub(in super::super) fn admit_unready(&self, cell: &Cell) -> Option<Call> {
        if self.word().state() == State::Disabled {
            return None;
        }
        let ticket = self.ask().ok()?;
        cell.admitted();
        Some(Call::of(ticket, NEVER))
    }

    fn ask(&self) -> Result<Ticket, Open> {
        let word = self.word();
        if word.admits_all() || matches!(word.state(), State::ForcedClosed | State::Disabled) {
            return Ok(Ticket { epoch: word.epoch(), probe: None });
        }
        if let Some(open) = self.rejection(word) {
            return Err(open);
        }
        self.change(|books, now, chance| books.machine.admit(now, chance))
            .map_err(|retry_after| Open { retry_after })
    }

    /// The rejection that a call would meet now, after a look at the calls under way: those that
    /// are too slow may open a closed circuit, and those past their deadline end a trial. Whoever
    /// waits for a service that such calls keep busy has nobody else who looks.
    pub(in super::super) fn refusal(&self) -> Option<Open> {
        if !self.slow().is_off() {
            self.look(self.now());
        }
        let word = self.word();
        let open = match word.state() {
            State::HalfOpen => self
                .change(|books, now, chance| books.machine.refusal(now, chance))
                .map(|retry_after| Open { retry_after }),
            _ => self.rejection(word),
        };
        open.filter(|_| !self.hot.shadow.load(Acquire))
    }

    /// What an open circuit answers.
    pub(super) fn rejection(&self, word: Word) -> Option<Open> {
        let until = self.hot.open_until.load(Acquire);
        let left = match word.state() {
            State::Open => until.saturating_sub(self.now()),
            State::ForcedOpen => until,
            _ => 0,
        };
        (left > 0).then(|| Open { retry_after: Duration::from_nanos(left) })
    }

    #[cold]
    pub(super) fn settle_slowly(
        &self,
        cell: &Cell,
        call: &Call,
        end: End,
        retry_after: Option<Duration>,
    ) {
        if let Some(place) = call.place {
            cell.watch.leave(place);
        }
        let slow = end != End::Ignored && call.since != NEVER && self.is_slow(call, self.now());
        if slow {
            cell.slow();
        }
        cell.ended(end);
        let epoch = call.epoch;
        let retry_after = retry_after.filter(|_| end.is_failure());
        if call.is_probe() {
            let result = (verdict(end, slow), retry_after);
            self.change(|books, now, chance| {
                books.machine.settle(call.ticket(), result, now, chance);
            });
        } else if self.word().counts(epoch) {
            if end == End::Succeeded {
                self.end_row(epoch);
            }
            if slow || end.is_failure() {
                let mark = Mark { failed: end.is_failure(), slow };
                self.take(epoch, Event { mark: Some(mark), retry_after, ..Event::default() }, end);
            }
        }
    }

    /// Brings an event to the books, unless the circuit has moved since.
    fn take(&self, epoch: u64, mut event: Event, end: End) {
        self.change(|books, now, chance| {
            if !self.word().counts(epoch) {
                return;
            }
            self.advance(books, nanos(now));
            let in_row = end.is_failure() && end != End::Throttled;
            event.row = self.row(epoch, u64::from(in_row));
            event.in_flight_slow = self.too_slow(epoch, nanos(now));
            books.take(epoch, event, now, chance);
        });
    }

    /// The failures in a row with so many more. Successes end the row without the lock.
    pub(super) fn row(&self, epoch: u64, more: u64) -> u64 {
        let mut word = self.hot.consecutive.load(Acquire);
        loop {
            let current = word >> 32 == epoch & EPOCH_MASK;
            let count = if current { word & EPOCH_MASK } else { 0 };
            let count = (count + more).min(EPOCH_MASK);
            if more == 0 {
                return count;
            }
            let next = epoch << 32 | count;
            match self.hot.consecutive.compare_exchange_weak(word, next, AcqRel, Acquire) {
                Ok(_) => return count,
                Err(other) => word = other,
            }
        }
    }

    /// Looks at the calls under way if it is time to; returns the time.
    #[inline]
    pub(super) fn look(&self, now: u64) -> u64 {
        if now >= self.hot.check_at.load(Relaxed) {
            self.look_closely(now);
        }
        now
    }

    #[cold]
    fn look_closely(&self, now: u64) {
        let word = self.word();
        let due = self.hot.check_at.load(Relaxed);
        let next = self.slow().scale(word.epoch()).next_tick(now);
        // One of those who come at once is enough.
        let mine = self.hot.check_at.compare_exchange(due, next, AcqRel, Relaxed).is_ok();
        if mine && word.state() == State::Closed && self.too_slow(word.epoch(), now) > 0 {
            self.take(word.epoch(), Event::default(), End::Ignored);
        }
    }

    pub(super) fn too_slow(&self, epoch: u64, now: u64) -> u64 {
        let slow = self.slow();
        if slow.is_off() {
            return 0;
        }
        let scale = slow.scale(epoch);
        let calls: i64 = self.cells.iter().map(|cell| cell.watch.too_slow(scale, now)).sum();
        u64::try_from(calls).unwrap_or(0)
    }

    /// Closes a bucket of time. If somebody else holds the books he does that too.
    #[cold]
    pub(super) fn roll(&self, now: u64) {
        if let Some(mut books) = self.books.try_lock() {
            self.advance(&mut books, now);
            set(&self.hot.roll_at, books.next_bucket());
        }
    }

    /// Takes in what the threads have counted, if that counts now.
    pub(super) fn advance(&self, books: &mut Books, now: u64) {
        if books.machine.state() == State::Closed {
            books.advance(self.good(books.machine.epoch()), now);
        }
    }

    pub(super) fn good(&self, epoch: u64) -> u64 {
        self.cells.iter().map(|cell| cell.good_of(epoch)).sum()
    }
}
