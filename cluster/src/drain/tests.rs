//! How requests are added up. Apart from the tallies, which the loom tests read as well.

use super::tally::{Tallies, Way};

#[test]
fn a_sum_holds_connections_that_are_open_and_those_that_have_ended() {
    let tallies = Tallies::default();
    let open: Vec<_> = (0..3).map(|_| tallies.open()).collect();
    for tally in &open {
        tally.start();
        tally.start();
        tally.end(Way::Finished, true);
    }
    open[0].end(Way::Cut, false);
    for closed in [&open[0], &open[2]] {
        tallies.close(closed);
    }
    open[1].end(Way::Cancelled, false);
    let sum = tallies.sum();
    assert_eq!((sum.started, sum.in_flight()), (6, 1));
    let ways = [Way::Finished, Way::TimedOut, Way::Cancelled, Way::Panicked, Way::Cut];
    assert_eq!(ways.map(|way| sum.ended(way)), [3, 0, 1, 0, 1]);
    tallies.close(&open[1]);
    assert_eq!(tallies.sum().in_flight(), 1);
}
