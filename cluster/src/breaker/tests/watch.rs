//! The ring against a list of all calls under way.

use proptest::prelude::*;

use super::super::watch::{Place, Scale, Watch};

const SLOW: u64 = 800;
const QUANTUM: u64 = 100;

fn model(calls: &[(u64, Place)], now: u64) -> i64 {
    let late = calls.iter().filter(|(since, _)| now / QUANTUM - since / QUANTUM >= 9);
    i64::try_from(late.count()).expect("few")
}

proptest! {
    #[test]
    fn it_equals_a_list_of_the_calls_under_way(
        start in 0_u64..200_000_000,
        steps in prop::collection::vec((0_u64..400, prop::option::of(0_usize..40)), 1..400),
    ) {
        let (watch, scale) = (Watch::default(), Scale::new(7, 0, SLOW));
        let (mut now, mut calls) = (start, Vec::<(u64, Place)>::new());
        for (wait, end) in steps {
            // Mostly within a tick, and sometimes beyond the ring.
            now += if wait < 390 { wait.saturating_sub(200) } else { wait * 10 };
            match end {
                Some(back) if back < calls.len() => watch.leave(calls.swap_remove(back).1),
                _ => calls.push((now, watch.enter(scale, now).expect("room"))),
            }
            prop_assert_eq!(watch.too_slow(scale, now), model(&calls, now));
            prop_assert_eq!(watch.too_slow(scale, now + 500), model(&calls, now + 500));
        }
    }
}

#[test]
fn calls_of_an_earlier_period_are_neither_counted_nor_in_the_way() {
    let watch = Watch::default();
    let (before, after) = (Scale::new(1, 0, SLOW), Scale::new(2, 0, SLOW));
    let hung = watch.enter(before, 0).expect("room");
    assert_eq!(watch.too_slow(before, 900), 1);
    assert_eq!(watch.too_slow(after, 900), 0);
    // It takes the slot of the one before, which then ends, and one of before comes late.
    let late = watch.enter(after, 0).expect("room");
    watch.leave(hung);
    assert_eq!(watch.enter(before, 0), None);
    assert_eq!(watch.too_slow(after, 900), 1);
    watch.leave(late);
    assert_eq!(watch.too_slow(after, 900), 0);
}

#[test]
fn another_quantum_is_another_period() {
    let (watch, epoch) = (Watch::default(), u64::from(u32::MAX));
    let hung = watch.enter(Scale::new(epoch, 1, SLOW), 50_000).expect("room");
    let scale = Scale::new(epoch, 2, 8 * SLOW);
    let call = watch.enter(scale, 50_000).expect("room");
    assert_eq!(watch.too_slow(scale, 50_000 + 7_200), 1);
    watch.leave(hung);
    watch.leave(call);
    assert_eq!(watch.too_slow(scale, 50_000 + 7_200), 0);
}

#[test]
fn a_call_that_comes_a_ring_late_does_not_age_the_others() {
    let (watch, scale) = (Watch::default(), Scale::new(0, 0, SLOW));
    let young = watch.enter(scale, 1_600).expect("room");
    let old = watch.enter(scale, 0).expect("room");
    assert_eq!(watch.too_slow(scale, 1_600), 1);
    watch.leave(old);
    assert_eq!(watch.too_slow(scale, 1_600), 0);
    watch.leave(young);
    assert_eq!(watch.too_slow(scale, 9_000), 0);
}

#[test]
fn a_full_slot_leaves_the_rest_unwatched() {
    let (watch, scale) = (Watch::default(), Scale::new(0, 0, SLOW));
    let places: Vec<_> = (0..70_000).filter_map(|_| watch.enter(scale, 0)).collect();
    assert_eq!(places.len(), 65_535);
    assert_eq!(watch.too_slow(scale, 900), 65_535);
    places.into_iter().for_each(|place| watch.leave(place));
    assert_eq!(watch.too_slow(scale, 900), 0);
}
