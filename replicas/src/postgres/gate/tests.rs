//! Samples in a row, and what each leads to.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { time: Duration::from_secs(10), bytes: 16 << 20 };

fn known(seconds: u64) -> Lag {
    Lag::Known(Duration::from_secs(seconds))
}

/// The verdicts on a replica's samples, one after the other.
fn verdicts(samples: &[(Lag, u64)]) -> Vec<Verdict> {
    let mut gate = Gate::default();
    samples.iter().map(|(lag, bytes)| gate.judge(*lag, Some(*bytes), LIMITS)).collect()
}

#[test]
fn time_excludes_beyond_the_limit_and_admits_at_half_of_it() {
    use Verdict::{Fresh, Lagging};
    let samples = [0, 10, 11, 10, 6, 5, 6, 10, 11].map(|seconds| (known(seconds), 0));
    let expected = [Fresh, Fresh, Lagging, Lagging, Lagging, Fresh, Fresh, Fresh, Lagging];
    assert_eq!(verdicts(&samples), expected);
}

#[test]
fn bytes_exclude_on_their_own() {
    use Verdict::{Fresh, Lagging};
    let samples = [16 << 20, (16 << 20) + 1, (8 << 20) + 1, 8 << 20].map(|b| (known(0), b));
    assert_eq!(verdicts(&samples), [Fresh, Lagging, Lagging, Fresh]);
    // Half of one limit does not help while the other is beyond its half.
    assert_eq!(verdicts(&[(known(11), 0), (known(0), 9 << 20)]), [Lagging, Lagging]);
}

#[test]
fn what_is_not_known_is_excluded_and_forgets_nothing() {
    use Verdict::{Fresh, Lagging, Unknown};
    let at_least = |seconds| Lag::AtLeast(Duration::from_secs(seconds));
    assert_eq!(verdicts(&[(Lag::Unknown, 0), (known(7), 0)]), [Unknown, Fresh]);
    assert_eq!(verdicts(&[(at_least(3), 0), (at_least(11), 0)]), [Unknown, Lagging]);
    assert_eq!(
        verdicts(&[(known(11), 0), (Lag::Unknown, 0), (at_least(1), 0), (known(7), 0)]),
        [Lagging, Unknown, Lagging, Lagging],
        "a lower bound below half does not open the gate"
    );
}

proptest! {
    /// Whatever the samples, a gate turns only by crossing both limits.
    #[test]
    fn a_lag_that_stays_between_the_limits_never_turns_the_gate(
        start in 0_u64..30,
        between in proptest::collection::vec(6_u64..=10, 1..50),
    ) {
        let mut gate = Gate::default();
        let first = gate.judge(known(start), Some(0), LIMITS);
        for seconds in between {
            prop_assert_eq!(gate.judge(known(seconds), Some(0), LIMITS), first);
        }
    }
}
