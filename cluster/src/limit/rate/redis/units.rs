//! A quota in the whole numbers that the script counts with.

use std::time::Duration;

/// What a microsecond pays off, what one request costs, and the most that may be owed, in units
/// chosen so that all three are whole numbers, and as small as they can be: the script's numbers
/// are exact below 2^53. Above it they round by less than one part in 2^52.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Units {
    pub(super) drain: u64,
    pub(super) unit: u64,
    pub(super) capacity: u128,
}

impl Units {
    /// `count` requests a `period`, `burst` at once; none of them zero.
    pub(super) fn new(count: u32, period: Duration, burst: u32) -> Self {
        let nanos = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let drain = u64::from(count) * 1_000;
        let divisor = gcd(drain, nanos).max(1);
        let (drain, unit) = (drain / divisor, nanos / divisor);
        Self { drain, unit, capacity: u128::from(unit) * u128::from(burst) }
    }

    /// What so many requests cost.
    pub(super) fn price(&self, cost: u32) -> i128 {
        i128::from(self.unit) * i128::from(cost)
    }

    /// What is paid off in that time.
    pub(super) fn paid_in(&self, time: Duration) -> i128 {
        let paid = u128::from(self.drain).saturating_mul(time.as_micros());
        i128::try_from(paid).unwrap_or(i128::MAX)
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(count: u32, period: Duration, burst: u32) -> (u64, u64, u128) {
        let Units { drain, unit, capacity } = Units::new(count, period, burst);
        (drain, unit, capacity)
    }

    #[test]
    fn a_quota_becomes_the_smallest_whole_numbers() {
        let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
        assert_eq!(units(1, second, 1), (1, 1_000_000, 1_000_000));
        assert_eq!(units(3, second, 9), (3, 1_000_000, 9_000_000), "a third of a second is exact");
        assert_eq!(units(10_000_000, second, 50), (10, 1, 50), "ten requests a microsecond");
        assert_eq!(units(1_000_000, day, 1_000_000), (1, 86_400, 86_400_000_000));
        assert_eq!(units(2, Duration::from_nanos(3), 1), (2_000, 3, 3));
    }

    #[test]
    fn no_quota_overflows() {
        let (drain, unit, capacity) = units(u32::MAX, Duration::MAX, u32::MAX);
        assert!(drain > 0 && unit > 0 && capacity >= unit.into());
        let units = Units::new(1, Duration::MAX, u32::MAX);
        assert!(units.price(u32::MAX) > 0 && units.paid_in(Duration::MAX) > 0);
    }
}
