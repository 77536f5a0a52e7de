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
pub(in super::super) struct Rate {
    /// Time in which one unit comes back.
    interval: u64,
    /// Time in which a whole burst comes back.
    burst: u64,
}

impl Rate {
    pub(in super::super) fn new(quota: Quota) -> Self {
        Self { interval: quota.interval_nanos().max(1), burst: quota.burst_nanos() }
    }

    /// Takes `cost` units at `now`, if they are there. A key that is not known has the arrival time
    /// 0.
    #[inline]
    pub(super) fn take(self, arrival: u64, now: u64, cost: u32) -> Taken {
        let used = arrival.saturating_sub(now);
        let after = used.saturating_add(self.price(cost));
        let allowed = after <= self.burst;
        Taken { allowed, cost, used: if allowed { after } else { used } }
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

    /// A refusal that is no matter of the bucket: come again when one unit has had time to come
    /// back.
    pub(super) fn refuse(self, cost: u32) -> Taken {
        Taken { allowed: false, cost, used: self.burst }
    }

    /// What came of a check, for people.
    pub(super) fn decision(self, taken: Taken) -> Decision {
        let Taken { allowed, cost, used } = taken;
        let remaining = self.units(self.burst.saturating_sub(used));
        let reset = Duration::from_nanos(used);
        if allowed {
            return Decision::Allowed { remaining, reset };
        }
        let price = self.price(cost);
        let wait = used.saturating_add(price).saturating_sub(self.burst);
        let retry_after = (price <= self.burst).then(|| Duration::from_nanos(wait));
        Decision::Limited { retry_after, remaining, reset }
    }

    /// Nanoseconds in which one unit comes back.
    #[cfg(feature = "axum")]
    pub(in super::super) fn interval(self) -> u64 {
        self.interval
    }

    fn price(self, cost: u32) -> u64 {
        self.interval.saturating_mul(u64::from(cost))
    }

    fn units(self, time: u64) -> u32 {
        u32::try_from(time / self.interval).unwrap_or(u32::MAX)
    }
}

/// What came of a check, as numbers: a caller that only wants to know whether it may go on pays for
/// no division.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) allowed: bool,
    pub(super) cost: u32,
    /// Time until the bucket is full again.
    pub(super) used: u64,
}

impl Taken {
    /// The arrival time to keep if it is allowed.
    pub(super) fn arrival(self, now: u64) -> u64 {
        now.saturating_add(self.used)
    }
}

#[cfg(test)]
mod tests;
