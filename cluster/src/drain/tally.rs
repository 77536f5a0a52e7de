//! The requests of one connection, counted apart from all others: adding one up costs no more than a
//! store, and connections on different cores do not wait for each other.

use super::primitives::{Acquire, Arc, AtomicU64, Mutex, Relaxed, Release};

/// On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Tally {
    started: AtomicU64,
    ended: [AtomicU64; WAYS],
    /// Its place among those that are counted together; changed under their lock.
    place: AtomicU64,
}

/// The ways a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Finished,
    TimedOut,
    Cancelled,
    Panicked,
    Cut,
}

const WAYS: usize = 5;

/// A sum of tallies.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Requests {
    pub(super) started: u64,
    ended: [u64; WAYS],
}

impl Requests {
    pub(super) fn ended(&self, way: Way) -> u64 {
        self.ended[way as usize]
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.started - self.ended.iter().sum::<u64>()
    }

    fn add(&mut self, tally: &Tally) {
        // Ends first, with acquire: a sum never shows more ends than starts.
        for (sum, ended) in self.ended.iter_mut().zip(&tally.ended) {
            *sum += ended.load(Acquire);
        }
        self.started += tally.started.load(Relaxed);
    }
}

impl Tally {
    /// Only the connection's own task calls this.
    #[inline]
    pub(super) fn start(&self) {
        let started = self.started.load(Relaxed);
        self.started.store(started + 1, Relaxed);
    }

    #[inline]
    pub(super) fn started(&self) -> u64 {
        self.started.load(Relaxed)
    }

    /// `alone`: only the connection's own task calls this, which saves the read and write in one.
    #[inline]
    pub(super) fn end(&self, way: Way, alone: bool) {
        let ended = &self.ended[way as usize];
        if alone {
            ended.store(ended.load(Relaxed) + 1, Release);
        } else {
            ended.fetch_add(1, Release);
        }
    }
}

/// The tallies of all connections, those that have ended added up.
#[derive(Debug, Default)]
pub(super) struct Tallies(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    past: Requests,
    live: Vec<Arc<Tally>>,
}

impl Tallies {
    pub(super) fn open(&self) -> Arc<Tally> {
        let tally = Arc::new(Tally::default());
        let mut inner = self.0.lock();
        tally.place.store(inner.live.len() as u64, Relaxed);
        inner.live.push(Arc::clone(&tally));
        tally
    }

    /// Nothing of the connection is left that could count.
    pub(super) fn close(&self, tally: &Tally) {
        let mut inner = self.0.lock();
        inner.past.add(tally);
        let place = tally.place.load(Relaxed);
        let index = usize::try_from(place).unwrap_or(usize::MAX);
        inner.live.swap_remove(index);
        if let Some(moved) = inner.live.get(index) {
            moved.place.store(place, Relaxed);
        }
    }

    pub(super) fn sum(&self) -> Requests {
        let inner = self.0.lock();
        let mut sum = inner.past;
        inner.live.iter().for_each(|tally| sum.add(tally));
        sum
    }
}
