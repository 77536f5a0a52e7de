//! Calls under way that are too slow already: counted by the time they began at, without a lock and
//! without a list of them.
//!
//! Time is cut into ticks of an eighth of what counts as slow. A ring holds, for each of the last
//! ticks, how many of the calls that began in it are still under way; what a slot held when it is
//! taken for a later tick goes into the count of the old ones. A call is too slow when its tick is
//! nine back: all of it is, then.
//!
//! Everybody who reads sees a call at most once, and rather not at all while it is being moved: a
//! healthy backend is never taken for a slow one.

use std::num::NonZeroU64;

use super::primitives::{AcqRel, Acquire, AtomicU64};

const SLOTS: usize = 16;

/// Ticks within which a call is not surely too slow.
const YOUNG: u64 = 9;

/// What cuts time: ticks of `quantum` nanoseconds for calls of one `period`, which is an epoch of
/// the circuit with the number of times the quantum has changed. Calls of another are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scale {
    period: u64,
    quantum: u64,
}

impl Scale {
    pub(super) fn new(epoch: u64, change: u64, slow_nanos: u64) -> Self {
        let period = (epoch << CHANGE_BITS | change & mask(CHANGE_BITS)) & mask(PERIOD_BITS);
        Self { period, quantum: (slow_nanos / 8).max(1) }
    }

    /// When the tick after that of `now` begins.
    pub(super) fn next_tick(self, now: u64) -> u64 {
        (now / self.quantum + 1).saturating_mul(self.quantum)
    }

    fn tick(self, time: u64) -> u64 {
        (time / self.quantum) & mask(TICK_BITS)
    }
}

/// From when on a call is slow, in one word, with the number of times that has changed: `change |
/// nanoseconds`, all ones for never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slow(u64);

const SLOW_BITS: u32 = 64 - CHANGE_BITS;

impl Slow {
    pub(super) fn new(change: u64, threshold: Option<u64>) -> Self {
        let nanos = threshold.map_or(mask(SLOW_BITS), |nanos| nanos.min(mask(SLOW_BITS) - 1));
        Self(change << SLOW_BITS | nanos)
    }

    #[inline]
    pub(super) fn from_word(word: u64) -> Self {
        Self(word)
    }

    pub(super) fn word(self) -> u64 {
        self.0
    }

    /// The same threshold if it is one, or the next change.
    pub(super) fn changed(self, threshold: Option<u64>) -> Self {
        let change = self.0 >> SLOW_BITS;
        let same = Self::new(change, threshold);
        if same == self { same } else { Self::new(change + 1, threshold) }
    }

    #[inline]
    pub(super) fn is_off(self) -> bool {
        self.0 & mask(SLOW_BITS) == mask(SLOW_BITS)
    }

    #[inline]
    pub(super) fn is_reached(self, age: u64) -> bool {
        !self.is_off() && age >= self.0 & mask(SLOW_BITS)
    }

    pub(super) fn scale(self, epoch: u64) -> Scale {
        Scale::new(epoch, self.0 >> SLOW_BITS, self.0 & mask(SLOW_BITS))
    }
}

/// A word is `period | tick | count`, and for the old ones `period | count` (an integer with sign).
/// A period comes round after four million moves of the circuit, a tick after a million: a slot that
/// was not touched in between would be taken for a new one, and a call be counted late or early.
const COUNT_BITS: u32 = 16;
const TICK_BITS: u32 = 20;
const CHANGE_BITS: u32 = 6;
const PERIOD_BITS: u32 = 64 - COUNT_BITS - TICK_BITS;
const OLD_BITS: u32 = 64 - PERIOD_BITS;

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// The calls under way that one thread has let in.
#[derive(Debug, Default)]
pub(super) struct Watch {
    slots: [AtomicU64; SLOTS],
    old: AtomicU64,
}

/// Where a call is counted: the word of its slot with a count of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(NonZeroU64);

impl Place {
    fn new(scale: Scale, since: u64) -> Self {
        let word = scale.period << OLD_BITS | scale.tick(since) << COUNT_BITS;
        Self(NonZeroU64::MIN | word)
    }

    fn period(self) -> u64 {
        self.0.get() >> OLD_BITS
    }

