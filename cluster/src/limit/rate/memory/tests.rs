//! Many keys: they are all told apart, stay within the bound, and are forgotten when that changes
//! nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;

use super::super::Decision;
use super::*;

const SECOND: u64 = 1_000_000_000;

fn buckets(quota: Quota, max_keys: usize) -> Buckets {
    Buckets::new(quota, max_keys, Overflow::Share)
}

/// Hashes as good as those of keys.
fn hash(key: u64) -> u64 {
    ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(key)
}

fn take(buckets: &Buckets, key: u64, now: u64) -> Decision {
    let (taken, rate) = buckets.take(hash(key), 1, &mut Moment::at(now));
    taken.decision(rate)
}

fn allows(buckets: &Buckets, key: u64, now: u64) -> bool {
    take(buckets, key, now).is_allowed()
}

#[test]
fn the_shards_together_have_room_for_just_the_keys_that_were_asked_for() {
    for max_keys in [1, 2, 63, 64, 65, 1_000, 4_095, 4_097, 100_000, 1_000_001] {
        let buckets = buckets(Quota::per_second(1), max_keys);
        let room: usize =
            buckets.shards.iter().map(|shard| shard.state.lock().table.max_keys()).sum();
        assert_eq!(room, max_keys);
        assert!(buckets.shards.len().is_power_of_two());
    }
}

proptest! {
    #[test]
    fn what_is_forgotten_is_missed_by_no_decision(
        steps in prop::collection::vec((0..300_u64, 1..4_u32, 0..400_u64), 1..1_500),
    ) {
        let quota = Quota::per(3, std::time::Duration::from_millis(300)).burst(4);
        let buckets = buckets(quota, 4_096);
        let rate = Rate::new(quota);
        let mut all: HashMap<u64, u64> = HashMap::new();
        let mut now = 0;
        for (key, cost, millis) in steps {
            now += millis * 50_000;
            let (taken, _) = buckets.take(hash(key), cost, &mut Moment::at(now));
            let arrival = all.entry(key).or_default();
            let expected = rate.take(*arrival, now, cost);
            prop_assert_eq!(taken.decision(rate), rate.decision(expected));
            if expected.allowed {
                *arrival = expected.arrival(now);
            }
        }
        let counts = buckets.counts();
        let alive = all.values().filter(|&&arrival| arrival > now).count() as u64;
        prop_assert!(counts.keys >= alive);
        prop_assert_eq!(counts.overflow, 0);
    }
}

#[test]
fn a_million_keys_stay_within_the_bound_and_the_memory_flat() {
    const KEYS: u64 = 1_000_000;
    const BOUND: u64 = 100_000;
    let mut buckets = None;
    // All of them within a second, and each is in use for six: only the bound can hold them.
    let flood = |buckets: &Buckets, from: u64, start: u64| {
        for key in from..from + KEYS {
            take(buckets, key, start + key * 1_000);
        }
    };
    let first = allocation_counter::measure(|| {
        let new = buckets.insert(self::buckets(Quota::per_minute(10).burst(100), BOUND as usize));
        // A key that is used up before the flood is so after it.
        for _ in 0..100 {
            assert!(allows(new, u64::MAX, 0));
        }
        flood(new, 0, 0);
        assert!(!allows(new, u64::MAX, SECOND));
    });
    let buckets = buckets.expect("made");
    let counts = buckets.counts();
    assert!(counts.keys <= BOUND);
    assert!(counts.keys > BOUND / 10 * 9, "the bound is made use of: {}", counts.keys);
    assert_eq!(counts.allowed + counts.limited, KEYS + 101);
    assert!(counts.overflow > KEYS / 2);
    // 16 bytes a key in tables at least three eighths full, and half a table more while one grows.
    assert!(first.bytes_max < BOUND * 44, "{} bytes", first.bytes_max);

    // Another million, later: the first ones make room, and no byte is allocated.
    let second = allocation_counter::measure(|| flood(&buckets, KEYS, 100 * SECOND));
    assert_eq!(second.count_total, 0);
    let later = buckets.counts();
    assert!(later.keys <= BOUND);
    assert!(later.evicted > BOUND / 2);
}

#[test]
fn keys_that_come_and_go_never_fill_it() {
    let buckets = buckets(Quota::per_second(10), 10_000);
    // A thousand new keys in each tenth of a second, each of which is full again after one.
    for key in 0..1_000_000 {
        assert!(allows(&buckets, key, key * SECOND / 10_000));
    }
    let counts = buckets.counts();
    assert_eq!((counts.overflow, counts.limited), (0, 0));
    assert!(counts.keys < 4_000, "{} keys", counts.keys);
}

