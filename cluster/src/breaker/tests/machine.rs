//! The states by table, and against a model that keeps every call in a list.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::machine::{Machine, Moves, Ticket, Verdict, ramp_share};
use super::super::{BreakerConfig, Figures, Reason, State};

const WHY: (Reason, Figures) = (
    Reason::FailureRate,
    Figures { consecutive_failures: 0, calls: 9, failures: 8, slow: 0, in_flight_slow: 0 },
);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn config() -> BreakerConfig {
    BreakerConfig::default().jitter(0.0)
}

/// A machine that opened at zero and was let into half-open at `now`, with its first probe.
fn half_open(config: &BreakerConfig, now: Duration) -> (Machine, Ticket) {
    let mut machine = Machine::new(config);
    machine.trip(0, Duration::ZERO, 0.0, WHY);
    let ticket = machine.admit(now, 0.0).expect("the open time is over");
    assert_eq!(machine.state(), State::HalfOpen);
    (machine, ticket)
}

#[test]
fn an_open_circuit_says_how_long_it_stays_open() {
    let mut machine = Machine::new(&config());
    machine.trip(0, seconds(1), 0.0, WHY);
    assert_eq!(machine.admit(seconds(2), 0.0), Err(seconds(4)));
    assert!(machine.admit(seconds(6), 0.0).is_ok());
}

#[test]
fn the_open_time_doubles_up_to_its_maximum_and_starts_over_after_a_success() {
    let config = config().half_open_permits(1).open_for_max(seconds(15));
    let mut machine = Machine::new(&config);
    machine.trip(0, Duration::ZERO, 0.0, WHY);
    let mut now = Duration::ZERO;
    for expected in [5, 10, 15, 15] {
        assert_eq!(machine.admit(now, 0.0), Err(seconds(expected)));
        now += seconds(expected);
        let probe = machine.admit(now, 0.0).expect("over");
        machine.settle(probe, (Verdict::Failure, None), now, 0.0);
    }
    now += seconds(15);
    let probe = machine.admit(now, 0.0).expect("over");
    machine.settle(probe, (Verdict::Success, None), now, 0.0);
    assert_eq!(machine.state(), State::Closed);
    machine.trip(machine.epoch(), now, 0.0, WHY);
    assert_eq!(machine.admit(now, 0.0), Err(seconds(5)));
}

#[test]
fn jitter_only_lengthens_the_open_time() {
    let config = config().jitter(0.2);
    for (chance, expected) in [(0.0, 5_000), (0.5, 5_500), (1.0, 6_000)] {
        let mut machine = Machine::new(&config);
        machine.trip(0, Duration::ZERO, chance, WHY);
        let left = machine.admit(Duration::ZERO, 0.0);
        assert_eq!(left, Err(Duration::from_millis(expected)));
    }
}

#[test]
fn the_share_of_successes_decides_not_the_first_failure() {
    let (mut machine, first) = half_open(&config(), seconds(5));
    let second = machine.admit(seconds(5), 0.0).expect("permit 2 of 3");
    let third = machine.admit(seconds(5), 0.0).expect("permit 3 of 3");
    machine.settle(first, (Verdict::Failure, None), seconds(5), 0.0);
    machine.settle(second, (Verdict::Success, None), seconds(5), 0.0);
    assert_eq!(machine.state(), State::HalfOpen);
    machine.settle(third, (Verdict::Success, None), seconds(5), 0.0);
    assert_eq!(machine.state(), State::Closed);
}

#[test]
fn a_neutral_probe_gives_its_permit_back() {
    let (mut machine, first) = half_open(&config().half_open_permits(1), seconds(5));
    assert!(machine.admit(seconds(5), 0.0).is_err());
    machine.settle(first, (Verdict::Neutral, None), seconds(5), 0.0);
    assert!(machine.admit(seconds(5), 0.0).is_ok());
}

// In tower-resilience a hung probe holds its permit for ever.
#[test]
fn a_hung_probe_gives_way_at_its_deadline_and_its_late_result_changes_nothing() {
    let (mut machine, hung) = half_open(&config(), seconds(5));
    let second = machine.admit(seconds(6), 0.0).expect("permit 2 of 3");
    let third = machine.admit(seconds(6), 0.0).expect("permit 3 of 3");
    machine.settle(second, (Verdict::Failure, None), seconds(7), 0.0);
    assert_eq!(machine.admit(seconds(9), 0.0), Err(seconds(1)), "until the hung one's deadline");

    // Its deadline makes it the second failure of three: open again, from that moment on.
    assert_eq!(machine.admit(seconds(10), 0.0), Err(seconds(10)));
    for late in [hung, third] {
        machine.settle(late, (Verdict::Success, None), seconds(10), 0.0);
        assert_eq!(machine.state(), State::Open);
    }
}

