//! The requests of a connection, summed up while they begin and end.

use loom::thread;

use super::primitives::Arc;
use super::tally::{Tallies, Way};

#[test]
fn a_sum_never_shows_more_ends_than_starts_and_a_closed_connection_once() {
    loom::model(|| {
        let tallies = Arc::new(Tallies::default());
        let connection = {
            let tallies = Arc::clone(&tallies);
            thread::spawn(move || {
                let tally = tallies.open();
                for way in [Way::Finished, Way::Cut] {
                    tally.start();
                    tally.end(way, true);
                }
                tallies.close(&tally);
            })
        };
        let sum = tallies.sum();
        // More ends than starts would be below zero, which panics. What ends meanwhile may still be
        // shown as in flight.
        assert!(sum.in_flight() <= 2);
        connection.join().expect("no panic");
        let sum = tallies.sum();
        assert_eq!((sum.started, sum.in_flight()), (2, 0));
        assert_eq!((sum.ended(Way::Finished), sum.ended(Way::Cut)), (1, 1));
    });
}

#[test]
fn the_streams_of_one_connection_end_in_any_order() {
    loom::model(|| {
        let tallies = Arc::new(Tallies::default());
        let tally = tallies.open();
        tally.start();
        tally.start();
        let stream = {
            let tally = Arc::clone(&tally);
            thread::spawn(move || tally.end(Way::Finished, false))
        };
        tally.end(Way::Finished, false);
        assert!(tallies.sum().in_flight() <= 1);
        stream.join().expect("no panic");
        assert_eq!(tallies.sum().ended(Way::Finished), 2);
    });
}
