//! What picks count and read instead of a clock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

/// Whose turn it is, and roughly what time. On a cache line of its own, since every pick writes it.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Rota {
    /// Never set back, so that exactness survives a change of the snapshot.
    turn: AtomicU64,
    /// Milliseconds after `start` when the clock was last read.
    millis: AtomicU32,
    start: Instant,
}

impl Rota {
    pub(crate) fn new() -> Self {
        Self { turn: AtomicU64::new(0), millis: AtomicU32::new(0), start: Instant::now() }
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

    /// Reads the clock.
    pub(crate) fn now(&self) -> (Instant, u32) {
        let now = Instant::now();
        // Cut off, as [`Estimate`](crate::latency::Estimate) expects.
        let millis = now.saturating_duration_since(self.start).as_millis() as u32;
        self.millis.store(millis, Relaxed);
        (now, millis)
    }
}
