//! The time of a hit, for a quarter of the price of reading the clock.
//!
//! Reading the clock dominates a hit in memory: some 28 ns of a hundred. The kernel also keeps a
//! coarse clock that costs 7 ns and moves every few milliseconds. While it has not moved, the
//! precise time read last on this thread is used again, so lifetimes are kept to one move of the
//! coarse clock (1 to 10 ms, 4 on most systems).
//!
//! The precise clock is tokio's, which tests pause and advance. A thread therefore reuses a time
//! only after it has seen both clocks go at the same pace for a while; under a paused clock every
//! read is precise.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// A moment, in nanoseconds since the first use of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u64);

impl Tick {
    /// Over for every thread: none has read an earlier one.
    pub(crate) const PAST: Self = Self(0);

    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    pub(crate) fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }

    /// The time from `earlier` until here; zero if it is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Threads' times differ by less: two moves of the slowest coarse clock, and some more.
pub(crate) const SLACK: Duration = Duration::from_millis(25);

/// How long both clocks must have gone alike before a time is used twice.
const PROBATION: u64 = 20_000_000;

/// How far they may differ by the coarse clock's steps alone. A paused clock differs by all of
/// [`PROBATION`].
const TOLERANCE: u64 = 11_000_000;

#[derive(Clone, Copy)]
struct Seen {
    /// The coarse time at which `now` was read.
    coarse: u64,
    now: Tick,
    /// The start of the present comparison of the clocks.
    from: (u64, u64),
    steady: bool,
}

thread_local! {
    static SEEN: Cell<Seen> = const {
        Cell::new(Seen { coarse: 0, now: Tick(0), from: (0, 0), steady: false })
    };
}

/// The present moment.
#[inline]
pub(crate) fn now() -> Tick {
    let coarse = coarse();
    let seen = SEEN.get();
    if seen.steady && seen.coarse == coarse {
        return seen.now;
    }
    look(seen, coarse)
}

#[cold]
fn look(seen: Seen, coarse: u64) -> Tick {
    let now = precise();
    let pace = compare(seen.from, (coarse, now.0), seen.steady);
    SEEN.set(Seen { coarse, now, from: pace.from, steady: pace.steady });
    now
}

struct Pace {
    from: (u64, u64),
    steady: bool,
}

/// Whether the clocks (coarse, precise) have gone alike from `from` to `to`.
fn compare(from: (u64, u64), to: (u64, u64), steady: bool) -> Pace {
    if from == (0, 0) || to.0 < from.0 || to.1 < from.1 {
        return Pace { from: to, steady: false };
    }
    let (coarse, precise) = (to.0 - from.0, to.1 - from.1);
    if coarse.abs_diff(precise) > TOLERANCE {
        return Pace { from: to, steady: false };
    }
    if coarse < PROBATION {
        return Pace { from, steady };
    }
    Pace { from: to, steady: true }
}

fn precise() -> Tick {
    static START: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    // One from the start on, since zero stands for a clock never read.
    Tick(1 + nanos(now.saturating_duration_since(*START.get_or_init(|| now))))
}

#[cfg(target_os = "linux")]
fn coarse() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// Never the same twice, so that no time is reused.
#[cfg(not(target_os = "linux"))]
fn coarse() -> u64 {
    precise().0
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn clocks_that_go_alike_for_a_while_are_trusted() {
        let first = compare((0, 0), (100 * MS, 7 * MS), false);
        assert!(!first.steady);
        let soon = compare(first.from, (104 * MS, 12 * MS), first.steady);
        assert!(!soon.steady, "too soon to say");
        let later = compare(soon.from, (124 * MS, 32 * MS), soon.steady);
        assert!(later.steady);
        assert!(compare(later.from, (128 * MS, 35 * MS), true).steady);
    }

    #[test]
    fn a_clock_that_stands_still_jumps_or_goes_back_is_not() {
        for precise in [0, 5_000 * MS] {
            let pace = compare((100 * MS, 7 * MS), (120 * MS, 7 * MS + precise), true);
            assert!(!pace.steady, "{precise}");
        }
        assert!(!compare((100 * MS, 7 * MS), (90 * MS, 8 * MS), true).steady);
        assert!(!compare((100 * MS, 7 * MS), (120 * MS, 6 * MS), true).steady);
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_clock_is_followed_exactly() {
        let before = now();
        for _ in 0..50 {
            tokio::time::advance(Duration::from_millis(7)).await;
            std::thread::sleep(Duration::from_micros(600));
        }
        assert_eq!(now().since(before), Duration::from_millis(350));
    }

    #[test]
    fn time_goes_on_while_nobody_yields() {
        let before = now();
        while now().since(before) < Duration::from_millis(60) {
            std::hint::spin_loop();
        }
    }
}
