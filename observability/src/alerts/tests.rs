//! Tests of the alert engine, by table and against a plain statement of its promises.

use proptest::prelude::*;

use super::*;

const MINUTE: u64 = 60;

struct Bench {
    engine: Engine,
    start: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { engine: Engine::new(&ObservabilityConfig::default()), start: Instant::now() }
    }

    /// CPU (warning 70, critical 90) at a second: what was told, and the active level.
    fn cpu(&mut self, second: u64, value: f64) -> (Option<(Change, Level)>, Option<Level>) {
        let mut readings = Readings::default();
        readings.set(Signal::Cpu, Some(value));
        self.at(second, &readings)
    }

    fn at(&mut self, second: u64, readings: &Readings) -> (Option<(Change, Level)>, Option<Level>) {
        let now = self.start + Duration::from_secs(second);
        let events = self.engine.observe(now, SystemTime::UNIX_EPOCH, readings);
        assert!(events.len() <= 1, "one signal, one event");
        let told = events.first().map(|e| (e.change, e.alert.level));
        (told, self.engine.active().first().map(|a| a.level))
    }
}

const RAISED_WARNING: Option<(Change, Level)> = Some((Change::Raised, Level::Warning));
const RAISED_CRITICAL: Option<(Change, Level)> = Some((Change::Raised, Level::Critical));
const WARNING: Option<Level> = Some(Level::Warning);
const CRITICAL: Option<Level> = Some(Level::Critical);

#[test]
fn a_value_must_hold_before_it_counts() {
    let mut bench = Bench::new();
    assert_eq!(bench.cpu(0, 75.0), (None, None));
    assert_eq!(bench.cpu(5, 75.0), (None, None));
    assert_eq!(bench.cpu(8, 60.0), (None, None), "one good sample starts the wait again");
    assert_eq!(bench.cpu(10, 75.0), (None, None));
    assert_eq!(bench.cpu(15, 75.0), (None, None));
    assert_eq!(bench.cpu(20, 75.0), (RAISED_WARNING, WARNING));
}

#[test]
fn between_clear_level_and_threshold_nothing_changes() {
    let mut bench = Bench::new();
    bench.cpu(0, 75.0);
    assert_eq!(bench.cpu(10, 75.0), (RAISED_WARNING, WARNING));
    for second in 11..200 {
        let value = if second % 2 == 0 { 64.0 } else { 69.0 };
        assert_eq!(bench.cpu(second, value), (None, WARNING), "63 is where it clears");
    }
    bench.cpu(200, 62.0);
    assert_eq!(bench.cpu(210, 62.0), (Some((Change::Resolved, Level::Warning)), None));
    assert_eq!(bench.cpu(215, 62.0), (None, None), "resolved once");
}

#[test]
fn escalation_passes_the_cooldown_and_the_way_down_is_silent() {
    let mut bench = Bench::new();
    bench.cpu(0, 75.0);
    assert_eq!(bench.cpu(10, 75.0), (RAISED_WARNING, WARNING));
    bench.cpu(15, 95.0);
    assert_eq!(bench.cpu(25, 95.0), (RAISED_CRITICAL, CRITICAL));
    bench.cpu(30, 75.0);
    assert_eq!(bench.cpu(40, 75.0), (None, WARNING));
    bench.cpu(45, 95.0);
    assert_eq!(bench.cpu(55, 95.0), (None, CRITICAL), "critical was told within the cooldown");
}

#[test]
fn each_level_has_its_own_hold() {
    let mut bench = Bench::new();
    bench.cpu(0, 75.0);
    bench.cpu(5, 95.0);
    assert_eq!(bench.cpu(10, 95.0), (RAISED_WARNING, WARNING), "critical for 5 s only");
    assert_eq!(bench.cpu(15, 95.0), (RAISED_CRITICAL, CRITICAL));
}

