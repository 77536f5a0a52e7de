//! What Redis has refused until a time, so that it is refused until then without asking again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::units::Units;

/// Keys are spread over this many locks.
const SHARDS: usize = 16;

/// Refusals by key; when it is full, and none is over, a further one is not remembered, which
/// costs a round trip and no more.
pub(super) struct Denials {
    shards: [Mutex<Shard>; SHARDS],
    /// Remembered in all shards: while there is none, nobody takes a lock.
    len: AtomicUsize,
    most: usize,
    hasher: RandomState,
}

type Shard = HashMap<Box<str>, Denial, RandomState>;

/// What Redis has refused, and what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Denial {
    /// By which quota it was refused; by another one it may fit.
    pub(super) units: Units,
    /// Units that were refused; less may fit.
    pub(super) cost: u32,
    /// When they fit.
    pub(super) fits: Instant,
    /// When the burst is whole again.
    pub(super) whole: Instant,
    /// Units that would have fitted.
    pub(super) remaining: u32,
    /// Until when this is believed: no longer than it takes to fit.
    pub(super) until: Instant,
}

impl Denials {
    /// Remembers at most `most`, rounded up to a multiple of the number of shards.
    pub(super) fn new(most: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            len: AtomicUsize::new(0),
            most: most.div_ceil(SHARDS),
            hasher: RandomState::new(),
        }
    }

    /// Remembers what was refused, unless that is over already.
    pub(super) fn insert(&self, key: &str, denial: Denial, now: Instant) {
        if self.most == 0 || denial.until <= now {
            return;
        }
        self.change(key, |shard, most| {
            if shard.len() >= most && !shard.contains_key(key) {
                shard.retain(|_, denial| denial.until > now);
            }
            if shard.len() < most || shard.contains_key(key) {
                shard.insert(key.into(), denial);
            }
        });
    }

    /// What is known to be refused still, by this quota.
    pub(super) fn get(&self, key: &str, cost: u32, units: Units, now: Instant) -> Option<Denial> {
        if self.is_empty() {
            return None;
        }
        let denial = self.shard(key).lock().get(key).copied()?;
        if denial.until <= now {
            self.remove(key);
            return None;
        }
        (cost >= denial.cost && units == denial.units).then_some(denial)
    }

    /// Forgets a key, because Redis may allow it by now.
    pub(super) fn remove(&self, key: &str) {
        if !self.is_empty() {
            self.change(key, |shard, _| _ = shard.remove(key));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn change(&self, key: &str, change: impl FnOnce(&mut Shard, usize)) {
        let mut shard = self.shard(key).lock();
        let before = shard.len();
        change(&mut shard, self.most);
        let after = shard.len();
        if after > before {
            self.len.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.len.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    fn shard(&self, key: &str) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn denial(cost: u32, until: Instant) -> Denial {
        Denial { units: units(2), cost, fits: until, whole: until, remaining: 0, until }
    }

    fn units(burst: u32) -> Units {
        Units::new(1, SECOND, burst)
    }

    impl Denials {
        fn known(&self, key: &str, cost: u32, now: Instant) -> Option<Denial> {
            self.get(key, cost, units(2), now)
        }
    }

    #[test]
    fn a_refusal_says_nothing_about_another_quota() {
        let (denials, now) = (Denials::new(100), Instant::now());
        let refused = denial(1, now + SECOND);
        denials.insert("a", refused, now);
        assert_eq!(denials.get("a", 1, units(3), now), None);
        assert_eq!(denials.get("a", 1, Units::new(3, SECOND, 2), now), None);
        assert_eq!(denials.get("a", 1, units(2), now), Some(refused));
    }

    #[test]
    fn a_refusal_ends_at_its_time_and_is_for_this_cost_and_more() {
        let (denials, now) = (Denials::new(100), Instant::now());
        assert_eq!(denials.known("a", 1, now), None);
        let refused = denial(2, now + SECOND);
        denials.insert("a", refused, now);
        assert_eq!(denials.known("a", 2, now), Some(refused));
        assert_eq!(denials.known("a", 3, now + SECOND / 4), Some(refused));
        assert_eq!(denials.known("a", 1, now), None, "less may fit");
        assert_eq!(denials.known("b", 2, now), None);
        assert_eq!(denials.known("a", 2, now + SECOND), None);
        assert_eq!(denials.len(), 0, "what is over is forgotten when it is asked for");
        denials.insert("a", denial(1, now), now);
        assert!(denials.is_empty(), "over before it began");
    }

    #[test]
    fn what_was_given_back_is_forgotten() {
        let (denials, now) = (Denials::new(100), Instant::now());
        denials.insert("a", denial(1, now + SECOND), now);
        denials.remove("a");
        denials.remove("a");
        assert_eq!((denials.known("a", 1, now), denials.len()), (None, 0));
    }

    #[test]
    fn it_is_bounded_and_makes_room_of_what_is_over() {
        let (denials, now) = (Denials::new(160), Instant::now());
        for key in 0..10_000 {
            denials.insert(&key.to_string(), denial(1, now + SECOND), now);
        }
        assert_eq!(denials.len(), 160);
        let later = now + SECOND;
        for key in 10_000..20_000 {
            denials.insert(&key.to_string(), denial(1, later + SECOND), later);
        }
        assert_eq!(denials.len(), 160);
        let kept = |key: &i32| denials.known(&key.to_string(), 1, later).is_some();
        assert_eq!((10_000..20_000).filter(kept).count(), 160);
    }

    #[test]
    fn with_no_room_nothing_is_remembered() {
        let (denials, now) = (Denials::new(0), Instant::now());
        denials.insert("a", denial(1, now + SECOND), now);
        assert_eq!(denials.known("a", 1, now), None);
    }
}
