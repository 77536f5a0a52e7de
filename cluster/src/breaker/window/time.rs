//! A sliding window of time: ten buckets in a ring.

use std::time::Duration;

use super::{Counts, Mark};

/// Buckets in the ring.
const BUCKETS: u64 = 10;

#[derive(Debug)]
pub(super) struct TimeWindow {
    /// Nanoseconds of a bucket.
    width: u64,
    /// The bucket that is being filled, counted from time zero.
    tick: u64,
    ring: [Counts; BUCKETS as usize],
}

impl TimeWindow {
    pub(super) fn new(length: Duration, now: u64) -> Self {
        let width = width(length);
        Self { width, tick: now / width, ring: Default::default() }
    }

    /// What a bucket held is put where the bucket began.
    pub(super) fn reshape(self, length: Duration) -> Self {
        let width = width(length);
        if width == self.width {
            return self;
        }
        // The new window ends with the bucket in which the old one's last began: nothing of it may
        // lie ahead.
        let tick = self.tick * self.width / width;
        let mut reshaped = Self { width, tick, ring: Default::default() };
        for age in 0..BUCKETS.min(self.tick + 1) {
            let then = (self.tick - age) * self.width / width;
            if tick - then < BUCKETS {
                reshaped.ring[(then % BUCKETS) as usize].add(*self.bucket(self.tick - age));
            }
        }
        reshaped
    }

    pub(super) fn clear(&mut self, now: u64) {
        *self = Self { width: self.width, tick: now / self.width, ring: Default::default() };
    }

    pub(super) fn advance(&mut self, successes: u64, now: u64) {
        self.current().calls += successes;
        let to = now / self.width;
        // A clock that was read before somebody else's is behind: its call counts as of then.
        for tick in to.saturating_sub(BUCKETS - 1).max(self.tick + 1)..=to {
            self.ring[(tick % BUCKETS) as usize] = Counts::default();
        }
        self.tick = self.tick.max(to);
    }

    pub(super) fn record(&mut self, mark: Mark) {
        self.current().add(Counts {
            calls: 1,
            failures: mark.failed.into(),
            slow: mark.slow.into(),
        });
    }

    pub(super) fn next_bucket(&self) -> u64 {
        (self.tick + 1).saturating_mul(self.width)
    }

    pub(super) fn counts(&self) -> Counts {
        self.ring.iter().fold(Counts::default(), |mut sum, bucket| {
            sum.add(*bucket);
            sum
        })
    }

    fn bucket(&self, tick: u64) -> &Counts {
        &self.ring[(tick % BUCKETS) as usize]
    }

    fn current(&mut self) -> &mut Counts {
        &mut self.ring[(self.tick % BUCKETS) as usize]
    }
}

fn width(length: Duration) -> u64 {
    u64::try_from((length / BUCKETS as u32).as_nanos()).unwrap_or(u64::MAX).max(1)
}