#[test]
fn a_hung_probe_that_nobody_looked_at_does_not_lengthen_the_open_time() {
    let (mut machine, _hung) = half_open(&config().half_open_permits(1), seconds(5));
    // Failed at 10 s, open for 10 s: at 20 s the next trial begins at the first call.
    assert!(machine.admit(seconds(20), 0.0).is_ok());
    assert_eq!(machine.moves(), Moves { opened: 2, half_opened: 2, closed: 0 });
}

// In tower-resilience two calls from before the circuit opened close it while the probe hangs.
#[test]
fn results_from_before_the_circuit_opened_do_not_close_it() {
    let mut machine = Machine::new(&config().half_open_permits(1));
    let early = machine.admit(Duration::ZERO, 0.0).expect("closed");
    machine.trip(0, Duration::ZERO, 0.0, WHY);
    let _probe = machine.admit(seconds(5), 0.0).expect("half-open");
    machine.settle(early, (Verdict::Success, None), seconds(5), 0.0);
    assert_eq!(machine.state(), State::HalfOpen);

    // Nor does a condition that was met before it closed again open it.
    machine.reset();
    machine.trip(early.epoch, seconds(5), 0.0, WHY);
    assert_eq!(machine.state(), State::Closed);
}

#[test]
fn a_forced_state_stays_until_it_is_lifted() {
    let mut machine = Machine::new(&config());
    machine.force_open();
    assert_eq!(machine.admit(seconds(3_600), 0.0), Err(seconds(5)));
    machine.force_close();
    machine.trip(machine.epoch(), seconds(3_600), 0.0, WHY);
    assert!(machine.admit(seconds(3_600), 0.0).is_ok());
    assert_eq!(machine.state(), State::ForcedClosed);
    machine.reset();
    machine.trip(machine.epoch(), seconds(3_600), 0.0, WHY);
    assert_eq!(machine.state(), State::Open);
}

#[test]
fn the_backend_is_left_alone_for_as_long_as_it_has_asked() {
    for (asked, jitter, expected) in [(3, 0.0, 5), (30, 0.0, 30), (30, 0.2, 36), (3_600, 0.0, 300)]
    {
        let mut machine = Machine::new(&config().jitter(jitter));
        machine.hold(0, Duration::ZERO, Some(seconds(asked)));
        // Another call, later and without a word about it, opens the circuit.
        machine.trip(0, Duration::ZERO, 1.0, WHY);
        assert_eq!(machine.admit(Duration::ZERO, 0.0), Err(seconds(expected)), "{asked}");
    }
}

#[test]
fn what_the_backend_asked_for_counts_from_when_it_asked() {
    let mut machine = Machine::new(&config().half_open_permits(1));
    machine.hold(0, Duration::ZERO, Some(seconds(30)));
    machine.trip(0, seconds(10), 0.0, WHY);
    assert_eq!(machine.admit(seconds(10), 0.0), Err(seconds(20)));
    // A failed probe may ask again; one of before does not.
    let probe = machine.admit(seconds(30), 0.0).expect("over");
    machine.hold(0, seconds(30), Some(seconds(250)));
    machine.settle(probe, (Verdict::Failure, Some(seconds(40))), seconds(30), 0.0);
    assert_eq!(machine.admit(seconds(30), 0.0), Err(seconds(40)));
    // Once closed it is forgotten.
    let probe = machine.admit(seconds(70), 0.0).expect("over");
    machine.settle(probe, (Verdict::Success, Some(seconds(99))), seconds(70), 0.0);
    assert_eq!(machine.state(), State::Closed);
    machine.trip(machine.epoch(), seconds(70), 0.0, WHY);
    assert_eq!(machine.admit(seconds(70), 0.0), Err(seconds(5)));
}

#[test]
fn a_ramp_lets_a_growing_share_through() {
    let (mut machine, probe) =
        half_open(&config().half_open_permits(1).ramp(seconds(10)), seconds(5));
    machine.settle(probe, (Verdict::Success, None), seconds(5), 0.0);
    assert_eq!(machine.state(), State::Closed);
    for (at, chance, left) in [
        (5, 0.05, None),
        // A tenth of ten seconds; the chance that is drawn says when it would have done.
        (5, 0.1, Some(1_000)),
        (5, 0.75, Some(7_500)),
        (7, 0.19, None),
        (7, 0.2, Some(1)),
        (7, 0.5, Some(3_000)),
        (14, 0.89, None),
        (14, 0.9, Some(1)),
        (14, 0.95, Some(500)),
        (15, 0.999, None),
    ] {
        let answer = machine.admit(seconds(at), chance).err();
        assert_eq!(answer, left.map(Duration::from_millis), "at {at} with {chance}");
        assert_eq!(machine.ramp().is_some(), at < 15);
    }
    // Opened within a ramp, it opens; closed by hand, it has none.
    machine.reset();
    assert_eq!(machine.ramp(), None);
}

