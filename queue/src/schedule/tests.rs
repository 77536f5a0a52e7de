//! The rules of the schedule: by example, against every order of events, and in a simulation.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn ready(counts: [usize; 4]) -> PerLane<usize> {
    PerLane::from_fn(|lane| counts[lane as usize])
}

fn staffed(counts: [usize; 4]) -> Scheduler {
    let mut scheduler = Scheduler::default();
    for lane in Lane::ALL {
        for _ in 0..counts[lane as usize] {
            scheduler.join(lane);
        }
    }
    scheduler
}

/// Calls the next worker and lets it select at once.
fn start(scheduler: &mut Scheduler, counts: [usize; 4]) -> Option<(Lane, Lane)> {
    let id = scheduler.next(&ready(counts))?;
    let home = scheduler.home(id);
    scheduler.select(id, &ready(counts)).map(|lane| (home, lane))
}

#[test]
fn a_worker_of_the_lane_itself_is_called_first() {
    for lane in Lane::ALL {
        let mut counts = [0; 4];
        counts[lane as usize] = 1;
        assert_eq!(start(&mut staffed([2, 1, 1, 1]), counts), Some((lane, lane)));
    }
}

#[test]
fn the_least_urgent_lane_lends_first_and_high_keeps_one_worker_free() {
    let mut scheduler = staffed([3, 1, 1, 1]);
    let lenders: Vec<_> =
        std::iter::from_fn(|| start(&mut scheduler, [0, 9, 0, 0])).map(|(home, _)| home).collect();
    let expected = [Lane::Medium, Lane::Background, Lane::Low, Lane::High, Lane::High];
    assert_eq!(lenders, expected);
    assert_eq!(start(&mut scheduler, [1, 9, 0, 0]), Some((Lane::High, Lane::High)));
}

#[test]
fn the_last_high_worker_that_comes_free_does_not_borrow() {
    let mut scheduler = staffed([2, 1, 1, 1]);
    let ids: Vec<_> = std::iter::from_fn(|| {
        let id = scheduler.next(&ready([9, 0, 0, 0]))?;
        scheduler.select(id, &ready([9, 0, 0, 0])).map(|_| id)
    })
    .collect();
    let high: Vec<_> = ids.into_iter().filter(|id| scheduler.home(*id) == Lane::High).collect();

    scheduler.rest(high[0], &ready([0, 0, 5, 0]));
    assert!(!scheduler.is_called(high[0]), "it is the only free one of its lane");
    scheduler.rest(high[1], &ready([0, 0, 5, 0]));
    assert!(scheduler.is_called(high[1]), "now another one is free");
}

#[test]
fn one_job_calls_one_worker() {
    let mut scheduler = staffed([4, 3, 2, 1]);
    assert!(scheduler.next(&ready([1, 0, 0, 0])).is_some());
    assert!(scheduler.next(&ready([1, 0, 0, 0])).is_none());
}

#[test]
fn a_called_worker_that_is_not_ready_does_not_keep_its_job_from_others() {
    let mut scheduler = staffed([2, 1, 1, 1]);
    let slow = scheduler.next(&ready([0, 1, 0, 0])).unwrap();
    scheduler.unready(slow);
    let other = scheduler.next(&ready([0, 1, 0, 0])).unwrap();
    assert_ne!(slow, other);
    assert_eq!(scheduler.select(other, &ready([0, 1, 0, 0])), Some(Lane::Medium));
    assert_eq!(scheduler.select(slow, &ready([0, 0, 0, 0])), None);
}

#[test]
fn a_worker_that_leaves_on_its_way_uncovers_its_job() {
    let mut scheduler = staffed([1, 1, 1, 1]);
    let gone = scheduler.next(&ready([0, 0, 0, 1])).unwrap();
    scheduler.leave(gone);
    assert!(scheduler.next(&ready([0, 0, 0, 1])).is_some());
    assert_eq!(scheduler.present(Lane::Background), 0);
    assert_eq!(scheduler.join(Lane::Low), gone, "the place is used again");
}

#[derive(Clone, Debug)]
enum Event {
    Push(usize),
    Select(Index),
    Unready(Index),
    Rest(Index),
    Leave(Index),
    Join(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..4_usize).prop_map(Event::Push),
        4 => any::<Index>().prop_map(Event::Select),
        1 => any::<Index>().prop_map(Event::Unready),
        3 => any::<Index>().prop_map(Event::Rest),
        1 => any::<Index>().prop_map(Event::Leave),
        1 => (0..4_usize).prop_map(Event::Join),
    ]
}

impl Scheduler {
    fn in_state(&self, wanted: impl Fn(State) -> bool) -> Vec<WorkerId> {
        let is_wanted = |id: &WorkerId| self.workers[*id].is_some_and(|it| wanted(it.state));
        (0..self.workers.len()).filter(is_wanted).collect()
    }

    fn pick(&self, index: &Index, wanted: impl Fn(State) -> bool) -> Option<WorkerId> {
        let ids = self.in_state(wanted);
        if ids.is_empty() { None } else { Some(*index.get(&ids)) }
    }