    /// The slot's word without its count.
    fn word(self) -> u64 {
        self.0.get() & !mask(COUNT_BITS)
    }

    fn slot(self) -> usize {
        (self.0.get() >> COUNT_BITS) as usize % SLOTS
    }
}

impl Watch {
    /// Counts a call that began at `since`. `None` for one of a period that is over, and for more
    /// calls at once than fit (65,535 within a tick): those are not watched.
    pub(super) fn enter(&self, scale: Scale, since: u64) -> Option<Place> {
        let place = Place::new(scale, since);
        let slot = &self.slots[place.slot()];
        let mut word = slot.load(Acquire);
        loop {
            let same = word & !mask(COUNT_BITS) == place.word();
            let count = word & mask(COUNT_BITS);
            let full = same && count == mask(COUNT_BITS);
            if full || count > 0 && newer(word, scale.period) {
                return None;
            }
            if word >> OLD_BITS == scale.period && ahead(word, place) {
                // It blocked its thread for a whole ring before it came here.
                self.add_old(scale.period, 1);
                return Some(place);
            }
            let next = if same { word + 1 } else { place.word() + 1 };
            match slot.compare_exchange_weak(word, next, AcqRel, Acquire) {
                Ok(_) if !same && word >> OLD_BITS == scale.period => {
                    self.add_old(scale.period, count.cast_signed());
                    return Some(place);
                }
                Ok(_) => return Some(place),
                Err(current) => word = current,
            }
        }
    }

    /// The call has ended.
    pub(super) fn leave(&self, place: Place) {
        let slot = &self.slots[place.slot()];
        let mut word = slot.load(Acquire);
        while word & !mask(COUNT_BITS) == place.word() {
            match slot.compare_exchange_weak(word, word - 1, AcqRel, Acquire) {
                Ok(_) => return,
                Err(current) => word = current,
            }
        }
        self.add_old(place.period(), -1);
    }

    /// Calls of this period that are too slow at `now`.
    pub(super) fn too_slow(&self, scale: Scale, now: u64) -> i64 {
        // The old ones first: one that is moved there meanwhile is then missed, not counted twice.
        let old = self.old.load(Acquire);
        let old = if old >> OLD_BITS == scale.period { signed(old) } else { 0 };
        let tick = scale.tick(now);
        let slots = self.slots.iter().map(|slot| {
            let word = slot.load(Acquire);
            let age = tick.wrapping_sub(word >> COUNT_BITS) & mask(TICK_BITS);
            // Half the range back lies ahead: a clock that was read later.
            let late = (YOUNG..=mask(TICK_BITS) / 2).contains(&age);
            if late && word >> OLD_BITS == scale.period {
                (word & mask(COUNT_BITS)).cast_signed()
            } else {
                0
            }
        });
        old + slots.sum::<i64>()
    }

    /// Below zero for a moment, when a call ends while its slot's count is on its way here.
    fn add_old(&self, period: u64, count: i64) {
        if count == 0 {
            return;
        }
        // Given up only for one of a period that is over.
        let _stale = self.old.fetch_update(AcqRel, Acquire, |word| {
            let of_now = word >> OLD_BITS == period;
            if !of_now && signed(word) != 0 && newer(word, period) {
                return None;
            }
            let sum = count + if of_now { signed(word) } else { 0 };
            Some(period << OLD_BITS | sum.cast_unsigned() & mask(OLD_BITS))
        });
    }
}

/// Whether the tick of a word is a later one.
fn ahead(word: u64, place: Place) -> bool {
    let ahead = (word >> COUNT_BITS).wrapping_sub(place.word() >> COUNT_BITS) & mask(TICK_BITS);
    ahead > 0 && ahead <= mask(TICK_BITS) / 2
}

/// Whether a word is of a later period.
fn newer(word: u64, period: u64) -> bool {
    let ahead = (word >> OLD_BITS).wrapping_sub(period) & mask(PERIOD_BITS);
    ahead > 0 && ahead <= mask(PERIOD_BITS) / 2
}

fn signed(word: u64) -> i64 {
    (word << PERIOD_BITS).cast_signed() >> PERIOD_BITS
}
