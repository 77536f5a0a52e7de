//! The ring of calls under way while its slots are taken over.

use std::sync::Arc;

use loom::thread;

use super::watch::{Scale, Watch};

/// Ticks of 100.
fn scale(epoch: u64) -> Scale {
    Scale::new(epoch, 0, 800)
}

#[test]
fn a_call_that_ends_as_its_slot_is_taken_is_counted_nowhere_any_more() {
    loom::model(|| {
        let watch = Arc::new(Watch::default());
        let old = watch.enter(scale(0), 0).expect("room");
        let theirs = Arc::clone(&watch);
        let leaves = thread::spawn(move || theirs.leave(old));
        let young = watch.enter(scale(0), 1_600).expect("room");
        leaves.join().expect("left");
        assert_eq!(watch.too_slow(scale(0), 1_600), 0);
        assert_eq!(watch.too_slow(scale(0), 2_500), 1);
        watch.leave(young);
        assert_eq!(watch.too_slow(scale(0), 2_500), 0);
    });
}

#[test]
fn whoever_reads_never_sees_a_call_twice() {
    loom::model(|| {
        let watch = Arc::new(Watch::default());
        let old = watch.enter(scale(0), 0).expect("room");
        let theirs = Arc::clone(&watch);
        let reads = thread::spawn(move || theirs.too_slow(scale(0), 1_600));
        let young = watch.enter(scale(0), 1_600).expect("room");
        assert!((0..=1).contains(&reads.join().expect("read")));
        assert_eq!(watch.too_slow(scale(0), 1_600), 1);
        watch.leave(old);
        watch.leave(young);
        assert_eq!(watch.too_slow(scale(0), 9_000), 0);
    });
}

#[test]
fn a_call_of_an_earlier_period_does_not_get_between_those_of_the_next() {
    loom::model(|| {
        let watch = Arc::new(Watch::default());
        let theirs = Arc::clone(&watch);
        let stale = thread::spawn(move || theirs.enter(scale(0), 0));
        let call = watch.enter(scale(1), 0).expect("room");
        if let Some(stale) = stale.join().expect("entered") {
            watch.leave(stale);
        }
        assert_eq!(watch.too_slow(scale(1), 900), 1);
        watch.leave(call);
        assert_eq!(watch.too_slow(scale(1), 900), 0);
    });
}