// 0.28 of 25 is 7; in floating point 0.28 * 25 is more.
#[test]
fn exactly_the_share_of_a_trial_closes_it() {
    for (ratio, permits, needed) in
        [(0.28, 25, 7), (0.55, 100, 55), (0.07, 100, 7), (0.14, 50, 7), (0.56, 25, 14), (0.5, 3, 2)]
    {
        let config = config().half_open_permits(permits).half_open_success_ratio(ratio);
        let (mut machine, first) = half_open(&config, seconds(5));
        machine.settle(first, (Verdict::Success, None), seconds(5), 0.0);
        for _ in 1..needed {
            assert_eq!(machine.state(), State::HalfOpen, "{ratio} of {permits}");
            let probe = machine.admit(seconds(5), 0.0).expect("a permit");
            machine.settle(probe, (Verdict::Success, None), seconds(5), 0.0);
        }
        assert_eq!(machine.state(), State::Closed, "{ratio} of {permits}");
    }
}

// Told the end of the ramp, all who were rejected within it would come back at once.
#[test]
fn callers_rejected_in_a_ramp_are_spread_over_the_rest_of_it() {
    let (mut machine, probe) =
        half_open(&config().half_open_permits(1).ramp(seconds(60)), seconds(5));
    machine.settle(probe, (Verdict::Success, None), seconds(5), 0.0);
    let mut back = [0; 4];
    for caller in 0..1_000 {
        let chance = f64::from(caller) / 1_000.0;
        if let Err(left) = machine.admit(seconds(20), chance) {
            // At 15 s of the ramp.
            let age = seconds(15) + left;
            assert!(age <= seconds(60) && ramp_share(age + seconds(1), seconds(60)) > chance);
            back[(age.as_secs() / 15) as usize] += 1;
        }
    }
    assert_eq!(back, [0, 250, 250, 250]);
}

#[test]
fn a_trial_whose_permits_are_out_refuses_until_their_deadline_and_moves_then() {
    let (mut machine, _hung) = half_open(&config().half_open_permits(1), seconds(5));
    assert_eq!(machine.refusal(seconds(5), 0.0), Some(seconds(5)));
    assert_eq!(machine.refusal(seconds(9), 0.0), Some(seconds(1)));
    assert_eq!(machine.refusal(seconds(11), 0.0), Some(seconds(9)), "open since 10 s, for 10 s");
    assert_eq!(machine.refusal(seconds(20), 0.0), None, "its time is over");
    assert_eq!(machine.state(), State::Open, "and who asks only does not try it");
    machine.force_open();
    assert_eq!(machine.refusal(seconds(20), 0.0), Some(seconds(5)));
    machine.reset();
    assert_eq!(machine.refusal(seconds(20), 0.0), None);
}

#[test]
fn a_circuit_opens_within_its_ramp_too() {
    let (mut machine, probe) =
        half_open(&config().half_open_permits(1).ramp(seconds(10)), seconds(5));
    machine.settle(probe, (Verdict::Success, None), seconds(5), 0.0);
    machine.trip(machine.epoch(), seconds(6), 0.0, WHY);
    assert_eq!(machine.state(), State::Open);
}

#[test]
fn each_time_of_being_closed_has_an_epoch_of_the_other_kind() {
    let mut machine = Machine::new(&config());
    for moves in 0..20_u32 {
        let (before, odd) = (machine.epoch(), machine.epoch() % 2);
        for step in 0..moves % 4 {
            if step % 2 == 0 { machine.force_open() } else { machine.force_close() }
        }
        machine.reset();
        assert!(machine.epoch() > before);
        assert_eq!(machine.epoch() % 2, 1 - odd, "{moves}");
    }
}

#[test]
fn moves_are_told_once_in_order_and_with_their_reason() {
    let (mut machine, probe) = half_open(&config().half_open_permits(1), seconds(5));
    machine.settle(probe, (Verdict::Failure, None), seconds(6), 0.0);
    machine.force_open();
    machine.force_open();
    machine.reset();
    machine.reset();
    let told: Vec<_> = machine.take_untold();
    let moves: Vec<_> = told.iter().map(|told| (told.from, told.to, told.reason)).collect();
    assert_eq!(
        moves,
        [
            (State::Closed, State::Open, Reason::FailureRate),
            (State::Open, State::HalfOpen, Reason::OpenTimeOver),
            (State::HalfOpen, State::Open, Reason::TrialFailed),
            (State::Open, State::ForcedOpen, Reason::ByHand),
            (State::ForcedOpen, State::Closed, Reason::ByHand),
        ]
    );
    assert!(told.iter().map(|told| told.sequence).eq(1..=5));
    assert_eq!((told[0].figures, told[0].open_for), (WHY.1, seconds(5)));
    assert_eq!((told[2].figures.failures, told[2].open_for), (1, seconds(10)));
    assert!(machine.take_untold().is_empty());
}

