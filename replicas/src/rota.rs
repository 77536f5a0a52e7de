//! What picks count and read instead of a clock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

use crate::pace::Pace;

/// Whose turn it is, roughly what time, and how many requests are timed. On a cache line of its own,
/// since every pick writes it.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Rota {
    /// Goes on when the snapshot changes, so that exactness survives that. Set back only by
    /// [`share_turn`](Self::share_turn), a little.
    turn: AtomicU64,
    /// Milliseconds after `start` when the clock was last read.
    millis: AtomicU32,
    /// A [`Pace`].
    pace: AtomicU64,
    start: Instant,
}

impl Rota {
    pub(crate) fn new() -> Self {
        Self {
            turn: AtomicU64::new(0),
            millis: AtomicU32::new(0),
            pace: AtomicU64::new(Pace::default().to_bits()),
            start: Instant::now(),
        }
    }

    /// The next turn, which nobody else gets.
    #[inline]
    pub(crate) fn take_turn(&self) -> u64 {
        self.turn.fetch_add(1, Relaxed)
    }

    /// The next turn, which another thread may get at the same moment: at a third of the cost, for
    /// where turns only break ties.
    #[inline]
    pub(crate) fn share_turn(&self) -> u64 {
        let turn = self.turn.load(Relaxed);
        self.turn.store(turn.wrapping_add(1), Relaxed);
        turn
    }

    /// The turn that comes next, for those that take none.
    #[inline]
    pub(crate) fn peek_turn(&self) -> u64 {
        self.turn.load(Relaxed)
    }

    /// The clock's last reading.
    #[inline]
    pub(crate) fn millis(&self) -> u32 {
        self.millis.load(Relaxed)
    }

    /// Whether the request with these random bits is to be timed.
    #[inline]
    pub(crate) fn is_timed(&self, random: u32) -> bool {
        Pace::from_bits(self.pace.load(Relaxed)).chooses(random)
    }

    /// Reads the clock for a request that begins and is timed, in nanoseconds after the set was built.
    #[inline(never)]
    pub(crate) fn begin(&self) -> u64 {
        let (now, millis) = self.now();
        // Of two threads that write at once, one is not counted, which does not matter.
        let pace = Pace::from_bits(self.pace.load(Relaxed));
        self.pace.store(pace.after_one(millis).to_bits(), Relaxed);
        now
    }

    /// Reads the clock, in nanoseconds and in milliseconds after the set was built.
    pub(crate) fn now(&self) -> (u64, u32) {
        // 584 years fit.
        let now = self.start.elapsed().as_nanos() as u64;
        // Cut off, as [`Estimate`](crate::latency::Estimate) expects.
        let millis = (now / 1_000_000) as u32;
        self.millis.store(millis, Relaxed);
        (now, millis)
    }
}
