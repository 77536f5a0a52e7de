//! The schedule by example and by property.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use proptest::prelude::*;

use super::super::text::Texts;
use super::*;

const MS: Duration = Duration::from_millis(1);
const LIMITS: Limits = Limits {
    pipelines: 2,
    depth: 4,
    grow_at: 3,
    stall: Duration::from_millis(2),
    proven_stall: Duration::from_millis(4),
    patience: Duration::from_millis(6),
    heavy: Duration::from_millis(2),
    idle: Duration::from_millis(10),
};

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn text(name: &str) -> TextId {
    super::super::text::identify(&Texts::new().hasher(), name)
}

fn schedule(lanes: u32) -> Schedule<u32> {
    let mut schedule = Schedule::new(LIMITS);
    for conn in 0..lanes {
        assert_eq!(schedule.opened(conn, 0), None);
    }
    schedule
}

fn busy(answered: u64) -> Look {
    Look { answered, busy: true, ..Look::default() }
}

fn idle(answered: u64) -> Look {
    Look { answered, ..Look::default() }
}

fn board(schedule: &mut Schedule<u32>) -> (Seat, u32) {
    schedule.board(text("a"), false).unwrap()
}

#[test]
fn statements_go_where_the_fewest_are_under_way() {
    let mut schedule = schedule(2);
    let seats: Vec<_> = (0..8).map(|_| board(&mut schedule)).collect();
    assert_eq!(seats.iter().map(|(_, conn)| *conn).sum::<u32>(), 4);
    assert!(schedule.board(text("a"), false).is_none(), "both are full");
    // One that was dropped is still under way; one that was answered is not.
    assert_eq!(schedule.leave(seats[6].0, false), None);
    assert!(schedule.board(text("a"), false).is_none());
    assert_eq!(schedule.leave(seats[1].0, true), None);
    assert_eq!(board(&mut schedule).1, seats[1].1);
}

#[test]
fn nobody_stays_on_the_slower_pipeline() {
    let mut schedule = Schedule::new(Limits { depth: 128, ..LIMITS });
    let mut lanes = [VecDeque::new(), VecDeque::new()];
    for conn in 0..2_usize {
        assert_eq!(schedule.opened(conn, 0), None);
    }
    let mut served = [0_u32; 64];
    for task in 0..64 {
        let (seat, conn) = schedule.board(text("a"), true).unwrap();
        lanes[conn].push_back((task, seat));
    }
    for _ in 0..1_000 {
        for (lane, answers) in [(0, 2), (1, 4)] {
            for _ in 0..answers {
                let (task, seat): (usize, Seat) = lanes[lane].pop_front().unwrap();
                assert_eq!(schedule.leave(seat, true), None);
                served[task] += 1;
                let (seat, conn) = schedule.board(text("a"), true).unwrap();
                lanes[conn].push_back((task, seat));
            }
        }
    }
    let (most, least) = (served.iter().max().unwrap(), served.iter().min().unwrap());
    assert!(most * 2 < least * 3, "{served:?}");
}

#[test]
fn those_behind_a_silent_one_get_off_and_later_the_silent_one_too() {
    let mut schedule = schedule(1);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let first = schedule.board(text("slow"), false).unwrap().0;
    let second = board(&mut schedule).0;
    for seat in [first, second] {
        assert!(!schedule.must_leave(seat, true, &waker));
    }
    assert!(schedule.judge(0, busy(0), MS).woken.is_empty());
    let verdict = schedule.judge(0, busy(0), MS);
    assert_eq!(verdict.woken.len(), 1);
    assert_eq!(verdict.slow, Some((text_of(&schedule), false)));
    assert!(schedule.must_leave(second, true, &waker) && !schedule.must_leave(first, true, &waker));
    assert!(schedule.board(text("a"), false).is_none(), "it stands still");
    assert_eq!(schedule.leave(second, false), None);
    for _ in 0..3 {
        assert!(schedule.judge(0, busy(0), MS).woken.is_empty());
    }
    let verdict = schedule.judge(0, busy(0), MS);
    assert_eq!((verdict.woken.len(), verdict.slow.map(|slow| slow.1)), (1, Some(true)));
    assert_eq!(schedule.leave(first, false), None);
    // Nobody waits for what it does.
    assert_eq!(schedule.judge(0, busy(0), MS).ended, Some(0));
    assert_eq!(schedule.len(), 0);
}

