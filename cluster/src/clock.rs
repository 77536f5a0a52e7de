//! The time for checks that are made for every request: nanoseconds since this process first
//! asked, read as cheaply as they can be.
//!
//! An exact reading costs more than all the rest of a check together: some 30 ns, and as much again
//! for making the processor finish first what it had begun. The kernel's own coarse clock is an
//! ordinary read of memory, and moves with the kernel's tick, every 1 to 10 ms. So each thread
//! keeps its last exact reading for as long as the coarse clock stands still.

use std::cell::Cell;
use std::sync::OnceLock;

use tokio::time::Instant;

/// A reading of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    nanos: u64,
    exact: bool,
}

#[derive(Debug, Clone, Copy)]
struct Recent {
    tick: u64,
    nanos: u64,
}

thread_local! {
    static RECENT: Cell<Recent> = const { Cell::new(Recent { tick: u64::MAX, nanos: 0 }) };
}

impl Moment {
    /// The time, late by at most one tick of the kernel. On a test clock that was paused before this
    /// thread's first reading, and where there is no coarse clock, it is exact. On one that is paused
    /// later, the real time is given out until the next tick.
    #[inline]
    pub(crate) fn recent() -> Self {
        let Some(tick) = tick() else {
            return Self::exact();
        };
        let recent = RECENT.get();
        if recent.tick == tick {
            return Self { nanos: recent.nanos, exact: false };
        }
        Self::first_of(tick)
    }

    /// Reads the clock for all of this tick.
    #[cold]
    fn first_of(tick: u64) -> Self {
        let (moment, real) = Self::read();
        if real {
            // Read after the tick: if the clock has ticked in between, the next reading is exact.
            RECENT.set(Recent { tick, nanos: moment.nanos });
        }
        moment
    }

    /// The time now.
    pub(crate) fn exact() -> Self {
        Self { nanos: since_origin(Instant::now()), exact: true }
    }

    /// A moment of a test's own.
    #[cfg(test)]
    pub(crate) fn at(nanos: u64) -> Self {
        Self { nanos, exact: true }
    }

    /// Nanoseconds since the origin that all moments of this process share.
    pub(crate) fn nanos(self) -> u64 {
        self.nanos
    }

    /// Reads the clock again unless this is exact already; whether it did.
    pub(crate) fn refine(&mut self) -> bool {
        if self.exact {
            return false;
        }
        *self = Self::exact();
        true
    }

    /// The exact time, and whether it is the real one: a paused or advanced clock of a test is not,
    /// and nothing but itself tells how far it has moved.
    #[expect(clippy::disallowed_types, reason = "the clock that tokio's is compared with")]
    fn read() -> (Self, bool) {
        let before = std::time::Instant::now();
        let now = Instant::now();
        let after = std::time::Instant::now();
        let real = (before..=after).contains(&now.into_std());
        (Self { nanos: since_origin(now), exact: true }, real)
    }
}

fn since_origin(now: Instant) -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let time = now.saturating_duration_since(*ORIGIN.get_or_init(|| now));
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(time.subsec_nanos()))
}

/// The coarse clock.
#[cfg(target_os = "linux")]
fn tick() -> Option<u64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Some((time.tv_sec as u64) << 30 | time.tv_nsec as u64)
}

#[cfg(not(target_os = "linux"))]
fn tick() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_recent_moment_is_never_ahead_and_catches_up_with_the_tick() {
        let start = Moment::exact();
        let mut last = Moment::recent();
        assert!(last.nanos() >= start.nanos());
        while last.nanos() < start.nanos() + 50_000_000 {
            let recent = Moment::recent();
            let exact = Moment::exact();
            assert!(recent.nanos() <= exact.nanos());
            assert!(recent.nanos() >= last.nanos());
            last = recent;
        }
    }

    #[test]
    fn a_refined_moment_is_exact_and_stays() {
        let mut moment = Moment { nanos: 0, exact: false };
        assert!(moment.refine());
        let exact = moment;
        assert!(!moment.refine());
        assert_eq!(moment, exact);
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_clock_is_followed_exactly() {
        let start = Moment::recent();
        for second in 1..=100 {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(Moment::recent().nanos() - start.nanos(), second * 1_000_000_000);
        }
    }
}
