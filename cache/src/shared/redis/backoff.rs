//! How long to wait before a connection is tried again: no clock or chance of its own.

use std::time::Duration;

/// Waits that double with each failure, from none to a second.
///
/// A second is as long as a server that is back should wait for its clients; with half of it at
/// random, many processes do not come at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(1);

    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait before the next attempt; `chance` is from 0 to 1.
    pub(super) fn delay(&self, chance: f64) -> Duration {
        let Some(doublings) = self.failures.checked_sub(1) else { return Duration::ZERO };
        let full = Self::FIRST.saturating_mul(1 << doublings.min(10)).min(Self::LONGEST);
        full.mul_f64(0.5 + chance / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_second_and_half_of_each_is_chance() {
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..7 {
            waits.push(backoff.delay(1.0).as_millis());
            backoff.failed();
        }
        assert_eq!(waits, [0, 50, 100, 200, 400, 800, 1_000]);
        assert_eq!(backoff.delay(0.0), Duration::from_millis(500));
        (0..100).for_each(|_| backoff.failed());
        assert_eq!(backoff.delay(1.0), Duration::from_secs(1));
        backoff.reset();
        assert_eq!(backoff.delay(1.0), Duration::ZERO);
    }
}
