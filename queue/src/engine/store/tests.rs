//! The memory engine against a naive model: a list that is searched.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const STEP: Duration = Duration::from_millis(1);

#[derive(Clone, Debug)]
enum Event {
    Push { lane: usize, urgent: bool, delay: u32, key: Option<u8> },
    Claim(usize),
    Settle(Index, End),
    Release(Index),
    Pass(u32),
    Promote(usize),
    Replay(Index),
}

#[derive(Clone, Debug)]
enum End {
    Finish,
    Discard,
    Snooze(u32),
    Retry(u32),
    Bury,
}

fn event() -> impl Strategy<Value = Event> {
    let end = prop_oneof![
        Just(End::Finish),
        Just(End::Discard),
        (0..9_u32).prop_map(End::Snooze),
        (0..9_u32).prop_map(End::Retry),
        Just(End::Bury),
    ];
    let key = prop::option::weighted(0.3, 0..4_u8);
    let delay = prop_oneof![Just(0), 0..9_u32];
    prop_oneof![
        4 => (0..4_usize, any::<bool>(), delay, key)
            .prop_map(|(lane, urgent, delay, key)| Event::Push { lane, urgent, delay, key }),
        4 => (0..4_usize).prop_map(Event::Claim),
        3 => (any::<Index>(), end).prop_map(|(index, end)| Event::Settle(index, end)),
        1 => any::<Index>().prop_map(Event::Release),
        2 => (1..9_u32).prop_map(Event::Pass),
        2 => prop_oneof![Just(usize::MAX), 1..3_usize].prop_map(Event::Promote),
        1 => any::<Index>().prop_map(Event::Replay),
    ]
}

/// A job in the model.
#[derive(Clone, Debug)]
struct Twin {
    id: JobId,
    lane: Lane,
    urgent: bool,
    attempt: u32,
    place: u64,
    state: TwinState,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum TwinState {
    Ready,
    Delayed(Instant),
    Running,
}

#[derive(Default)]
struct Model {
    twins: Vec<Twin>,
    dead: VecDeque<Twin>,
    keys: Vec<(u8, Instant, JobId)>,
    place: u64,
}

const DEAD_KEPT: usize = 5;
const KEYS_KEPT: usize = 3;
const KEY_LIFETIME: Duration = Duration::from_millis(20);

impl Model {
    fn line_up(&mut self, mut twin: Twin, delay: u32, now: Instant) {
        self.place += 1;
        twin.place = self.place;
        twin.state =
            if delay == 0 { TwinState::Ready } else { TwinState::Delayed(now + STEP * delay) };
        self.twins.push(twin);
    }

    fn claim(&mut self, lane: Lane) -> Option<(JobId, u32)> {
        let twin = self
            .twins
            .iter_mut()
            .filter(|twin| twin.lane == lane && twin.state == TwinState::Ready)
            .min_by_key(|twin| (!twin.urgent, twin.place))?;
        twin.state = TwinState::Running;
        twin.attempt += 1;
        Some((twin.id, twin.attempt))
    }

    fn take(&mut self, id: JobId) -> Twin {
        let index = self.twins.iter().position(|twin| twin.id == id).unwrap();
        self.twins.remove(index)
    }

    fn promote(&mut self, now: Instant, limit: usize) -> usize {
        let mut promoted = 0;
        for lane in Lane::ALL {
            while promoted < limit {
                let due = self
                    .twins
                    .iter_mut()
                    .filter_map(|twin| match twin.state {
                        TwinState::Delayed(due) if twin.lane == lane && due <= now => {
                            Some((due, twin))
                        }
                        _ => None,
                    })
                    .min_by_key(|(due, twin)| (*due, twin.place));
                let Some((_, twin)) = due else { break };
                self.place += 1;
                twin.place = self.place;
                twin.state = TwinState::Ready;
                promoted += 1;
            }
        }
        promoted
    }

    fn holder(&mut self, key: Option<u8>, now: Instant) -> Option<JobId> {
        let key = key?;
        self.keys.retain(|(_, since, _)| now - *since < KEY_LIFETIME);
        self.keys.iter().find(|(held, ..)| *held == key).map(|(.., id)| *id)
    }