/// The text in front of the only pipeline.
fn text_of(schedule: &Schedule<u32>) -> TextId {
    schedule.lanes[0].in_front().unwrap().text
}

#[test]
fn one_that_sends_more_after_others_goes_behind_them() {
    let mut schedule = schedule(1);
    let waker = Waker::from(Arc::new(Woken::default()));
    let (slow, other) = (schedule.board(text("slow"), false).unwrap().0, board(&mut schedule).0);
    assert!(!schedule.must_leave(slow, true, &waker));
    // It was prepared, and is sent now.
    let slow = schedule.renew(slow);
    assert_eq!(schedule.leave(other, true), None);
    let behind = board(&mut schedule).0;
    schedule.judge(0, busy(2), MS);
    schedule.judge(0, busy(2), MS);
    let verdict = schedule.judge(0, busy(2), MS);
    assert_eq!(verdict.slow, Some((text_of(&schedule), false)));
    assert!(schedule.must_leave(behind, true, &waker) && !schedule.must_leave(slow, true, &waker));
}

#[test]
fn one_that_has_sent_nothing_is_not_in_front() {
    let mut schedule = schedule(1);
    let waker = Waker::from(Arc::new(Woken::default()));
    let unsent = board(&mut schedule).0;
    let slow = schedule.board(text("slow"), false).unwrap().0;
    assert!(!schedule.must_leave(unsent, false, &waker));
    assert!(!schedule.must_leave(slow, true, &waker));
    schedule.judge(0, busy(0), MS);
    assert_eq!(schedule.judge(0, busy(0), MS).slow, Some((text_of(&schedule), false)));
    assert!(schedule.must_leave(unsent, false, &waker));
    assert!(!schedule.must_leave(slow, true, &waker));
}

#[test]
fn where_it_is_not_known_who_is_in_front_all_get_off() {
    let mut schedule = schedule(1);
    let waker = Waker::from(Arc::new(Woken::default()));
    let (first, second) = (board(&mut schedule).0, board(&mut schedule).0);
    // The first waits for something that the driver sent behind the second.
    assert_eq!(schedule.leave(second, true), None);
    for _ in 0..3 {
        assert!(schedule.judge(0, busy(1), MS).slow.is_none());
    }
    assert!(schedule.must_leave(first, true, &waker));
    assert!(schedule.board(text("a"), false).is_none(), "it stands still");
}

#[test]
fn nobody_gets_off_a_silent_pipeline_of_a_paused_pool() {
    let mut schedule = schedule(1);
    let waker = Waker::from(Arc::new(Woken::default()));
    let seats = [board(&mut schedule).0, board(&mut schedule).0];
    assert!(schedule.pause(true).is_empty());
    for _ in 0..20 {
        assert!(schedule.judge(0, busy(0), MS).woken.is_empty());
    }
    assert!(seats.iter().all(|seat| !schedule.must_leave(*seat, true, &waker)));
    assert_eq!(schedule.leave(seats[0], true), None);
    assert_eq!(schedule.leave(seats[1], true), Some(0));
}

#[test]
fn those_behind_a_stuck_one_get_off_a_closed_pool_and_it_does_not() {
    let mut schedule = schedule(1);
    let waker = Waker::from(Arc::new(Woken::default()));
    let (first, second) = (board(&mut schedule).0, board(&mut schedule).0);
    assert!(schedule.close().is_empty() && schedule.pause(true).is_empty());
    for _ in 0..5 {
        schedule.judge(0, busy(0), MS);
    }
    assert!(!schedule.must_leave(second, true, &waker), "it is given time");
    for _ in 0..5 {
        schedule.judge(0, busy(0), MS);
    }
    assert!(schedule.must_leave(second, true, &waker));
    assert!(!schedule.must_leave(first, true, &waker));
    assert!(schedule.pause(false).is_empty());
    assert_eq!(schedule.opened(1, 0), Some(1));
    assert_eq!(schedule.leave(second, false), None);
    assert_eq!(schedule.leave(first, true), Some(0));
}

