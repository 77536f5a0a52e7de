//! The generic cell rate algorithm: a whole token bucket in one number.
//!
//! The number is the theoretical arrival time: the moment at which the bucket is full again. How
//! far it lies ahead says how much is used. Times are nanoseconds since an origin of the caller's.
//!
//! It is written out here rather than taken from the crate `governor`, whose tests' reference it
//! is: that reads its clock inside each check, so that stacked limits cannot share a reading, keeps
//! the arrival time to itself, which `reset` and a refund are made of, and fixes the quota when it
//! is made.

use std::time::Duration;

use super::super::{Decision, Quota};

/// A quota in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// Time in which one unit comes back.
    interval: u64,
    /// Time in which a whole burst comes back.
    burst: u64,
}

impl Rate {
    pub(super) fn new(quota: Quota) -> Self {
        Self { interval: quota.interval_nanos().max(1), burst: quota.burst_nanos() }
    }

    /// What taking `cost` units at `now` gives: the decision, and the arrival time to keep if it is
    /// allowed. A key that is not known has the arrival time 0.
    pub(super) fn take(self, arrival: u64, now: u64, cost: u32) -> (Decision, u64) {
        let used = arrival.saturating_sub(now);
        let price = self.price(cost);
        let after = used.saturating_add(price);
        if after <= self.burst {
            let remaining = self.units(self.burst - after);
            let reset = Duration::from_nanos(after);
            return (Decision::Allowed { remaining, reset }, now.saturating_add(after));
        }
        let decision = Decision::Limited {
            retry_after: (price <= self.burst).then(|| Duration::from_nanos(after - self.burst)),
            remaining: self.units(self.burst.saturating_sub(used)),
            reset: Duration::from_nanos(used),
        };
        (decision, arrival)
    }

    /// The arrival time without a charge of `cost` units, after which it was `charged`. What time
    /// has brought back since is not given a second time.
    pub(super) fn give_back(self, arrival: u64, now: u64, cost: u32, charged: u64) -> u64 {
        let outstanding = charged.saturating_sub(now);
        arrival.saturating_sub(self.price(cost).min(outstanding))
    }

    /// The arrival time under another quota: the same units stay used, at most a whole burst.
    pub(super) fn carry_over(self, to: Self, arrival: u64, now: u64) -> u64 {
        let used = u128::from(arrival.saturating_sub(now));
        let used = used * u128::from(to.interval) / u128::from(self.interval);
        now.saturating_add(u64::try_from(used).unwrap_or(u64::MAX).min(to.burst))
    }

    pub(super) fn interval(self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    fn price(self, cost: u32) -> u64 {
        self.interval.saturating_mul(u64::from(cost))
    }

    fn units(self, time: u64) -> u32 {
        u32::try_from(time / self.interval).unwrap_or(u32::MAX)
    }
}
