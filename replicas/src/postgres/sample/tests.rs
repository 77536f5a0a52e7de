//! Answers that servers give, and some they should not.

use proptest::prelude::*;

use super::*;

const RUN: &str = "2026-11-26 05:02:57.191813+00";

fn check(columns: [Option<&str>; 8]) -> Result<Sample, SampleError> {
    read(|column| columns.get(column).copied().flatten())
}

fn sample(state: State) -> Sample {
    Sample { system: 7_712_341_245_863_561_938, run: RUN.into(), state }
}

const SYSTEM: Option<&str> = Some("7712341245863561938");

#[test]
fn a_primary_s_answer_is_read() {
    let answer =
        [Some("f"), Some("0/800EA8"), Some("0000000A"), Some("0"), None, SYSTEM, Some(RUN), None];
    let state = State::Writable { timeline: 10, written: Lsn::new(0x80_0EA8) };
    assert_eq!(check(answer), Ok(sample(state)));
}

#[test]
fn a_standby_s_answer_is_read() {
    let answer = |timeline, count| {
        [Some("t"), Some("1/0"), None, count, timeline, SYSTEM, Some(RUN), Some("1/5")]
    };
    let (replayed, received) = (Some(Lsn::new(1 << 32)), Some(Lsn::new((1 << 32) + 5)));
    let streaming = State::Standby { timeline: Some(3), replayed, received };
    assert_eq!(check(answer(Some("3"), Some("1"))), Ok(sample(streaming)));
    let alone = State::Standby { timeline: None, replayed, received };
    assert_eq!(check(answer(None, Some("0"))), Ok(sample(alone)));
    assert_eq!(check(answer(None, Some("1"))), Err(SampleError::Forbidden));
    let mut fresh = answer(Some("3"), Some("1"));
    (fresh[1], fresh[7]) = (None, None);
    let state = State::Standby { timeline: Some(3), replayed: None, received: None };
    assert_eq!(check(fresh), Ok(sample(state)));
}

#[test]
fn a_system_identifier_beyond_the_signed_range_is_the_same_one() {
    let answer =
        [Some("f"), Some("0/1"), Some("00000001"), Some("0"), None, Some("-1"), Some(RUN), None];
    assert_eq!(check(answer).unwrap().system, u64::MAX);
}

#[test]
fn what_cannot_be_read_is_named() {
    let good = [Some("f"), Some("0/1"), Some("00000001"), Some("0"), None, SYSTEM, Some(RUN), None];
    for (column, text, what) in [
        (0, None, "recovery state"),
        (0, Some("maybe"), "recovery state"),
        (1, None, "place in the log"),
        (1, Some("0/x"), "place in the log"),
        (2, None, "timeline"),
        (2, Some("1FFFFFFFF"), "timeline"),
        (5, Some("x"), "system identifier"),
        (6, None, "start time"),
        (7, Some("x"), "received place"),
    ] {
        let mut answer = good;
        answer[column] = text;
        assert_eq!(check(answer), Err(SampleError::Unreadable(what)));
    }
}

proptest! {
    #[test]
    fn no_answer_panics(columns in proptest::collection::vec(proptest::option::of(".{0,20}"), 0..8)) {
        let _ = read(|column| columns.get(column)?.as_deref());
    }
}
