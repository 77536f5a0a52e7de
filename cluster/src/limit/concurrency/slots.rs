//! The places for calls, and the queue in front of them.
//!
//! Two words that only grow count the calls begun and the calls ended; the difference is under way.
//! The top bit of the second says that somebody waits. Since the end of a call adds to the very word
//! that a newcomer marks before it looks a last time, either the newcomer sees the end, or the end
//! sees the mark.

use std::collections::BTreeMap;
use std::mem;
use std::task::Waker;

use super::primitives::{AcqRel, Acquire, AtomicU64, Mutex, Relaxed};

/// In the word of the calls ended.
const SOMEBODY_WAITS: u64 = 1 << 63;

#[derive(Debug)]
pub(crate) struct Slots {
    words: Words,
    queue: Mutex<Queue>,
}

/// Together, because a call needs all three: one transfer between two processors instead of three.
#[derive(Debug)]
#[repr(align(64))]
struct Words {
    begun: AtomicU64,
    ended: AtomicU64,
    limit: AtomicU64,
}

/// Those that wait, in the order they came. One that is no longer here was given a place.
#[derive(Debug, Default)]
struct Queue {
    next: u64,
    waiting: BTreeMap<u64, Waker>,
}

/// What became of a newcomer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It has a place, as one of so many calls under way.
    Taken(u64),
    /// It waits under this number.
    Queued(u64),
    /// It must not even wait.
    Full,
}

impl Slots {
    pub(crate) fn new(limit: u64) -> Self {
        let (begun, ended) = (AtomicU64::new(0), AtomicU64::new(0));
        let words = Words { begun, ended, limit: AtomicU64::new(limit) };
        Self { words, queue: Mutex::new(Queue::default()) }
    }

    /// Takes a place, if one is free and nobody waits for it. Returns how many calls are under way
    /// with this one.
    #[inline]
    pub(crate) fn try_take(&self) -> Option<u64> {
        if self.words.ended.load(Acquire) & SOMEBODY_WAITS != 0 {
            return None;
        }
        self.claim()
    }

    /// Takes a place, whoever waits.
    #[inline]
    fn claim(&self) -> Option<u64> {
        let mut begun = self.words.begun.load(Relaxed);
        loop {
            // Never more than the calls begun by now; of an old value of `begun` it may be.
            let ended = self.words.ended.load(Acquire) & !SOMEBODY_WAITS;
            let under_way = begun.saturating_sub(ended);
            if under_way >= self.words.limit.load(Relaxed) {
                return None;
            }
            match self.words.begun.compare_exchange_weak(begun, begun + 1, AcqRel, Relaxed) {
                Ok(_) => return Some(under_way + 1),
                Err(current) => begun = current,
            }
        }
    }

    /// Gives a place back.
    #[inline]
    pub(crate) fn give_back(&self) {
        if self.words.ended.fetch_add(1, AcqRel) & SOMEBODY_WAITS != 0 {
            self.hand_out();
        }
    }

    /// Takes a place or a number in the queue, if fewer than `most` are in it.
    pub(crate) fn enter(&self, most: usize, waker: &Waker) -> Entry {
        let mut queue = self.queue.lock();
        if queue.waiting.len() >= most {
            return Entry::Full;
        }
        // From now on the end of a call comes to the lock, which this holds until it is in the queue.
        self.words.ended.fetch_or(SOMEBODY_WAITS, AcqRel);
        if queue.waiting.is_empty()
            && let Some(under_way) = self.claim()
        {
            self.unmark(&queue);
            return Entry::Taken(under_way);
        }
        let number = queue.next;
        queue.next += 1;
        queue.waiting.insert(number, waker.clone());
        Entry::Queued(number)
    }

    /// Whether the one with this number has been given a place; if not, `waker` is woken then.
    pub(crate) fn poll(&self, number: u64, waker: &Waker) -> bool {
        let mut queue = self.queue.lock();
        let Some(waiting) = queue.waiting.get_mut(&number) else { return true };
        let old = (!waiting.will_wake(waker)).then(|| mem::replace(waiting, waker.clone()));
        // The old one goes outside the lock: it may hold the last of a task, and run anything.
        drop(queue);
        drop(old);
        false
    }

    /// Leaves the queue. Returns whether a place had been given already, which is then the
    /// caller's to use or to give back.
    pub(crate) fn leave(&self, number: u64) -> bool {
        let mut queue = self.queue.lock();
        let left = queue.waiting.remove(&number);
        self.unmark(&queue);
        // Outside the lock, as in `poll`.
        drop(queue);
        left.is_none()
    }

    /// Calls beyond a lower limit go on; their places are not given to others. After a higher one
    /// [`hand_out`](Self::hand_out) has to follow.
    pub(crate) fn set_limit(&self, limit: u64) {
        // With the lock, so that nobody goes to sleep having seen the old one.
        let _queue = self.queue.lock();
        self.words.limit.store(limit, Relaxed);
    }

    /// Gives what is free to those that wait longest.
    #[cold]
    pub(crate) fn hand_out(&self) {
        while let Some(waker) = self.hand_out_one() {
            // Outside the lock: it may run anything.
            waker.wake();
        }
    }

    fn hand_out_one(&self) -> Option<Waker> {
        let mut queue = self.queue.lock();
        if queue.waiting.is_empty() {
            return None;
        }
        self.claim()?;
        let (_, waker) = queue.waiting.pop_first()?;
        self.unmark(&queue);
        Some(waker)
    }

    fn unmark(&self, queue: &Queue) {
        if queue.waiting.is_empty() {
            self.words.ended.fetch_and(!SOMEBODY_WAITS, AcqRel);
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.words.limit.load(Relaxed)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    pub(crate) fn begun(&self) -> u64 {
        self.words.begun.load(Acquire)
    }

    pub(crate) fn ended(&self) -> u64 {
        self.words.ended.load(Acquire) & !SOMEBODY_WAITS
    }

    /// Maybe too few, by what ends meanwhile, but never too many: the other way round, a thread that
    /// is held up between the two would take all that came and went meanwhile for under way.
    pub(crate) fn under_way(&self) -> u64 {
        let begun = self.begun();
        begun.saturating_sub(self.ended())
    }

    /// Whether a newcomer would be refused or have to wait, as far as can be told.
    pub(crate) fn is_full(&self) -> bool {
        self.words.ended.load(Acquire) & SOMEBODY_WAITS != 0 || self.under_way() >= self.limit()
    }
}