#[test]
fn one_that_sends_for_the_first_time_says_nothing_of_those_in_front() {
    let mut schedule = schedule(1);
    let waker = Waker::from(Arc::new(Woken::default()));
    let slow = schedule.board(text("slow"), false).unwrap().0;
    let unsent = board(&mut schedule).0;
    assert!(!schedule.must_leave(unsent, false, &waker));
    let sent = schedule.renew(unsent);
    assert!(schedule.is_first(slow) && !schedule.is_first(sent));
    schedule.judge(0, busy(0), MS);
    assert_eq!(schedule.judge(0, busy(0), MS).woken.len(), 1);
    assert!(!schedule.must_leave(slow, true, &waker));
    assert!(schedule.must_leave(sent, true, &waker));
    assert_eq!(schedule.leave(sent, false), None);
    assert_eq!(schedule.leave(slow, true), None);
    assert_eq!(schedule.lanes[0].owed(), 1, "of the one that was sent");
}

#[test]
fn a_proven_text_is_given_more_time() {
    let mut schedule = schedule(1);
    schedule.board(text("a"), true).unwrap();
    for _ in 0..3 {
        assert!(schedule.judge(0, busy(0), MS).slow.is_none());
    }
    assert!(schedule.judge(0, busy(0), MS).slow.is_some());
}

#[test]
fn an_answer_ends_the_silence() {
    let mut schedule = schedule(1);
    let waker = Waker::from(Arc::new(Woken::default()));
    let seat = board(&mut schedule).0;
    board(&mut schedule);
    for answered in 0..50 {
        schedule.judge(0, busy(answered / 2), MS);
    }
    assert!(!schedule.must_leave(seat, true, &waker));
    assert!(!schedule.lanes[0].stalled);
}

#[test]
fn an_abandoned_statement_in_front_holds_nobody() {
    let mut schedule = schedule(1);
    let waker = Waker::from(Arc::new(Woken::default()));
    let first = board(&mut schedule).0;
    let second = board(&mut schedule).0;
    assert!(!schedule.must_leave(second, true, &waker));
    assert_eq!(schedule.leave(first, false), None);
    schedule.judge(0, busy(0), MS);
    assert_eq!(schedule.judge(0, busy(0), MS).woken.len(), 1);
    assert!(schedule.must_leave(second, true, &waker));
}

#[test]
fn a_pipeline_without_work_ends_in_time_or_when_its_connection_is_wanted() {
    for (wanted, looks) in [(false, 10), (true, 1)] {
        let mut schedule = schedule(1);
        let seat = board(&mut schedule).0;
        assert_eq!(schedule.leave(seat, true), None);
        let look = Look { wanted, ..idle(1) };
        assert!(schedule.judge(0, look, MS).ended.is_none(), "it answered a moment ago");
        for _ in 1..looks {
            assert!(schedule.judge(0, look, MS).ended.is_none());
        }
        assert_eq!(schedule.judge(0, look, MS).ended, Some(0));
    }
}

#[test]
fn an_unfit_pipeline_ends_with_its_last_rider() {
    let mut schedule = schedule(1);
    let (first, second) = (board(&mut schedule).0, board(&mut schedule).0);
    let unfit = Look { unfit: true, ..busy(0) };
    assert!(schedule.judge(0, unfit, MS).ended.is_none());
    assert!(schedule.board(text("a"), false).is_none());
    assert_eq!(schedule.leave(first, true), None);
    assert_eq!(schedule.leave(second, true), Some(0));
}

