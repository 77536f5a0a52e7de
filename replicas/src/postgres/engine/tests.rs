//! A cluster of three through its life, with answers and times put in.

use std::borrow::Borrow;

use super::*;

const SYSTEM: u64 = 42;
const REPLICA_INTERVAL: Duration = Duration::from_millis(400);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn name(text: &str) -> Name {
    Name::from(text)
}

fn writable(timeline: u32, lsn: u64) -> Sample {
    let state = State::Writable { timeline, written: Lsn::new(lsn) };
    Sample { system: SYSTEM, run: "first".into(), state }
}

fn standby(timeline: Option<u32>, lsn: u64) -> Sample {
    let lsn = Some(Lsn::new(lsn));
    let state = State::Standby { timeline, replayed: lsn, received: lsn };
    Sample { system: SYSTEM, run: "first".into(), state }
}

fn restarted(mut sample: Sample) -> Sample {
    sample.run = "second".into();
    sample
}

/// The engine, the time, and what the set was told last.
struct Cluster {
    engine: Engine,
    now: Instant,
    told: BTreeMap<Name, Observation>,
    events: Vec<Event>,
}

impl Cluster {
    fn new(nodes: &[&str]) -> Self {
        let engine = Engine::new(&MonitorConfig::default(), None);
        let now = Instant::now();
        let mut cluster = Self { engine, now, told: BTreeMap::new(), events: Vec::new() };
        for node in nodes {
            let step = cluster.engine.join(&name(node), now);
            cluster.take(step);
        }
        cluster
    }

    /// `a` is the primary, `b` and `c` have all it has.
    fn healthy() -> Self {
        let mut cluster = Self::new(&["a", "b", "c"]);
        cluster.saw("a", writable(1, 100));
        cluster.saw("b", standby(Some(1), 100));
        cluster.saw("c", standby(Some(1), 100));
        assert_eq!(cluster.role("a"), (Role::Primary, None));
        assert_eq!(cluster.role("b"), (Role::Replica, None));
        cluster.events.clear();
        cluster
    }

    fn take(&mut self, step: Step) {
        for (node, observation) in step.observations {
            self.told.insert(node, observation);
            let primaries = self.told.values().filter(|told| told.role == Role::Primary);
            assert!(primaries.count() <= 1);
        }
        self.events.extend(step.events);
    }

    fn saw(&mut self, node: &str, sample: impl Borrow<Sample>) {
        let step = self.engine.saw(&name(node), sample.borrow(), self.now, self.now);
        self.take(step);
    }

