//! How many retries and hedges are allowed: a share of the traffic, so that a failing set is not
//! buried under its own retries. Pure: time is an argument.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Seconds that the budget looks back, as in Finagle: long enough to cover the moment in which a
/// node dies, short enough to forget a quiet night.
const WINDOW: usize = 10;

/// Within any ten seconds at most `ratio` retries a request, and `per_second` beside.
#[derive(Debug)]
pub(super) struct RetryBudget {
    ratio: f64,
    per_second: u32,
    /// Requests since the last look: the usual request costs one addition.
    requests: AtomicU64,
    ring: Mutex<Ring>,
}

/// What happened in each of the last seconds.
#[derive(Debug)]
struct Ring {
    born: Instant,
    looked: Instant,
    /// The second that each slot counts.
    slots: [Slot; WINDOW],
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    second: u64,
    requests: f64,
    retries: u64,
}

impl RetryBudget {
    pub(super) fn new(ratio: f64, per_second: u32, now: Instant) -> Self {
        let ring = Ring { born: now, looked: now, slots: [Slot::default(); WINDOW] };
        Self { ratio, per_second, requests: AtomicU64::new(0), ring: Mutex::new(ring) }
    }

    /// Whether it was made for these settings.
    pub(super) fn is_of(&self, ratio: f64, per_second: u32) -> bool {
        (self.ratio, self.per_second) == (ratio, per_second)
    }

    /// Counts a request that is no retry.
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// Takes the right to one retry, if there is one.
    pub(super) fn withdraw(&self, now: Instant) -> bool {
        let mut ring = self.ring.lock();
        ring.requests(self.requests.swap(0, Relaxed), now);
        let (requests, retries) = ring.sums(now);
        let allowed = requests * self.ratio + f64::from(self.per_second) * WINDOW as f64;
        let within = ((retries + 1) as f64) <= allowed;
        if within {
            ring.slot(now).retries += 1;
        }
        within
    }

    /// Gives back what was taken at `then` for a retry that did not happen.
    pub(super) fn give_back(&self, then: Instant) {
        let mut ring = self.ring.lock();
        let retries = &mut ring.slot(then).retries;
        *retries = retries.saturating_sub(1);
    }
}

impl Ring {
    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_secs()
    }

    fn slot(&mut self, now: Instant) -> &mut Slot {
        self.slot_of(self.second(now))
    }

    fn slot_of(&mut self, second: u64) -> &mut Slot {
        let slot = &mut self.slots[(second % WINDOW as u64) as usize];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        slot
    }

    /// Requests since the last look, as if they had come evenly in the seconds after it; those before
    /// the window are forgotten.
    fn requests(&mut self, count: u64, now: Instant) {
        let (looked, second) = (self.second(self.looked), self.second(now));
        self.looked = now;
        let first = (looked + 1).min(second);
        let each = count as f64 / (second - first + 1) as f64;
        for second in first.max((second + 1).saturating_sub(WINDOW as u64))..=second {
            self.slot_of(second).requests += each;
        }
    }

    fn sums(&self, now: Instant) -> (f64, u64) {
        let second = self.second(now);
        let recent = |slot: &&Slot| second - slot.second.min(second) < WINDOW as u64;
        let slots = self.slots.iter().filter(recent);
        slots.fold((0.0, 0), |(requests, retries), slot| {
            (requests + slot.requests, retries + slot.retries)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// How many retries are granted at once.
    fn granted(budget: &RetryBudget, now: Instant) -> u64 {
        (0..100_000).take_while(|_| budget.withdraw(now)).count() as u64
    }

    #[test]
    fn a_fifth_of_the_requests_and_ten_a_second_may_be_retries() {
        let start = Instant::now();
        let budget = RetryBudget::new(0.2, 10, start);
        (0..1_000).for_each(|_| budget.request());
        assert_eq!(granted(&budget, start), 100 + 200);
        assert_eq!(
            granted(&budget, start + Duration::from_secs(9)),
            0,
            "it looks back ten seconds"
        );
        assert_eq!(granted(&budget, start + Duration::from_secs(10)), 100, "and no further");
    }

    #[test]
    fn requests_are_forgotten_ten_seconds_after_they_came_and_not_after_they_were_counted() {
        let start = Instant::now();
        let budget = RetryBudget::new(0.2, 0, start);
        (0..1_000).for_each(|_| budget.request());
        let counted = start + Duration::from_secs(10);
        assert!(budget.withdraw(counted));
        let later = counted + Duration::from_secs(9);
        assert_eq!(granted(&budget, later), 20 - 1, "those of one of the ten seconds are left");
    }

    #[test]
    fn the_traffic_of_a_night_does_not_pay_for_the_morning() {
        let start = Instant::now();
        let budget = RetryBudget::new(0.2, 0, start);
        (0..36_000).for_each(|_| budget.request());
        let morning = start + Duration::from_secs(36_000);
        assert_eq!(granted(&budget, morning), 2, "one request a second: ten in the window");
    }

    #[test]
    fn a_retry_that_does_not_happen_costs_nothing() {
        let now = Instant::now();
        let budget = RetryBudget::new(0.0, 1, now);
        for _ in 0..100 {
            assert!(budget.withdraw(now));
            budget.give_back(now);
        }
        assert_eq!(granted(&budget, now), 10);
    }

    #[test]
    fn without_a_budget_nothing_is_retried() {
        let now = Instant::now();
        let budget = RetryBudget::new(0.0, 0, now);
        (0..1_000).for_each(|_| budget.request());
        assert_eq!(granted(&budget, now), 0);
    }

    proptest::proptest! {
        #[test]
        fn no_window_holds_more_than_its_share(
            steps in proptest::collection::vec((0_u64..3_000, 0_u64..50, 0_u64..50), 1..60),
        ) {
            let start = Instant::now();
            let budget = RetryBudget::new(0.2, 1, start);
            let mut now = start;
            let (mut requests, mut retries) = (0, 0);
            for (millis, sent, wanted) in steps {
                now += Duration::from_millis(millis);
                for _ in 0..sent {
                    budget.request();
                }
                requests += sent;
                retries += (0..wanted).filter(|_| budget.withdraw(now)).count() as u64;
            }
            // Whole windows from the start, each with its own minimum.
            let windows = now.duration_since(start).as_secs() / WINDOW as u64 + 2;
            let most = requests as f64 * 0.2 * 2.0 + (windows * WINDOW as u64) as f64;
            proptest::prop_assert!(retries as f64 <= most, "{retries} of {requests}");
        }
    }
}