#[test]
fn pipelines_open_one_by_one_when_there_is_a_crowd() {
    let mut schedule = schedule(0);
    schedule.step_outside();
    assert!(!schedule.wants_one(), "a lone caller needs none");
    schedule.step_outside();
    assert!(schedule.wants_one() && !schedule.wants_one());
    schedule.opening_ended();
    assert_eq!(schedule.opened(0, 0), None);
    let seats: Vec<_> = (0..2).map(|_| board(&mut schedule).0).collect();
    assert!(!schedule.wants_one());
    board(&mut schedule);
    assert!(schedule.wants_one());
    schedule.opening_ended();
    assert_eq!(schedule.opened(1, 0), None);
    for _ in 0..3 {
        board(&mut schedule);
    }
    assert!(!schedule.wants_one(), "there are two");
    schedule.pause(true);
    assert_eq!(schedule.opened(2, 0), Some(2));
    assert_eq!(seats.len(), 2);
}

#[test]
fn a_pipeline_is_heavy_while_its_answers_take_long() {
    let mut schedule = schedule(1);
    board(&mut schedule);
    for answered in 0..20 {
        schedule.judge(0, busy(answered / 3), MS);
    }
    assert!(schedule.is_heavy());
    for answered in 0..20 {
        schedule.judge(0, busy(10 + answered), MS);
    }
    assert!(!schedule.is_heavy());
}

/// What may happen to a pipeline.
#[derive(Debug, Clone)]
enum Event {
    Board,
    Leave { nth: usize, answered: bool },
    Look { answered: bool, busy: bool },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Board),
        (0..8_usize, any::<bool>()).prop_map(|(nth, answered)| Event::Leave { nth, answered }),
        (any::<bool>(), any::<bool>()).prop_map(|(answered, busy)| Event::Look { answered, busy }),
    ]
}

proptest! {
    #[test]
    fn nobody_is_kept_on_a_silent_pipeline_and_every_one_ends(
        events in prop::collection::vec(event(), 0..200),
    ) {
        let mut schedule = schedule(2);
        let waker = Waker::from(Arc::new(Woken::default()));
        let mut aboard: Vec<Seat> = Vec::new();
        let mut ended = Vec::new();
        let mut answers = 0;
        for event in events {
            match event {
                Event::Board => {
                    if let Some((seat, conn)) = schedule.board(text("a"), false) {
                        prop_assert!(!ended.contains(&conn));
                        prop_assert!(!schedule.must_leave(seat, true, &waker));
                        aboard.push(seat);
                    }
                }
                Event::Leave { nth, answered } if nth < aboard.len() => {
                    ended.extend(schedule.leave(aboard.remove(nth), answered));
                }
                Event::Leave { .. } => {}
                Event::Look { answered, busy } => {
                    answers += u64::from(answered);
                    for id in 0..2 {
                        let look = Look { answered: answers, busy, ..Look::default() };
                        ended.extend(schedule.judge(id, look, MS).ended);
                    }
                }
            }
            prop_assert!(schedule.lanes.iter().all(|lane| lane.riders.len() <= 200));
        }
        // Silence: everybody must get off, and every pipeline ends.
        for _ in 0..30 {
            for id in 0..2 {
                let look = Look { answered: answers, busy: true, ..Look::default() };
                ended.extend(schedule.judge(id, look, MS).ended);
            }
            let mut kept = Vec::new();
            for seat in aboard.drain(..) {
                // One that was passed by a later answer has its own at hand.
                let lane = schedule.lane(seat.lane).unwrap();
                let answered = seat.number < lane.passed;
                if answered || schedule.must_leave(seat, true, &waker) {
                    ended.extend(schedule.leave(seat, answered));
                } else {
                    kept.push(seat);
                }
            }
            aboard = kept;
        }
        prop_assert!(aboard.is_empty());
        ended.sort_unstable();
        prop_assert_eq!(ended, vec![0, 1], "each connection came back once");
    }
}
