//! What all handles of one breaker share. A call on a closed circuit reads one line of memory that
//! nobody writes, and counts on a line of its thread; every other call, and every move, goes
//! through the books behind their lock.

mod books;
mod moves;
mod rest;
mod slowly;

use std::num::NonZeroU32;
use std::sync::Arc as Name;
use std::time::Duration;

use self::books::Books;
use super::cell::{Cell, End};
use super::hook::Hook;
use super::machine::Ticket;
use super::primitives::{
    AcqRel, Acquire, Arc, AtomicBool, AtomicU64, Instant, Mutex, Relaxed, Release,
};
use super::watch::{Place, Slow};
use super::word::Word;
use super::{BreakerConfig, Open, State};

/// The part of an epoch that fits beside a count.
const EPOCH_MASK: u64 = u32::MAX as u64;

/// The epoch of a call that counts nowhere but in the statistics: there will be no such one.
const NO_EPOCH: u64 = u64::MAX >> 3;

/// Beside the number of a probe: see [`Call::excuse`].
const EXCUSED: u64 = 1 << 32;

/// No time: there is no window of time, or nobody needs to know when a call began.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Core {
    hot: Hot,
    cells: Box<[Cell]>,
    name: Name<str>,
    /// Time zero; all times are nanoseconds since then.
    origin: Instant,
    books: Mutex<Books>,
    hook: Hook,
}

/// What each call reads. Written under the lock of the books, except `consecutive` and `check_at`,
/// and only when something changes.
#[derive(Debug)]
#[repr(align(128))]
struct Hot {
    /// A [`Word`]. Written last.
    word: AtomicU64,
    /// `epoch << 32 | failures in a row`: a count of another epoch reads as zero.
    consecutive: AtomicU64,
    /// When the next bucket of the window of time begins.
    roll_at: AtomicU64,
    /// When to look for slow calls among those under way.
    check_at: AtomicU64,
    /// A [`Slow`].
    slow: AtomicU64,
    /// The age from which on a call given up has failed.
    abandoned: AtomicU64,
    /// When the open time ends; how long it would be for a circuit forced open.
    open_until: AtomicU64,
    shadow: AtomicBool,
}

/// A call that was let in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    // The ticket's parts one by one, and whole words only: what is moved as one piece goes through
    // memory on the way to where the permit stays, and the processor waits for that longer than for
    // all the rest of a call.
    epoch: u64,
    /// The number of a probe, and [`EXCUSED`].
    tag: u64,
    /// When it began, if that is needed: at once for slow calls, else when it first has to wait.
    since: u64,
    /// Where it is watched, once it has had to wait.
    place: Option<Place>,
}

impl Call {
    #[inline]
    fn new(epoch: u64, since: u64) -> Self {
        Self { epoch, tag: 0, since, place: None }
    }

    fn of(Ticket { epoch, probe }: Ticket, since: u64) -> Self {
        let tag = probe.map_or(0, |probe| u64::from(probe.get()));
        Self { tag, ..Self::new(epoch, since) }
    }

    fn ticket(self) -> Ticket {
        Ticket { epoch: self.epoch, probe: NonZeroU32::new(self.tag as u32) }
    }

    /// Given up, it counts as nothing, however late that is.
    #[inline]
    pub(super) fn excuse(&mut self) {
        self.tag |= EXCUSED;
    }

    #[inline]
    fn is_probe(self) -> bool {
        self.tag as u32 != 0
    }

    fn is_excused(self) -> bool {
        self.tag & EXCUSED != 0
    }

    /// Counted nowhere.
    pub(super) fn unseen() -> Self {
        Self::new(NO_EPOCH, NEVER)
    }
}