    fn missed(&mut self, node: &str) {
        let step = self.engine.missed(&name(node), "refused", self.now);
        self.take(step);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    fn role(&self, node: &str) -> (Role, Option<Exclusion>) {
        let told = self.told[node];
        (told.role, told.excluded)
    }

    fn lag(&self, node: &str) -> (Option<Duration>, Option<u64>) {
        let told = self.told[node];
        (told.lag, told.lag_bytes)
    }

    fn events(&mut self) -> Vec<String> {
        self.events.drain(..).map(|event| event.to_string()).collect()
    }
}

const UNKNOWN: (Role, Option<Exclusion>) = (Role::None, Some(Exclusion::Unknown));
const FENCED: (Role, Option<Exclusion>) = (Role::None, Some(Exclusion::Fenced));
const REPLICA: (Role, Option<Exclusion>) = (Role::Replica, None);
const PRIMARY: (Role, Option<Exclusion>) = (Role::Primary, None);

#[tokio::test(start_paused = true)]
async fn nobody_takes_anything_before_the_first_decision() {
    let mut cluster = Cluster::new(&["a", "b"]);
    assert_eq!((cluster.role("a"), cluster.role("b")), (UNKNOWN, UNKNOWN));
    cluster.saw("a", writable(1, 100));
    assert_eq!(cluster.role("a"), UNKNOWN);
    let step = cluster.engine.settle(cluster.now);
    cluster.take(step);
    assert_eq!((cluster.role("a"), cluster.role("b")), (PRIMARY, UNKNOWN));
    assert_eq!(cluster.events(), ["a is the primary, on timeline 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_replica_heard_before_the_primary_is_measured_as_soon_as_there_is_one() {
    let mut cluster = Cluster::new(&["a", "b"]);
    cluster.saw("b", standby(Some(1), 40));
    cluster.saw("a", writable(1, 100));
    assert_eq!(cluster.role("a"), PRIMARY);
    // It lacks something, and nobody knows since when.
    assert_eq!(cluster.role("b"), (Role::Replica, Some(Exclusion::Unknown)));
    assert_eq!(cluster.lag("b"), (None, Some(60)));
    cluster.saw("b", standby(Some(1), 100));
    assert_eq!((cluster.role("b"), cluster.lag("b")), (REPLICA, (Some(Duration::ZERO), Some(0))));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_stands_still_is_excluded_and_admitted_when_it_has_caught_up() {
    let mut cluster = Cluster::healthy();
    for n in 1..=60 {
        cluster.wait(ms(200));
        cluster.saw("a", writable(1, 100 + n));
        cluster.saw("c", standby(Some(1), 100 + n));
        cluster.saw("b", standby(Some(1), 100));
    }
    assert_eq!(cluster.role("b"), (Role::Replica, Some(Exclusion::Lag)));
    assert_eq!(cluster.lag("b"), (Some(ms(12_000)), Some(60)));
    assert_eq!(cluster.role("c"), REPLICA);
    assert_eq!(cluster.events(), ["b is 10.2s and 51 bytes behind"]);
    // Seven seconds behind is not good enough to return, and knowing nothing changes nothing.
    cluster.saw("b", standby(Some(1), 125));
    assert_eq!(cluster.role("b").1, Some(Exclusion::Lag));
    cluster.saw("b", standby(Some(1), 140));
    assert_eq!(cluster.role("b"), REPLICA);
    assert_eq!(cluster.events(), ["b has caught up"]);
    assert_eq!(cluster.engine.stats().lag_exclusions_total, 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_replica_shows_is_as_old_as_the_last_word_of_the_primary_that_it_has() {
    let mut cluster = Cluster::healthy();
    let heard = cluster.now;
    cluster.wait(ms(400));
    cluster.saw("b", standby(Some(1), 100));
    assert_eq!(cluster.lag("b").0, Some(Duration::ZERO), "it has all that is known");
    assert_eq!(cluster.told["b"].complete_until, Some(heard), "more may have been written since");
    cluster.saw("a", writable(1, 100));
    cluster.saw("b", standby(Some(1), 100));
    assert_eq!(cluster.told["b"].complete_until, Some(cluster.now));
    // Of what is before the history, or on another timeline, nobody knows.
    for unknown in [standby(Some(1), 99), standby(Some(2), 100)] {
        cluster.saw("b", unknown);
        assert_eq!(cluster.told["b"].complete_until, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_primary_does_not_take_its_replicas_with_it() {
    let mut cluster = Cluster::healthy();
    for _ in 0..100 {
        cluster.wait(REPLICA_INTERVAL);
        cluster.missed("a");
        // Their walreceivers are gone with the primary; the timeline is remembered.
        cluster.saw("b", standby(None, 100));
    }
    assert_eq!(cluster.role("b"), REPLICA);
    assert_eq!(cluster.lag("b"), (Some(ms(40_000)), Some(0)), "that is how old it may be");
    assert_eq!(cluster.role("a"), PRIMARY, "nobody has taken its place");
    assert!(cluster.engine.is_searching());
    assert_eq!(cluster.events(), ["a does not answer: refused"]);
    cluster.saw("a", restarted(writable(1, 100)));
    assert!(!cluster.engine.is_searching());
    assert_eq!(cluster.events(), ["a answers"]);
}

#[tokio::test(start_paused = true)]
async fn a_promotion_moves_the_writes_and_begins_a_new_history() {
    let mut cluster = Cluster::healthy();
    cluster.missed("a");
    cluster.saw("b", writable(2, 110));
    assert_eq!((cluster.role("a"), cluster.role("b")), (FENCED, PRIMARY));
    let expected = [
        "a does not answer: refused",
        // It is not said that the old one takes writes: it is down.
        "b is the primary after a, on timeline 2",
    ];
    assert_eq!(cluster.events(), expected);
    assert_eq!(cluster.engine.stats().fenced_total, 0);
    // Whether what it has is on the new timeline cannot be known before it receives that.
    cluster.saw("c", standby(None, 105));
    assert_eq!(cluster.role("c"), (Role::Replica, Some(Exclusion::Unknown)));
    cluster.saw("c", standby(Some(2), 110));
    assert_eq!(cluster.role("c"), REPLICA);
    // The old one comes back as it was: told once, and never trusted.
    for _ in 0..5 {
        cluster.saw("a", restarted(writable(1, 130)));
    }
    assert_eq!(cluster.role("a"), FENCED);
    let fenced = "a takes writes on timeline 1, but 2 is the newest";
    assert_eq!(cluster.events(), ["a answers", fenced]);
    cluster.saw("a", Sample { run: "third".into(), ..writable(1, 140) });
    assert_eq!(cluster.events(), [fenced], "it came back once more");
    assert_eq!(cluster.engine.stats().fenced_total, 2);
    // Then it follows.
    cluster.saw("a", Sample { run: "fourth".into(), ..standby(Some(2), 110) });
    assert_eq!(cluster.role("a"), REPLICA);
    assert_eq!(cluster.events(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_old_primary_that_was_not_stopped_is_told_of_by_its_own_word() {
    let mut cluster = Cluster::healthy();
    cluster.saw("b", writable(2, 110));
    assert_eq!(cluster.events(), ["b is the primary after a, on timeline 2"]);
    cluster.saw("a", writable(1, 120));
    assert_eq!(cluster.events(), ["a takes writes on timeline 1, but 2 is the newest"]);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_cannot_be_asked_is_out_once_it_may_lag_too_much() {
    let mut cluster = Cluster::healthy();
    cluster.wait(ms(100));
    cluster.saw("a", writable(1, 110));
    cluster.saw("b", standby(Some(1), 100));
    assert_eq!(cluster.engine.stats().node("b").unwrap().lag_bytes, Some(10));
    for _ in 0..10 {
        cluster.wait(ms(1_000));
        cluster.missed("b");
        assert_eq!(cluster.role("b"), REPLICA, "requests may still be served by it");
    }
    let stats = cluster.engine.stats();
    let b = stats.node("b").unwrap();
    assert_eq!((b.lag, b.lag_bytes), (None, None), "nobody knows any more");
    cluster.wait(ms(1));
    cluster.missed("b");
    assert_eq!(cluster.role("b"), (Role::Replica, Some(Exclusion::Silent)));
    let told = cluster.told["b"];
    assert_eq!((told.position, told.complete_until, told.lag), (0, None, None));
    // One answer is enough.
    cluster.saw("a", writable(1, 110));
    cluster.saw("b", standby(Some(1), 110));
    assert_eq!(cluster.role("b"), REPLICA);
    // The primary stays what it is.
    cluster.wait(ms(60_000));
    cluster.missed("a");
    assert_eq!(cluster.role("a"), PRIMARY);
}

/// It has a `restore_command` as well, and goes on by an archive when its primary is gone.
#[tokio::test(start_paused = true)]
async fn what_a_standby_replays_from_an_archive_is_of_no_known_timeline() {
    let mut cluster = Cluster::healthy();
    let without = |replayed, received: Option<u64>| {
        let (replayed, received) = (Some(Lsn::new(replayed)), received.map(Lsn::new));
        let state = State::Standby { timeline: None, replayed, received };
        Sample { system: SYSTEM, run: "first".into(), state }
    };
    let unknown = (Role::Replica, Some(Exclusion::Unknown));
    cluster.saw("b", without(100, Some(100)));
    assert_eq!(cluster.role("b"), REPLICA, "all of it was received");
    cluster.saw("b", without(101, Some(100)));
    assert_eq!((cluster.role("b"), cluster.told["b"].timeline), (unknown, 0));
    cluster.saw("b", without(101, Some(101)));
    assert_eq!(cluster.role("b"), unknown, "where it is now was not seen");
    cluster.saw("b", standby(Some(1), 101));
    assert_eq!(cluster.role("b"), REPLICA);
    // Its processes were started anew within one run, as after a crash of one of them.
    cluster.saw("b", without(100, None));
    assert_eq!(cluster.role("b"), unknown);
}

#[tokio::test(start_paused = true)]
async fn a_timeline_is_not_remembered_over_a_restart() {
    let mut cluster = Cluster::healthy();
    cluster.saw("b", restarted(standby(None, 100)));
    assert_eq!(cluster.role("b"), (Role::Replica, Some(Exclusion::Unknown)));
    assert_eq!(cluster.told["b"].timeline, 0);
    cluster.saw("b", restarted(standby(Some(1), 100)));
    assert_eq!(cluster.role("b"), REPLICA);
}

#[tokio::test(start_paused = true)]
async fn a_split_brain_and_a_stranger_are_told_and_get_nothing() {
    let mut cluster = Cluster::healthy();
    cluster.saw("b", writable(2, 110));
    cluster.saw("c", writable(2, 111));
    assert_eq!((cluster.role("b"), cluster.role("c")), (PRIMARY, FENCED));
    cluster.saw("a", Sample { system: 7, ..writable(9, 1) });
    assert_eq!(cluster.role("a"), FENCED);
    let told = cluster.events();
    assert_eq!(
        told[1..],
        ["c takes writes on timeline 2, as the primary b does", "a is of the system 7, not of 42"]
    );
    let stats = cluster.engine.stats();
    assert_eq!((stats.split_brains_total, stats.foreign_systems_total), (1, 1));
    assert_eq!((stats.primary.as_deref(), stats.timeline), (Some("b"), 2));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_left_is_not_judged_and_may_come_back_under_its_name() {
    let mut cluster = Cluster::healthy();
    let step = cluster.engine.leave("b", cluster.now);
    cluster.take(step);
    cluster.told.clear();
    cluster.saw("b", standby(Some(1), 100));
    assert!(cluster.told.is_empty());
    let step = cluster.engine.join(&name("b"), cluster.now);
    cluster.take(step);
    assert_eq!(cluster.role("b"), UNKNOWN);
    cluster.saw("b", standby(Some(1), 100));
    assert_eq!(cluster.role("b"), REPLICA);
}

#[tokio::test(start_paused = true)]
async fn every_figure_that_is_known_is_handed_out_and_no_other() {
    let mut cluster = Cluster::new(&["a", "b", "c"]);
    cluster.saw("a", writable(1, 100));
    cluster.saw("b", standby(Some(1), 60));
    let step = cluster.engine.settle(cluster.now);
    cluster.take(step);
    let mut figures = BTreeMap::new();
    cluster.engine.stats().visit(&mut |name, labels, value| {
        let labels: Vec<String> = labels.iter().map(|(_, value)| (*value).to_owned()).collect();
        figures.insert(format!("{name} {}", labels.join(" ")), value);
    });
    let of = |figure: &str| figures.get(&format!("replicas_postgres_{figure}")).copied();
    assert_eq!(of("timeline "), Some(1.0));
    assert_eq!(of("promotions_total "), Some(1.0));
    assert_eq!(of("node_standing a primary"), Some(1.0));
    assert_eq!(of("node_standing c unheard"), Some(1.0));
    assert_eq!(of("node_lag_seconds a"), None);
    assert_eq!((of("node_lag_seconds b"), of("node_lag_bytes b")), (None, Some(40.0)));
    assert_eq!(of("node_position_bytes b"), Some(60.0));
    assert_eq!(figures.len(), 7 + 3 * 6 + 1);
}