    fn count(&self, lane: Lane, wanted: impl Fn(TwinState) -> bool) -> usize {
        self.twins.iter().filter(|twin| twin.lane == lane && wanted(twin.state)).count()
    }
}

fn check(store: &Store, model: &Model, now: Instant) {
    let ready = store.ready();
    for lane in Lane::ALL {
        let stats = store.lane_stats(lane, now);
        assert_eq!(ready[lane], model.count(lane, |state| state == TwinState::Ready));
        assert_eq!(stats.depth, ready[lane]);
        let delayed = |state| matches!(state, TwinState::Delayed(_));
        assert_eq!(stats.delayed, model.count(lane, delayed));
        assert_eq!(stats.running, model.count(lane, |state| state == TwinState::Running));
        let held = (stats.depth + stats.delayed + stats.running) as u64;
        assert_eq!(
            stats.enqueued_total + stats.replayed_total,
            held + stats.succeeded_total + stats.discarded_total + stats.dead_total
        );
        assert_eq!(
            stats.started_total,
            stats.succeeded_total
                + stats.failed_total
                + stats.timed_out_total
                + stats.snoozed_total
                + stats.discarded_total
                + stats.cancelled_total
                + stats.running as u64
        );
        assert_eq!(
            stats.failed_total + stats.timed_out_total,
            stats.retried_total + stats.dead_total
        );
    }
    assert_eq!(store.held(), model.twins.len());
    assert_eq!(store.is_idle(), model.twins.is_empty());
    let due = model.twins.iter().filter_map(|twin| match twin.state {
        TwinState::Delayed(due) => Some(due),
        _ => None,
    });
    assert_eq!(store.next_due(), due.min());
    let dead: Vec<_> = store.letters().iter().map(|letter| letter.job.id).collect();
    assert_eq!(dead, model.dead.iter().map(|twin| twin.id).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn the_store_does_what_a_list_would(events in prop::collection::vec(event(), 0..150)) {
        let engine = MemoryEngine::default()
            .dead_letters(DEAD_KEPT)
            .key_capacity(KEYS_KEPT)
            .key_lifetime(KEY_LIFETIME);
        let mut store = Store::new(&engine);
        let mut model = Model::default();
        let mut running: Vec<Entry> = Vec::new();
        let mut now = Instant::now();
        for event in events {
            match event {
                Event::Push { lane, urgent, delay, key } => {
                    let lane = Lane::ALL[lane];
                    let mut job = Job::new("model", &()).unwrap().lane(lane).delay(STEP * delay);
                    job.urgent = urgent;
                    if let Some(key) = key {
                        job = job.idempotency_key(key);
                    }
                    let earlier = store.duplicate(&job, now).map(|receipt| receipt.id);
                    prop_assert_eq!(earlier, model.holder(key, now));
                    if earlier.is_some() {
                        continue;
                    }
                    let id = store.push(job, now).id;
                    if let Some(key) = key {
                        if model.keys.len() == KEYS_KEPT {
                            model.keys.remove(0);
                        }
                        model.keys.push((key, now, id));
                    }
                    let state = TwinState::Ready;
                    let twin = Twin { id, lane, urgent, attempt: 0, place: 0, state };
                    model.line_up(twin, delay, now);
                }
                Event::Claim(lane) => {
                    let lane = Lane::ALL[lane];
                    let entry = store.claim(lane, false, now);
                    let claimed = entry.as_ref().map(|it| (it.job.id, it.job.attempt));
                    prop_assert_eq!(claimed, model.claim(lane));
                    running.extend(entry);
                }
                Event::Settle(index, end) if !running.is_empty() => {
                    let entry = running.remove(index.index(running.len()));
                    let mut twin = model.take(entry.job.id);
                    let (verdict, leaves) = match end {
                        End::Finish => (Verdict::Finish, true),
                        End::Discard => (Verdict::Discard { reason: String::new() }, true),
                        End::Bury => {
                            if model.dead.len() == DEAD_KEPT {
                                model.dead.pop_front();
                            }
                            model.dead.push_back(twin.clone());
                            (Verdict::Bury { reason: String::new(), timed_out: false }, true)
                        }
                        End::Snooze(delay) => {
                            twin.attempt -= 1;
                            model.line_up(twin, delay, now);
                            (Verdict::Snooze { delay: STEP * delay }, false)
                        }
                        End::Retry(delay) => {
                            model.line_up(twin, delay, now);
                            let (delay, reason) = (STEP * delay, String::new());
                            (Verdict::Retry { delay, reason, timed_out: true }, false)
                        }
                    };
                    prop_assert_eq!(store.settle(entry, verdict, STEP, now), leaves);
                }
                Event::Release(index) if !running.is_empty() => {
                    let entry = running.remove(index.index(running.len()));
                    let mut twin = model.take(entry.job.id);
                    twin.attempt -= 1;
                    twin.state = TwinState::Ready;
                    model.twins.push(twin);
                    store.release(entry);
                }
                Event::Pass(steps) => now += STEP * steps,
                Event::Promote(limit) => {
                    prop_assert_eq!(store.promote(now, limit), model.promote(now, limit));
                }
                Event::Replay(index) if !model.dead.is_empty() => {
                    let at = index.index(model.dead.len());
                    let mut twin = model.dead.remove(at).unwrap();
                    prop_assert_eq!(store.lane_of_letter(twin.id), Some(twin.lane));
                    prop_assert!(store.replay(twin.id, now).is_some());
                    twin.attempt = 0;
                    model.line_up(twin, 0, now);
                }
                Event::Settle(..) | Event::Release(_) | Event::Replay(_) => {}
            }
            check(&store, &model, now);
        }
    }
}

#[test]
fn an_endless_delay_is_cut_and_not_an_overflow() {
    let mut store = Store::new(&MemoryEngine::default());
    let now = Instant::now();
    store.push(Job::new("late", &()).unwrap().delay(Duration::MAX), now);
    assert_eq!(store.next_due(), Some(now + LONGEST_DELAY));
}

#[test]
fn the_age_is_that_of_the_oldest_ready_job_urgent_or_not() {
    let mut store = Store::new(&MemoryEngine::default());
    let now = Instant::now();
    let job = || Job::new("age", &()).unwrap();
    store.push(job(), now);
    store.push(job().urgent(), now + 5 * STEP);
    store.push(job().delay(STEP), now);
    let age = |store: &Store| store.lane_stats(Lane::Medium, now + 9 * STEP).oldest_age_seconds;
    assert_eq!(age(&store), 0.009);
    assert!(store.claim(Lane::Medium, false, now).unwrap().job.urgent);
    assert_eq!(age(&store), 0.009);
    store.claim(Lane::Medium, false, now).unwrap();
    assert_eq!(age(&store), 0.0);
}