#[test]
fn keys_without_room_get_what_the_limit_says() {
    for (overflow, expected) in [
        (Overflow::Share, [true, true, false, false]),
        (Overflow::Allow, [true, true, true, true]),
        (Overflow::Reject, [false, false, false, false]),
    ] {
        let buckets = Buckets::new(Quota::per_minute(2), 10, overflow);
        for key in 0..10 {
            assert!(allows(&buckets, key, 0));
        }
        let strangers = [10, 11, 12, 13].map(|key| allows(&buckets, key, 0));
        assert_eq!(strangers, expected, "{overflow:?}");
        // Who is known is not touched by that.
        assert!(allows(&buckets, 3, 0));
        assert!(!allows(&buckets, 3, 0));
        let counts = buckets.counts();
        assert_eq!((counts.keys, counts.overflow), (10, 4));
        // Room comes with time.
        assert!(allows(&buckets, 14, 61 * SECOND));
        assert_eq!(buckets.counts().overflow, 4);
    }
}

#[test]
fn what_was_taken_from_the_shared_bucket_goes_back_there() {
    let buckets = buckets(Quota::per_minute(1), 1);
    assert!(allows(&buckets, 0, 0));
    let (taken, _) = buckets.take(hash(1), 1, &mut Moment::at(0));
    assert!(taken.is_allowed());
    assert!(!allows(&buckets, 2, 0));
    buckets.give_back(&taken, Moment::at(0));
    assert!(allows(&buckets, 2, 0));
    assert!(!allows(&buckets, 0, 0));
}

#[test]
fn a_refund_for_a_key_that_was_forgotten_changes_nothing() {
    let buckets = buckets(Quota::per_second(1), 1);
    let (taken, _) = buckets.take(hash(1), 1, &mut Moment::at(0));
    assert!(allows(&buckets, 2, 2 * SECOND), "the first has made room");
    buckets.give_back(&taken, Moment::at(2 * SECOND));
    assert!(!allows(&buckets, 2, 2 * SECOND));
    assert_eq!(buckets.counts().refunded, 1);
}

#[test]
fn a_new_quota_holds_at_once_and_keeps_what_was_used() {
    let buckets = buckets(Quota::per_minute(10), 100);
    for _ in 0..6 {
        assert!(allows(&buckets, 1, 0));
    }
    buckets.set_quota(Quota::per_hour(8), Moment::at(0));
    assert_eq!(take(&buckets, 1, 0).remaining(), 1);
    buckets.set_quota(Quota::per_second(3), Moment::at(0));
    // Seven used of three: none is left, and one comes back in a third of a second.
    assert!(!allows(&buckets, 1, 0));
    assert!(allows(&buckets, 1, SECOND / 2));
    assert_eq!(take(&buckets, 2, 0).remaining(), 2);
}

#[test]
fn threads_together_get_no_more_than_one_would() {
    const KEYS: u64 = 4;
    let quota = Quota::per(50, std::time::Duration::from_millis(10)).burst(100);
    let buckets = buckets(quota, 1_000);
    let start = Moment::exact().nanos();
    let over = AtomicBool::new(false);
    let workers = |seed: u64| {
        let mut kept = [0_u64; KEYS as usize];
        let mut random = fastrand::Rng::with_seed(seed);
        while !over.load(Ordering::Relaxed) {
            let key = random.u64(0..KEYS);
            let (taken, _) = buckets.take(hash(key), 1, &mut Moment::recent());
            if !taken.is_allowed() {
                continue;
            }
            // What is given back at once is as if it had never been taken.
            if random.bool() {
                buckets.give_back(&taken, Moment::recent());
            } else {
                kept[key as usize] += 1;
            }
        }
        kept
    };
    let kept = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|seed| scope.spawn(move || workers(seed))).collect();
        thread::sleep(std::time::Duration::from_millis(200));
        over.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    let time = Moment::exact().nanos() - start;
    // A tick of the kernel is 10 ms at most.
    let most = 100 + (time + 10_000_000) / (SECOND / 5_000) + 1;
    for key in 0..KEYS as usize {
        let units: u64 = kept.iter().map(|kept| kept[key]).sum();
        assert!(units <= most, "{units} units in {time} ns");
        assert!(units >= 100, "the burst at least: {units}");
    }
    let counts = buckets.counts();
    let total: u64 = kept.iter().flatten().sum();
    assert_eq!(counts.allowed - counts.refunded, total);
}