impl Core {
    pub(super) fn new(name: Name<str>, config: BreakerConfig, cells: usize) -> Arc<Self> {
        let slow = Slow::new(0, slow_nanos(&config));
        let abandoned = abandoned_nanos(&config);
        let books = Books::new(config);
        Arc::new(Self {
            hot: Hot {
                word: AtomicU64::new(Word::new(0, State::Closed, false).bits()),
                consecutive: AtomicU64::new(0),
                roll_at: AtomicU64::new(books.next_bucket()),
                check_at: AtomicU64::new(0),
                slow: AtomicU64::new(slow.word()),
                abandoned: AtomicU64::new(abandoned),
                open_until: AtomicU64::new(0),
                shadow: AtomicBool::new(false),
            },
            cells: (0..cells).map(|_| Cell::default()).collect(),
            name,
            origin: Instant::now(),
            books: Mutex::new(books),
            hook: Hook::default(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn hook(&self) -> &Hook {
        &self.hook
    }

    pub(super) fn config(&self) -> BreakerConfig {
        self.books.lock().config.clone()
    }

    #[inline]
    pub(super) fn cell(&self, index: usize) -> &Cell {
        &self.cells[index]
    }

    pub(super) fn state(&self) -> State {
        if !self.slow().is_off() {
            self.look(self.now());
        }
        match self.word().state() {
            State::Open if self.hot.open_until.load(Acquire) <= self.now() => State::HalfOpen,
            state => state,
        }
    }

    /// Lets a call in, if the circuit lets all in.
    #[inline]
    pub(super) fn admit(&self, cell: &Cell) -> Option<Call> {
        let mut word = self.word();
        let mut since = NEVER;
        if word.admits_all() && !self.slow().is_off() {
            since = self.look(self.now());
            word = self.word();
        }
        word.admits_all().then(|| {
            cell.admitted();
            Call::new(word.epoch(), since)
        })
    }

    /// The rejection that a call would meet now, as far as that is known without the lock and
    /// without a look at what is under way: see [`refusal`](Self::refusal).
    pub(super) fn rejects(&self) -> Option<Open> {
        let word = self.word();
        if word.admits_all() || self.hot.shadow.load(Acquire) { None } else { self.rejection(word) }
    }

    /// The call has to wait: from now on it has an age, and is watched if it may become slow.
    pub(super) fn waits(&self, cell: &Cell, call: &mut Call) {
        let slow = self.slow();
        if slow.is_off() {
            let limit = self.hot.abandoned.load(Relaxed);
            if call.since == NEVER && limit != NEVER && limit != 0 && !call.is_excused() {
                call.since = self.now();
            }
        } else if call.place.is_none() && call.since != NEVER && self.counts(call) {
            call.place = cell.watch.enter(slow.scale(call.epoch), call.since);
        }
    }

    /// Takes the result of a call.
    #[inline]
    pub(super) fn settle(&self, cell: &Cell, call: &Call, end: End, retry_after: Option<Duration>) {
        let epoch = call.epoch;
        if end == End::Succeeded && self.counts(call) {
            let roll_at = self.hot.roll_at.load(Relaxed);
            let may_be_slow = call.since != NEVER && !self.slow().is_off();
            let now = if roll_at != NEVER || may_be_slow { self.now() } else { 0 };
            if !may_be_slow || !self.is_slow(call, now) {
                if now >= roll_at {
                    self.roll(now);
                }
                self.end_row(epoch);
                cell.good(epoch);
                if let Some(place) = call.place {
                    cell.watch.leave(place);
                }
                return;
            }
        }
        self.settle_slowly(cell, call, end, retry_after);
    }

    /// How a call that was dropped has ended.
    pub(super) fn end_unsaid(&self, call: &Call) -> End {
        let limit = self.hot.abandoned.load(Relaxed);
        if std::thread::panicking() {
            End::Panicked
        } else if call.is_excused() {
            End::Cancelled
        } else if limit == 0 || call.since != NEVER && self.age(call, self.now()) >= limit {
            End::Abandoned
        } else {
            End::Cancelled
        }
    }

    /// A success ends the failures in a row.
    #[inline]
    fn end_row(&self, epoch: u64) {
        // Read before write: on the usual path the count is zero and the line stays shared.
        let word = self.hot.consecutive.load(Acquire);
        if is_row(word, epoch) {
            self.end_row_of(word, epoch);
        }
    }

    #[cold]
    fn end_row_of(&self, mut word: u64, epoch: u64) {
        // Until it is seen to be zero: a failure that comes between counts before this success, or
        // after it, but must not make it as if it had not been.
        while is_row(word, epoch) {
            let none = epoch << 32;
            match self.hot.consecutive.compare_exchange_weak(word, none, AcqRel, Acquire) {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }

    /// Whether the call's result goes into the windows, as of now.
    #[inline]
    fn counts(&self, call: &Call) -> bool {
        !call.is_probe() && self.word().counts(call.epoch)
    }

    #[inline]
    fn word(&self) -> Word {
        Word::from_bits(self.hot.word.load(Acquire))
    }

    #[inline]
    fn slow(&self) -> Slow {
        Slow::from_word(self.hot.slow.load(Relaxed))
    }

    #[inline]
    fn age(&self, call: &Call, now: u64) -> u64 {
        now.saturating_sub(call.since)
    }

    #[inline]
    fn is_slow(&self, call: &Call, now: u64) -> bool {
        call.since != NEVER && self.slow().is_reached(self.age(call, now))
    }

    #[inline]
    fn now(&self) -> u64 {
        nanos(self.origin.elapsed())
    }
}

/// Whether there are failures in a row in this epoch.
#[inline]
fn is_row(word: u64, epoch: u64) -> bool {
    word as u32 > 0 && word >> 32 == epoch & EPOCH_MASK
}

/// Nanoseconds, saturated after 584 years.
#[inline]
fn nanos(time: Duration) -> u64 {
    // Not by `as_nanos`, whose 128 bits cost as much as the rest of a call.
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into())
}

fn slow_nanos(config: &BreakerConfig) -> Option<u64> {
    config.slow_call_rate.map(|_| nanos(config.slow_call))
}

fn abandoned_nanos(config: &BreakerConfig) -> u64 {
    config.abandoned_after.map_or(NEVER, nanos)
}
