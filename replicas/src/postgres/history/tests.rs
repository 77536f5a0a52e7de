//! The four situations of a replica, and a naive model.

use proptest::prelude::*;

use super::*;

const CURRENT: Duration = Duration::from_secs(1);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A primary on timeline 1 that is asked every 200 ms and writes 100 bytes between two questions.
fn busy(start: Instant, samples: u64) -> History {
    let mut history = History::default();
    for n in 0..samples {
        history.record(1, Lsn::new(1_000 + 100 * n), start + ms(200 * n));
    }
    history
}

#[tokio::test(start_paused = true)]
async fn an_idle_primary_s_replica_is_not_behind_however_long_it_idles() {
    let start = Instant::now();
    let mut history = History::default();
    for n in 0..10_000 {
        history.record(1, Lsn::new(500), start + ms(200 * n));
    }
    let now = start + ms(200 * 9_999 + 150);
    assert_eq!(history.lag(1, Lsn::new(500), now, CURRENT), Lag::Known(Duration::ZERO));
    assert_eq!(history.bytes_ahead(1, Lsn::new(500)), Some(0));
    assert_eq!(history.marks.len(), 1);
    // And one that lacks the last write has lacked it all the time.
    assert_eq!(history.lag(1, Lsn::new(499), now, CURRENT), Lag::AtLeast(now - start));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_stands_still_falls_behind_by_the_clock() {
    let start = Instant::now();
    let history = busy(start, 100);
    let now = start + ms(200 * 99 + 100);
    // It stopped between the samples of 2,000 ms and 2,200 ms.
    let stopped = Lsn::new(1_000 + 100 * 10 + 50);
    assert_eq!(history.lag(1, stopped, now, CURRENT), Lag::Known(now - (start + ms(2_000))));
    assert_eq!(history.bytes_ahead(1, stopped), Some(100 * 89 - 50));
    // The one that keeps up is ahead of what the primary was last known to have.
    let newest = Lsn::new(1_000 + 100 * 99 + 50);
    assert_eq!(history.lag(1, newest, now, CURRENT), Lag::Known(Duration::ZERO));
    assert_eq!(history.bytes_ahead(1, newest), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_replica_from_before_the_history_is_behind_by_at_least_its_length() {
    let start = Instant::now();
    let history = busy(start, 10);
    let now = start + ms(5_000);
    assert_eq!(history.lag(1, Lsn::new(999), now, CURRENT), Lag::AtLeast(ms(5_000)));
    assert_eq!(History::default().lag(0, Lsn::new(1), now, CURRENT), Lag::Unknown);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_current_while_the_primary_is_silent() {
    let start = Instant::now();
    let history = busy(start, 10);
    let last = start + ms(1_800);
    assert_eq!(history.last_heard(1), Some(last));
    let all = Lsn::new(9_999);
    assert_eq!(history.lag(1, all, last + CURRENT, CURRENT), Lag::Known(Duration::ZERO));
    let later = last + CURRENT + ms(1);
    assert_eq!(history.lag(1, all, later, CURRENT), Lag::Known(CURRENT + ms(1)));
}

#[tokio::test(start_paused = true)]
async fn a_promotion_begins_a_new_history() {
    let start = Instant::now();
    let mut history = busy(start, 10);
    history.record(2, Lsn::new(1_950), start + ms(2_000));
    let now = start + ms(2_100);
    assert_eq!(history.lag(1, Lsn::new(1_900), now, CURRENT), Lag::Unknown);
    assert_eq!(history.bytes_ahead(1, Lsn::new(1_900)), None);
    assert_eq!(history.lag(2, Lsn::new(1_950), now, CURRENT), Lag::Known(Duration::ZERO));
    assert_eq!(history.lag(2, Lsn::new(1_900), now, CURRENT), Lag::AtLeast(ms(100)));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lost_its_end_in_a_crash_forgets_it() {
    let start = Instant::now();
    let mut history = busy(start, 10);
    history.record(1, Lsn::new(1_500), start + ms(2_000));
    let now = start + ms(2_050);
    assert_eq!(history.lag(1, Lsn::new(1_500), now, CURRENT), Lag::Known(Duration::ZERO));
    assert_eq!(history.lag(1, Lsn::new(1_450), now, CURRENT), Lag::Known(now - (start + ms(800))));
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_samples_does_not_shorten_the_reach() {
    let start = Instant::now();
    let mut history = History::default();
    for n in 0..20_000 {
        history.record(1, Lsn::new(n), start + ms(2 * n));
    }
    let now = start + ms(40_000);
    assert!(history.marks.len() <= MOST);
    let Lag::Known(lag) = history.lag(1, Lsn::new(5_000), now, CURRENT) else {
        panic!("40 s are within reach")
    };
    assert!(lag >= ms(30_000) && lag <= ms(30_000) + RESOLUTION + ms(2), "{lag:?}");
}

#[tokio::test(start_paused = true)]
async fn the_history_is_bounded_and_forgets_the_oldest() {
    let start = Instant::now();
    let mut history = History::default();
    let interval = ms(75);
    // Two days of a primary that never rests.
    let samples = 2 * 24 * 3_600 * 1_000 / 75;
    for n in 0..samples {
        history.record(1, Lsn::new(n), start + interval * n as u32);
        assert!(history.marks.len() <= MOST);
    }
    let now = start + interval * (samples - 1) as u32;
    for seconds in [1, 9, 60, 600, 3_600, 2 * 3_600] {
        let behind = seconds * 1_000 / 75;
        let (real, replayed) = (interval * behind as u32, Lsn::new(samples - 1 - behind));
        let Lag::Known(lag) = history.lag(1, replayed, now, CURRENT) else {
            panic!("{real:?} are within reach")
        };
        let error = lag.checked_sub(real).unwrap();
        assert!(error <= interval + (real / THINNED).max(RESOLUTION), "{real:?}: {error:?}");
    }
    assert!(matches!(history.lag(1, Lsn::new(0), now, CURRENT), Lag::AtLeast(_)));
}

proptest! {
    /// Against the definition: now less the newest sample at or before what was replayed.
    #[test]
    fn the_lag_is_that_of_the_definition(
        steps in proptest::collection::vec((50_u64..400, 0_u64..3), 1..60),
        replayed in 0_u64..150,
        silence in 0_u64..900,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let start = runtime.block_on(async { Instant::now() });
        let (mut history, mut samples) = (History::default(), Vec::new());
        let (mut at, mut lsn) = (start, 10);
        for (pause, written) in steps {
            at += ms(pause);
            lsn += written;
            samples.push((at, lsn));
            history.record(7, Lsn::new(lsn), at);
        }
        let now = at + ms(silence);
        let newest = samples.iter().rfind(|(_, lsn)| *lsn <= replayed);
        let expected = match newest {
            Some((_, lsn)) if *lsn == samples[samples.len() - 1].1 => Lag::Known(Duration::ZERO),
            Some((at, _)) => Lag::Known(now - *at),
            None => Lag::AtLeast(now - samples[0].0),
        };
        prop_assert_eq!(history.lag(7, Lsn::new(replayed), now, CURRENT), expected);
    }
}
