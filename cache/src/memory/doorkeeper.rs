//! Which keys were asked for of late: what a full memory wants to know before it takes in a copy
//! that it may never be asked for again.
//!
//! The keys last asked for stand in short queues of fingerprints, four in each word; a new one
//! pushes the oldest of its queue out, so they age by what is asked, without a clock and without a
//! sweep. It is the first question that TinyLFU's doorkeeper answers (Einziger, Friedman, Manes,
//! ACM Transactions on Storage 2017) and the ghost queue of S3-FIFO, for two bytes a key.
//!
//! About as many keys are remembered as memory holds, as in S3-FIFO (Yang et al., SOSP 2023). More of
//! them let in more of what is never asked for again, and to take in costs more than the find itself.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Fingerprints in one word.
const LANES: u64 = 4;

/// Words of the smallest memory, 512 bytes, and of the largest, 16 MiB.
const WORDS: (u64, u64) = (64, 1 << 21);

/// How many times as much memory must hold for its measure to be taken anew. What was remembered is
/// lost by that, and the old queues stay allocated; together they are a third of the new ones at most.
const GROWTH: u64 = 4;

/// As often as it can grow from the smallest to the largest, and the first time.
const MEASURES: usize = 8;

/// One new key in so many has a look at how much memory holds.
const LOOK: u32 = 256;

type Queues = Box<[AtomicU64]>;

/// The keys of late. Nothing is allocated before the first of them.
#[derive(Debug, Default)]
pub(super) struct Doorkeeper {
    /// By measure; the current one is the last that is there.
    queues: [OnceLock<Queues>; MEASURES],
    current: AtomicUsize,
}

impl Doorkeeper {
    /// Whether the key of this hash was asked for of late; from now on it was. The first
    /// call takes what memory holds by then, `entries`, for its measure; later ones take it anew when
    /// that has grown a lot, as when a few large values have made way for many small ones.
    ///
    /// A key never asked for passes for another once in some 16,000 times, which costs an entry
    /// its place and is never wrong.
    pub(super) fn knows(&self, hash: u64, entries: impl FnOnce() -> u64) -> bool {
        let current = self.current.load(Ordering::Acquire);
        let Some(queues) = self.queues[current].get() else {
            let queues = self.queues[current].get_or_init(|| empty(words(entries())));
            return knows(queues, hash);
        };
        let known = knows(queues, hash);
        if !known && fastrand::u32(..LOOK) == 0 {
            self.measure(current, queues.len() as u64, entries());
        }
        known
    }

    #[cold]
    fn measure(&self, current: usize, old: u64, entries: u64) {
        let words = words(entries);
        if words < old.saturating_mul(GROWTH) {
            return;
        }
        // There is one: each measure is `GROWTH` times the one before.
        let Some(next) = self.queues.get(current + 1) else { return };
        next.get_or_init(|| empty(words));
        // Another thread may have gone further.
        self.current.fetch_max(current + 1, Ordering::AcqRel);
    }
}

fn words(entries: u64) -> u64 {
    (entries / LANES).clamp(WORDS.0, WORDS.1)
}

fn empty(words: u64) -> Queues {
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

fn knows(queues: &[AtomicU64], hash: u64) -> bool {
    // The top bits choose the queue, the low ones are the fingerprint.
    let at = (u128::from(hash) * queues.len() as u128) >> 64;
    // An empty lane is zero.
    let fingerprint = (hash & 0xffff).max(1);
    let push = |queue: u64| (!holds(queue, fingerprint)).then_some(queue << 16 | fingerprint);
    queues[at as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, push).is_err()
}

fn holds(queue: u64, fingerprint: u64) -> bool {
    (0..LANES).any(|lane| (queue >> (16 * lane)) & 0xffff == fingerprint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: u64) -> u64 {
        ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(key)
    }

    #[test]
    fn a_key_is_known_from_the_second_time_on() {
        let door = Doorkeeper::default();
        for key in 0..200 {
            assert!(!door.knows(hash(key), || 100), "{key} was never asked for");
            assert!(door.knows(hash(key), || 100));
            assert!(door.knows(hash(key), || 100));
        }
    }

    #[test]
    fn a_key_outlasts_a_quarter_of_the_entries_and_not_ten_times_as_many() {
        let door = Doorkeeper::default();
        let entries = 1_200;
        let known = |from: u64, to: u64| {
            (from..to).filter(|key| door.knows(hash(*key), || entries)).count()
        };
        assert!(known(0, entries / 4) < 10);
        assert!(known(10 * entries, 10 * entries + entries / 4) < 10, "one-hit wonders");
        let still = known(0, entries / 4);
        assert!(still > 225, "{still} of 300");
        assert!(known(20 * entries, 30 * entries) < 100);
        assert!(known(0, entries / 4) < 10, "long forgotten");
    }

    #[test]
    fn it_is_bounded_however_much_memory_holds() {
        for (entries, words) in [(0, 64), (1, 64), (1_000, 250), (u64::MAX, 1 << 21)] {
            let door = Doorkeeper::default();
            door.knows(7, || entries);
            assert_eq!(lengths(&door), [words]);
        }
    }

    fn lengths(door: &Doorkeeper) -> Vec<usize> {
        door.queues.iter().filter_map(OnceLock::get).map(|queues| queues.len()).collect()
    }

    #[test]
    fn it_grows_with_what_memory_holds_and_no_further_than_its_bound() {
        let door = Doorkeeper::default();
        let entries = 10_000;
        let known = |keys: std::ops::Range<u64>, entries: u64| {
            keys.filter(|key| door.knows(hash(*key), || entries)).count()
        };
        // A few large values, and then many small ones.
        known(0..100, 10);
        assert_eq!(lengths(&door), [64]);
        known(1_000_000..1_010_000, 10);
        known(2_000_000..2_010_000, 1_020);
        assert_eq!(lengths(&door), [64], "less than four times as many words");
        known(3_000_000..3_010_000, entries);
        assert_eq!(lengths(&door), [64, 2_500], "one in 256 of them looked");
        known(0..entries / 3, entries);
        assert!(known(0..entries / 3, entries) > 3_000, "as if it had been so from the beginning");
        let mut new = 4_000_000;
        for entries in [40_000, 160_000, 640_000, 2_560_000, u64::MAX, u64::MAX] {
            known(new..new + 10_000, entries);
            new += 10_000;
        }
        assert_eq!(lengths(&door), [64, 2_500, 10_000, 40_000, 160_000, 640_000], "and no further");
        let steps = Doorkeeper::default();
        for step in 0..20 {
            let entries = (260_u64 << (2 * step)).min(1 << 40);
            for key in step * 10_000..(step + 1) * 10_000 {
                steps.knows(hash(key), || entries);
            }
        }
        let lengths = lengths(&steps);
        assert!(lengths.len() <= MEASURES && lengths.last().is_some_and(|last| *last <= 1 << 21));
    }

    #[test]
    fn threads_that_meet_at_one_queue_lose_no_key() {
        let door = Doorkeeper::default();
        // Three keys of one queue, each pushed by a thread of its own.
        std::thread::scope(|scope| {
            for key in 1..=3_u64 {
                let door = &door;
                scope.spawn(move || assert!(!door.knows(key, || 0)));
            }
        });
        for key in 1..=3_u64 {
            assert!(door.knows(key, || 0), "{key}");
        }
    }
}
