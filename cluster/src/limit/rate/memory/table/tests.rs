//! Against a map that forgets whatever has passed.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

impl Table {
    pub(in super::super) fn max_keys(&self) -> usize {
        self.max_keys
    }

    /// Every key can be found, and there are as many as it says.
    fn check(&mut self) {
        let hashes: Vec<u64> =
            self.places.iter().map(|place| place.hash).filter(|&hash| hash != 0).collect();
        assert_eq!(hashes.len(), self.keys);
        assert!(self.keys <= self.max_keys);
        assert!(self.keys <= self.places.len() / 4 * 3);
        for hash in hashes {
            assert!(self.find(hash).is_some());
        }
    }
}

proptest! {
    // Few different hashes, many of which have the same home.
    #[test]
    fn it_keeps_what_has_not_passed_and_nothing_it_was_not_given(
        max_keys in 1..40_usize,
        steps in prop::collection::vec((0..12_u64, 0..8_u64, 0..6_u64, 0..40_u64), 1..400),
    ) {
        let mut table = Table::new(max_keys);
        let mut model: HashMap<u64, u64> = HashMap::new();
        let mut now = 0;
        for (home, row, gap, life) in steps {
            now += gap;
            let hash = home | row << 32;
            let arrival = now + life;
            // The hashes 0 and 1 are one key.
            let key = hash.max(1);
            match table.find(hash) {
                Some(kept) => {
                    prop_assert_eq!(Some(&*kept), model.get(&key));
                    *kept = arrival;
                    model.insert(key, arrival);
                }
                None => {
                    prop_assert!(model.get(&key).is_none_or(|&arrival| arrival <= now));
                    match table.insert(hash, arrival, now) {
                        Ok(()) => {
                            model.insert(key, arrival);
                        }
                        // So small a table is looked through as a whole.
                        Err(Full) => {
                            let alive = model.iter().filter(|&(other, &arrival)| {
                                *other != key && arrival > now
                            });
                            prop_assert_eq!(alive.count(), max_keys);
                        }
                    }
                }
            }
            table.check();
        }
    }
}

#[test]
fn it_forgets_as_fast_as_new_keys_come() {
    const LIFE: u64 = 1_000;
    let mut table = Table::new(100_000);
    let mut most = 0;
    for now in 0..200_000_u64 {
        let hash = now.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        if table.find(hash).is_none() {
            table.insert(hash, now + LIFE, now).expect("there is room");
        }
        most = most.max(table.keys());
    }
    // A thousand are in use at each moment.
    assert!(most <= 3 * LIFE as usize, "{most} keys");
    assert!(table.places.len() <= 4 * most);
    assert_eq!(table.forgotten() + table.keys() as u64, 200_000);
}

#[test]
fn a_full_table_takes_a_new_key_as_soon_as_one_has_passed() {
    let mut table = Table::new(40);
    for key in 1..=40 {
        table.insert(key, 10 + key, 0).expect("there is room");
    }
    assert_eq!(table.insert(41, 100, 10), Err(Full));
    table.insert(41, 100, 11).expect("the first has passed");
    assert_eq!(table.find(1), None);
    assert_eq!(table.insert(42, 100, 11), Err(Full));
    assert_eq!(table.keys(), 40);
}
