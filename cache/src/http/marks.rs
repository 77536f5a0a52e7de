//! Hit-for-miss: keys whose answers are known not to be shared, so that nobody queues for them.
//!
//! A fixed table of hashes without a lock. That two keys share a place is harmless: one of them
//! is not collapsed for a while, or is collapsed once in vain.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ahash::RandomState;
use tokio::time::Instant;

/// 32 KiB: two thousand keys marked at once seldom meet.
const PLACES: usize = 4_096;

pub(crate) struct Marks {
    /// High half: part of the hash. Low half: the second, counted from `start`, it ends at.
    places: Box<[AtomicU64]>,
    hasher: RandomState,
    start: Instant,
}

impl Marks {
    pub(crate) fn new(now: Instant) -> Self {
        let places = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { places, hasher: RandomState::new(), start: now }
    }

    /// Marks `key` for `life`.
    pub(crate) fn set(&self, key: &str, now: Instant, life: Duration) {
        let (place, tag) = self.place(key);
        // Rounded up, so that a short life is not none.
        let end = self.second(now).saturating_add(life.as_secs().max(1));
        place.store(tag | end.min(u64::from(u32::MAX)), Ordering::Relaxed);
    }

    /// Takes the mark of `key` off: an answer to it has been stored.
    pub(crate) fn clear(&self, key: &str) {
        let (place, tag) = self.place(key);
        let held = place.load(Ordering::Relaxed);
        if held & TAG == tag && held != 0 {
            // If another took the place meanwhile, it stays theirs.
            place.compare_exchange(held, 0, Ordering::Relaxed, Ordering::Relaxed).ok();
        }
    }

    /// Whether `key` is marked.
    pub(crate) fn is_set(&self, key: &str, now: Instant) -> bool {
        let (place, tag) = self.place(key);
        let held = place.load(Ordering::Relaxed);
        held & TAG == tag && held & !TAG > self.second(now)
    }

    fn place(&self, key: &str) -> (&AtomicU64, u64) {
        let hash = self.hasher.hash_one(key);
        let at = usize::try_from(hash % PLACES as u64).unwrap_or(0);
        (&self.places[at], hash & TAG)
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs()
    }
}

const TAG: u64 = !(u32::MAX as u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_mark_lasts_its_time_and_can_be_taken_off() {
        let start = Instant::now();
        let marks = Marks::new(start);
        let life = Duration::from_secs(120);
        assert!(!marks.is_set("a", start));
        marks.set("a", start, life);
        assert!(marks.is_set("a", start));
        assert!(!marks.is_set("b", start));
        assert!(marks.is_set("a", start + Duration::from_secs(119)));
        assert!(!marks.is_set("a", start + life));
        marks.set("a", start, life);
        marks.clear("b");
        assert!(marks.is_set("a", start));
        marks.clear("a");
        assert!(!marks.is_set("a", start));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_marks_takes_no_more_room() {
        let start = Instant::now();
        let marks = Marks::new(start);
        for key in 0..100_000 {
            marks.set(&key.to_string(), start, Duration::from_secs(1));
        }
        assert_eq!(marks.places.len(), PLACES);
        assert!(marks.is_set("99999", start), "the last one has its place");
    }
}
