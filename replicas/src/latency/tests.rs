//! Peaks count at once, calm counts by and by, and nobody is forgotten or favoured for being new.

use super::*;

const MS: Duration = Duration::from_millis(1);
const NEW: Estimate = Estimate { nanos: 0.0, at: 0 };

fn about(nanos: f32, expected: Duration) -> bool {
    (nanos / expected.as_nanos() as f32 - 1.0).abs() < 0.01
}

#[test]
fn a_slower_answer_counts_as_it_is_and_a_quicker_one_by_and_by() {
    let calm = NEW.with(5 * MS, 0);
    assert!(about(calm.at(0), 5 * MS));
    let peak = calm.with(100 * MS, 10);
    assert!(about(peak.at(10), 100 * MS));
    // At once the peak stays; after the decay time, 1/e of it is left above the answer.
    assert!(about(peak.with(5 * MS, 10).at(10), 100 * MS));
    assert!(about(peak.with(5 * MS, 10_010).at(10_010), Duration::from_micros(39_950)));
    assert!(about(peak.with(5 * MS, 200_000).at(200_000), 5 * MS));
}

#[test]
fn an_estimate_fades_until_the_node_is_worth_a_try() {
    let failed = NEW.with(PENALTY, 0);
    let well = (NEW.with(5 * MS, 0), 0, 1);
    assert!(!is_first_quicker((failed, 0, 1), well, 0));
    assert!(!is_first_quicker((failed, 0, 1), (NEW.with(5 * MS, 60_000), 0, 1), 60_000));
    assert!(is_first_quicker((failed, 0, 1), (NEW.with(5 * MS, 70_000), 0, 1), 70_000));
}

#[test]
fn a_new_node_is_as_good_as_any() {
    for known in [MS, 30 * MS, PENALTY] {
        let known = NEW.with(known, 0);
        assert!(is_first_quicker((NEW, 0, 1), (known, 0, 1), 0));
        assert!(is_first_quicker((known, 0, 1), (NEW, 0, 1), 0));
        assert!(!is_first_quicker((NEW, 1, 1), (known, 0, 1), 0), "by what is in flight");
        assert!(!is_first_quicker((NEW, 2, 1), (known, 2, 2), 0), "and by weight");
    }
}

#[test]
fn weight_divides_the_cost_and_the_queue_multiplies_it() {
    let (quick, slow) = (NEW.with(MS, 0), NEW.with(3 * MS, 0));
    assert!(is_first_quicker((quick, 2, 1), (slow, 0, 1), 0));
    assert!(!is_first_quicker((quick, 3, 1), (slow, 0, 1), 0));
    let same = |in_flight, weight| (quick, in_flight, weight);
    assert!(
        is_first_quicker(same(6, 3), same(2, 1), 0) && is_first_quicker(same(2, 1), same(6, 3), 0)
    );
    assert!(
        is_first_quicker(same(5, 3), same(2, 1), 0) && !is_first_quicker(same(2, 1), same(5, 3), 0)
    );
    // In proportion, whatever the numbers.
    assert!(!is_first_quicker(same(2, 100), same(5, 300), 0));
    assert!(is_first_quicker(same(0, 1), same(0, 9), 0), "idle nodes differ by latency alone");
}

#[test]
fn what_a_node_asks_for_has_a_bound_and_a_clock_that_went_back_does_no_harm() {
    assert!(about(NEW.with(Duration::from_secs(86_400), 0).at(0), LONGEST));
    assert!(about(NEW.with(5 * MS, 1_000).at(999), 5 * MS));
    let wrapped = NEW.with(5 * MS, u32::MAX);
    assert!(about(wrapped.at(9), 5 * MS));
    assert!(NEW.with(Duration::ZERO, 0).is_known());
}

#[test]
fn one_word_holds_it_all() {
    let estimate = NEW.with(7 * MS, 1_234);
    assert_eq!(Estimate::from_bits(estimate.to_bits()), estimate);
    assert!(!Estimate::from_bits(Estimate::NONE).is_known());
}