    /// What must hold whenever `next` has nothing more to say.
    fn check(&self, ready: &PerLane<usize>) {
        for lane in Lane::ALL {
            let covering = self.in_state(|state| state == State::Called(lane)).len();
            assert_eq!(self.covered[lane], covering);
            assert!(
                self.parked[lane]
                    .iter()
                    .all(|id| self.workers[*id].unwrap().state == State::Parked)
            );
            if self.uncovered(lane, ready) > 0 {
                assert!(self.parked[lane].is_empty(), "{lane} has work and a free worker");
                for lender in Lane::ALL {
                    assert!(self.parked[lender].len() <= kept_free(lender), "{lender} is idle");
                }
            }
        }
        let parked: usize = Lane::ALL.into_iter().map(|lane| self.parked[lane].len()).sum();
        assert_eq!(parked, self.in_state(|state| state == State::Parked).len());
        let present: usize = Lane::ALL.into_iter().map(|lane| self.present[lane]).sum();
        assert_eq!(present, self.workers.iter().flatten().count());
    }
}

proptest! {
    #[test]
    fn no_order_of_events_leaves_work_beside_a_free_worker(
        staff in prop::array::uniform4(0..4_usize),
        events in prop::collection::vec(event(), 0..200),
    ) {
        let mut scheduler = staffed(staff);
        let mut jobs = PerLane::<usize>::default();
        for event in events {
            match event {
                Event::Push(lane) => jobs[Lane::ALL[lane]] += 1,
                Event::Select(index) => {
                    let awake = |state| matches!(state, State::Called(_) | State::Unready);
                    if let Some(id) = scheduler.pick(&index, awake) {
                        let home = scheduler.home(id);
                        let others_free = scheduler.parked[home].len();
                        let chosen = scheduler.select(id, &jobs);
                        let first = Lane::ALL.into_iter().find(|lane| jobs[*lane] > 0);
                        let may_borrow = home != Lane::High || others_free > 0;
                        let expected = if jobs[home] > 0 {
                            Some(home)
                        } else {
                            first.filter(|_| may_borrow)
                        };
                        prop_assert_eq!(chosen, expected);
                        if let Some(lane) = chosen {
                            jobs[lane] -= 1;
                        }
                    }
                }
                Event::Unready(index) => {
                    let called = |state| matches!(state, State::Called(_));
                    if let Some(id) = scheduler.pick(&index, called) {
                        scheduler.unready(id);
                    }
                }
                Event::Rest(index) => {
                    if let Some(id) = scheduler.pick(&index, |state| state == State::Busy) {
                        scheduler.rest(id, &jobs);
                    }
                }
                Event::Leave(index) => {
                    if let Some(id) = scheduler.pick(&index, |_| true) {
                        scheduler.leave(id);
                    }
                }
                Event::Join(lane) => {
                    scheduler.join(Lane::ALL[lane]);
                }
            }
            while scheduler.next(&jobs).is_some() {}
            scheduler.check(&jobs);
        }
    }

    /// Ten workers under a flood of one lane, each attempt at most ten ticks long: a lone job of
    /// any other lane starts within those ten ticks, and the flooded lane never has less than its
    /// own workers.
    #[test]
    fn no_lane_starves_under_a_flood_and_each_keeps_its_floor(
        flood in 0..4_usize,
        lengths in prop::collection::vec(1..=10_u32, 64),
        arrivals in prop::collection::vec(0..4_usize, 300),
    ) {
        const STAFF: [usize; 4] = [4, 3, 2, 1];
        const LONGEST: u32 = 10;
        let flood = Lane::ALL[flood];
        let mut scheduler = staffed(STAFF);
        let mut jobs = PerLane::<usize>::default();
        let mut since = PerLane::<Option<u32>>::default();
        let mut busy: Vec<(u32, WorkerId, Lane)> = Vec::new();
        let mut lengths = lengths.iter().cycle();
        for (tick, arrival) in arrivals.into_iter().enumerate() {
            let tick = u32::try_from(tick).unwrap();
            jobs[flood] = 1_000;
            let arrival = Lane::ALL[arrival];
            if arrival != flood && jobs[arrival] == 0 {
                jobs[arrival] = 1;
                since[arrival] = Some(tick);
            }
            let (over, still): (Vec<_>, Vec<_>) =
                busy.into_iter().partition(|(end, ..)| *end <= tick);
            busy = still;
            let mut called = Vec::new();
            for (_, id, _) in over {
                scheduler.rest(id, &jobs);
                called.extend(scheduler.is_called(id).then_some(id));
            }
            loop {
                called.extend(std::iter::from_fn(|| scheduler.next(&jobs)));
                let Some(id) = called.pop() else { break };
                if let Some(lane) = scheduler.select(id, &jobs) {
                    jobs[lane] -= 1;
                    if let Some(since) = since[lane].take() {
                        prop_assert!(tick - since <= LONGEST, "{} waited too long", lane);
                    }
                    busy.push((tick + lengths.next().unwrap(), id, lane));
                }
            }
            let own = busy.iter().filter(|(_, id, lane)| {
                *lane == flood && scheduler.home(*id) == flood
            });
            if tick > LONGEST {
                prop_assert!(own.count() >= STAFF[flood as usize], "{} below its floor", flood);
            }
            for (lane, since) in Lane::ALL.into_iter().map(|lane| (lane, since[lane])) {
                prop_assert!(since.is_none_or(|since| tick - since <= LONGEST), "{} starves", lane);
            }
        }
    }
}