#[test]
fn other_rules_decide_a_trial_that_is_going_on() {
    let (mut machine, first) = half_open(&config(), seconds(5));
    machine.settle(first, (Verdict::Success, None), seconds(5), 0.0);
    assert_eq!(machine.state(), State::HalfOpen, "1 of 2 needed");
    machine.set_rules(&config().half_open_permits(1), seconds(5), 0.0);
    assert_eq!(machine.state(), State::Closed);
}

/// The half-open rules, restated over a list of everything that happened.
#[derive(Default)]
struct Model {
    open_until: Option<u64>,
    streak: u32,
    trial: Option<BTreeMap<u64, Option<Verdict>>>,
    deadlines: BTreeMap<u64, u64>,
}

const PERMITS: usize = 4;
const NEEDED: usize = 3;

impl Model {
    fn decide(&mut self, now: u64) {
        let Some(trial) = &self.trial else { return };
        let count = |verdict| trial.values().filter(|v| **v == Some(verdict)).count();
        if count(Verdict::Success) >= NEEDED {
            *self = Self::default();
        } else if count(Verdict::Failure) > PERMITS - NEEDED {
            let open_for = (5 << self.streak.min(10)).min(60);
            let streak = self.streak + 1;
            *self = Self { open_until: Some(now + open_for), streak, ..Self::default() };
        }
    }

    fn advance(&mut self, now: u64) {
        let mut due: Vec<(u64, u64)> = self.deadlines.iter().map(|(id, at)| (*at, *id)).collect();
        due.sort_unstable();
        for (at, id) in due {
            if at <= now && self.trial.is_some() {
                self.result(id, Verdict::Failure, at);
            }
        }
    }

    fn admit(&mut self, id: u64, now: u64) -> bool {
        self.advance(now);
        if self.open_until.is_some_and(|until| now >= until) {
            self.open_until = None;
            self.trial = Some(BTreeMap::new());
        }
        match &mut self.trial {
            None => self.open_until.is_none(),
            Some(trial) if trial.len() < PERMITS => {
                trial.insert(id, None);
                self.deadlines.insert(id, now + 5);
                true
            }
            Some(_) => false,
        }
    }

    fn result(&mut self, id: u64, verdict: Verdict, now: u64) {
        let Some(trial) = &mut self.trial else { return };
        if self.deadlines.remove(&id).is_none() {
            return;
        }
        if verdict == Verdict::Neutral {
            trial.remove(&id);
        } else {
            trial.insert(id, Some(verdict));
        }
        self.decide(now);
    }

    fn state(&self) -> State {
        match (&self.trial, self.open_until) {
            (Some(_), _) => State::HalfOpen,
            (None, Some(_)) => State::Open,
            (None, None) => State::Closed,
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Admit,
    Settle(usize, Verdict),
    Trip,
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        3 => Just(Verdict::Success),
        2 => Just(Verdict::Failure),
        1 => Just(Verdict::Neutral)
    ];
    prop_oneof![
        2 => (1_u64..8).prop_map(Step::Wait),
        5 => Just(Step::Admit),
        5 => (0_usize..12, verdict).prop_map(|(index, verdict)| Step::Settle(index, verdict)),
        1 => Just(Step::Trip),
    ]
}

proptest! {
    #[test]
    fn it_agrees_with_the_model(steps in prop::collection::vec(step(), 1..300)) {
        let config = config()
            .half_open_permits(u32::try_from(PERMITS).expect("small"))
            .half_open_success_ratio(0.75);
        let (mut machine, mut model) = (Machine::new(&config), Model::default());
        // Every ticket ever handed out stays here, so that late and double results are tried too.
        let mut tickets: Vec<(u64, Ticket)> = Vec::new();
        let (mut now, mut calls) = (0, 0);
        for step in steps {
            match step {
                Step::Wait(time) => now += time,
                Step::Admit => {
                    calls += 1;
                    let ticket = machine.admit(seconds(now), 0.0).ok();
                    prop_assert_eq!(ticket.is_some(), model.admit(calls, now));
                    tickets.extend(ticket.map(|ticket| (calls, ticket)));
                }
                Step::Settle(back, verdict) => {
                    let Some((id, ticket)) = tickets.iter().rev().nth(back) else { continue };
                    model.advance(now);
                    model.result(*id, verdict, now);
                    machine.settle(*ticket, (verdict, None), seconds(now), 0.0);
                }
                Step::Trip => {
                    if model.state() == State::Closed {
                        model = Model { open_until: Some(now + 5), streak: 1, ..Model::default() };
                    }
                    machine.trip(machine.epoch(), seconds(now), 0.0, WHY);
                }
            }
            prop_assert_eq!(machine.state(), model.state());
        }
    }
}
