//! Which keys were asked for of late: what a full memory wants to know before it takes in a copy
//! that it may never be asked for again.
//!
//! The keys last asked for stand in short queues of fingerprints, four in each word; a new one
//! pushes the oldest of its queue out, so they age by what is asked, without a clock and without a
//! sweep. It is the first question that TinyLFU's doorkeeper answers (Einziger, Friedman, Manes,
//! ACM Transactions on Storage 2017) and the ghost queue of S3-FIFO, for two bytes a key.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Keys remembered for each that memory holds: the sample that TinyLFU counts over.
const SAMPLE: u64 = 10;

/// Fingerprints in one word.
const LANES: u64 = 4;

/// Words of the smallest memory, 512 bytes, and of the largest, 16 MiB.
const WORDS: (u64, u64) = (64, 1 << 21);

/// The keys of late. Nothing is allocated before the first of them.
#[derive(Debug, Default)]
pub(super) struct Doorkeeper {
    queues: OnceLock<Box<[AtomicU64]>>,
}

impl Doorkeeper {
    /// Whether the key of this hash was asked for of late; from now on it was. The first
    /// call takes what memory holds by then, `entries`, for its measure.
    ///
    /// A key never asked for passes for another once in some 16,000 times, which costs an entry
    /// its place and is never wrong.
    pub(super) fn knows(&self, hash: u64, entries: impl FnOnce() -> u64) -> bool {
        let queues = self.queues.get_or_init(|| {
            let words = (entries().saturating_mul(SAMPLE) / LANES).clamp(WORDS.0, WORDS.1);
            (0..words).map(|_| AtomicU64::new(0)).collect()
        });
        // The top bits choose the queue, the low ones are the fingerprint.
        let at = (u128::from(hash) * queues.len() as u128) >> 64;
        // An empty lane is zero.
        let fingerprint = (hash & 0xffff).max(1);
        let push = |queue: u64| (!holds(queue, fingerprint)).then_some(queue << 16 | fingerprint);
        queues[at as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, push).is_err()
    }
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
    fn a_key_outlasts_three_times_the_entries_and_not_a_hundred_times() {
        let door = Doorkeeper::default();
        let entries = 1_000;
        let known =
            |from: u64, to: u64| (from..to).filter(|key| door.knows(hash(*key), || entries));
        assert!(known(0, entries).count() < 10);
        assert!(known(10 * entries, 13 * entries).count() < 10, "one-hit wonders");
        assert!(known(0, entries).count() > 900);
        assert!(known(20 * entries, 120 * entries).count() < 1_000);
        assert!(known(0, entries).count() < 10, "long forgotten");
    }

    #[test]
    fn it_is_bounded_however_much_memory_holds() {
        for (entries, words) in [(0, 64), (1, 64), (1_000, 2_500), (u64::MAX, 1 << 21)] {
            let door = Doorkeeper::default();
            door.knows(7, || entries);
            assert_eq!(door.queues.get().map(|queues| queues.len()), Some(words));
        }
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
