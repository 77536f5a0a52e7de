//! A bounded table of arrival times by key hash, which forgets keys whose bucket is full again.
//!
//! Linear probing in one array of pairs: a known key is found in one or two cache lines, and
//! nothing is allocated for it. Forgetting a key whose arrival time has passed changes no decision,
//! since it is what an unknown key starts with. So each new key looks at a few places, in a round,
//! and forgets what has passed there: no pause, no task in the background.

/// Places looked at for each new key. The round is faster than the table can fill: with four, each
/// place comes by before a quarter of the table is new.
const LOOKED_AT: usize = 4;

/// Places looked at when there is no room otherwise. A cap on the time one request may lose to it:
/// sixteen cache lines.
const LOOKED_AT_WHEN_FULL: usize = 64;

/// Places a table starts with.
const SMALLEST: usize = 16;

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// 0 where no key is.
    hash: u64,
    arrival: u64,
}

#[derive(Debug)]
pub(super) struct Table {
    /// A power of two of them, at most three quarters taken.
    places: Box<[Place]>,
    keys: usize,
    max_keys: usize,
    /// Where the round stands.
    round: usize,
    forgotten: u64,
}

/// There is no room for another key: all of them are in use, as far as one may look.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Table {
    pub(super) fn new(max_keys: usize) -> Self {
        Self {
            places: vec![Place::default(); SMALLEST].into_boxed_slice(),
            keys: 0,
            max_keys,
            round: 0,
            forgotten: 0,
        }
    }

    pub(super) fn keys(&self) -> usize {
        self.keys
    }

    /// Keys forgotten so far.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The arrival time of a known key.
    #[inline]
    pub(super) fn find(&mut self, hash: u64) -> Option<&mut u64> {
        let at = self.place_of(hash);
        let place = &mut self.places[at];
        (place.hash != 0).then_some(&mut place.arrival)
    }

    /// Keeps the arrival time of a key that is not known yet.
    pub(super) fn insert(&mut self, hash: u64, arrival: u64, now: u64) -> Result<(), Full> {
        self.forget_some(now, LOOKED_AT, usize::MAX);
        if self.keys >= self.max_keys {
            self.forget_some(now, LOOKED_AT_WHEN_FULL, 1);
            if self.keys >= self.max_keys {
                return Err(Full);
            }
        }
        if self.keys + 1 > self.places.len() / 4 * 3 {
            self.grow(now);
        }
        self.put(Place { hash: nonzero(hash), arrival });
        Ok(())
    }

    /// Replaces each arrival time.
    pub(super) fn change_all(&mut self, change: impl Fn(u64) -> u64) {
        for place in &mut self.places {
            place.arrival = change(place.arrival);
        }
    }

    fn put(&mut self, place: Place) {
        let at = self.place_of(place.hash);
        self.places[at] = place;
        self.keys += 1;
    }

    /// Where the key is, or the free place where it belongs. There is always a free one.
    #[inline]
    fn place_of(&self, hash: u64) -> usize {
        let hash = nonzero(hash);
        let mut at = self.home(hash);
        while self.places[at].hash != hash && self.places[at].hash != 0 {
            at = self.after(at);
        }
        at
    }

    /// The low bits choose the place; the high ones have chosen the shard.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.places.len() - 1)
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
    }

    /// Looks at the next places of the round, until it has forgotten `enough`.
    fn forget_some(&mut self, now: u64, places: usize, enough: usize) {
        let before = self.forgotten;
        for _ in 0..places.min(self.places.len()) {
            // Another key may move up into the place.
            while self.places[self.round].hash != 0 && self.places[self.round].arrival <= now {
                self.remove(self.round);
                self.forgotten += 1;
            }
            self.round = self.after(self.round);
            if self.forgotten - before >= enough as u64 {
                return;
            }
        }
    }

    /// Closes the gap by moving up those behind it that may stand there, so that no key becomes
    /// unreachable.
    fn remove(&mut self, mut gap: usize) {
        let mask = self.places.len() - 1;
        let mut at = gap;
        loop {
            at = self.after(at);
            let place = self.places[at];
            if place.hash == 0 {
                break;
            }
            let from_home = at.wrapping_sub(self.home(place.hash)) & mask;
            let from_gap = at.wrapping_sub(gap) & mask;
            if from_home >= from_gap {
                self.places[gap] = place;
                gap = at;
            }
        }
        self.places[gap] = Place::default();
        self.keys -= 1;
    }

    /// Doubles the array, without the keys that have passed.
    fn grow(&mut self, now: u64) {
        let larger = vec![Place::default(); self.places.len() * 2].into_boxed_slice();
        let places = std::mem::replace(&mut self.places, larger);
        self.keys = 0;
        self.round = 0;
        for place in places.into_iter().filter(|place| place.hash != 0) {
            if place.arrival > now {
                self.put(place);
            } else {
                self.forgotten += 1;
            }
        }
    }
}

/// The hash 0 is kept for free places.
fn nonzero(hash: u64) -> u64 {
    hash.max(1)
}

#[cfg(test)]
mod tests;