#[test]
fn a_lasting_alert_is_told_again_after_each_cooldown() {
    let mut bench = Bench::new();
    bench.cpu(0, 75.0);
    let told: Vec<_> = (1..=190).filter_map(|n| Some((n * 5, bench.cpu(n * 5, 75.0).0?))).collect();
    let persists = (Change::Persists, Level::Warning);
    assert_eq!(
        told,
        [(10, (Change::Raised, Level::Warning)), (310, persists), (610, persists), (910, persists)]
    );
}

#[test]
fn an_alert_muted_by_the_cooldown_is_told_at_its_end_or_not_at_all() {
    let mut bench = Bench::new();
    bench.cpu(0, 75.0);
    bench.cpu(10, 75.0);
    bench.cpu(20, 10.0);
    assert_eq!(bench.cpu(30, 10.0).0, Some((Change::Resolved, Level::Warning)));
    // Back within five minutes: active but muted.
    bench.cpu(MINUTE, 75.0);
    assert_eq!(bench.cpu(MINUTE + 10, 75.0), (None, WARNING));
    bench.cpu(MINUTE + 20, 10.0);
    assert_eq!(bench.cpu(MINUTE + 30, 10.0), (None, None), "never told, so no all-clear");
    // Back again and staying: told once the cooldown is over.
    bench.cpu(2 * MINUTE, 75.0);
    assert_eq!(bench.cpu(2 * MINUTE + 10, 75.0), (None, WARNING));
    assert_eq!(bench.cpu(310, 75.0), (RAISED_WARNING, WARNING));
}

#[test]
fn a_signal_that_falls_silent_is_over() {
    let mut bench = Bench::new();
    bench.cpu(0, 95.0);
    bench.cpu(10, 95.0);
    bench.at(20, &Readings::default());
    let (told, active) = bench.at(30, &Readings::default());
    assert_eq!((told, active), (Some((Change::Resolved, Level::Critical)), None));
}

#[test]
fn each_signal_has_its_own_cooldown() {
    let mut bench = Bench::new();
    let mut readings = Readings::default();
    readings.set(Signal::Cpu, Some(95.0));
    bench.at(0, &readings);
    assert_eq!(bench.at(10, &readings).0, RAISED_CRITICAL);
    readings.set(Signal::QueueSize, Some(6_000.0));
    bench.at(15, &readings);
    assert_eq!(bench.at(25, &readings).0, RAISED_CRITICAL, "the queue's, not the CPU's");
    assert_eq!(bench.engine.active().len(), 2);
}

#[test]
fn an_alert_says_everything_in_one_sentence_and_in_json() {
    let mut bench = Bench::new();
    bench.cpu(0, 93.25);
    bench.cpu(10, 93.25);
    let alert = bench.engine.active().remove(0);
    assert_eq!(alert.message, "CPU 93.2 % (threshold critical 90 %)");
    let json = serde_json::to_value(&alert).unwrap();
    assert_eq!(json["signal"], "cpu");
    assert_eq!(json["level"], "critical");
    assert_eq!(json["since"], "1970-01-01T00:00:00.000Z");
}

proptest! {
    #[test]
    fn events_keep_their_promises(
        values in proptest::collection::vec((1..120_u64, 0.0..150.0_f64), 1..200),
    ) {
        let mut bench = Bench::new();
        let (mut second, mut open, mut last) = (0, false, None::<(u64, Level)>);
        for (step, value) in values {
            second += step;
            let (told, active) = bench.cpu(second, value);
            match told {
                Some((Change::Resolved, _)) => {
                    prop_assert!(open && active.is_none());
                    open = false;
                }
                Some((change, level)) => {
                    prop_assert_eq!(active, Some(level));
                    prop_assert!(value >= 63.0, "told about a value that is clear");
                    if let Some((at, before)) = last {
                        prop_assert!(second - at >= 300 || level > before, "too soon");
                    }
                    prop_assert!(open || change == Change::Raised);
                    (open, last) = (true, Some((second, level)));
                }
                None => {}
            }
            if value >= 90.0 && active.is_none() {
                prop_assert!(bench.engine.rules[0].warning.since.is_some(), "forgot a high value");
            }
        }
    }
}
