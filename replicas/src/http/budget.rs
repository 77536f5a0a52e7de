//! How many retries and hedges are allowed: a share of the traffic, so that a failing set is not
//! buried under its own retries. Pure: time is an argument.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

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
        let second = self.second(now);
        let slot = &mut self.slots[(second % WINDOW as u64) as usize];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        slot
    }

    /// Requests since the last look. If that is longer ago than the window, only the share that
    /// falls into it counts, as if they had come evenly.
    fn requests(&mut self, count: u64, now: Instant) {
        let since = now.saturating_duration_since(self.looked);
        let window = Duration::from_secs(WINDOW as u64);
        let share = if since > window { window.div_duration_f64(since) } else { 1.0 };
        self.looked = now;
        self.slot(now).requests += count as f64 * share;
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
