//! Against a token bucket that counts tokens, against `governor`, and over every stretch of time.

use std::num::NonZeroU32;

use governor::clock::{Clock, FakeRelativeClock};
use proptest::prelude::*;

use super::*;

/// A bucket that holds tokens, in the nanoseconds each takes to come back.
struct Tokens {
    rate: Rate,
    held: u64,
    at: u64,
}

impl Tokens {
    fn full(rate: Rate) -> Self {
        Self { rate, held: rate.burst, at: 0 }
    }

    fn take(&mut self, now: u64, cost: u32) -> bool {
        self.held = self.rate.burst.min(self.held + (now - self.at));
        self.at = now;
        let price = self.rate.interval * u64::from(cost);
        let enough = price <= self.held;
        if enough {
            self.held -= price;
        }
        enough
    }

    fn units(&self) -> u32 {
        u32::try_from(self.held / self.rate.interval).expect("at most a burst")
    }

    fn give_back(&mut self, units: u64) {
        self.held = self.rate.burst.min(self.held + units);
    }
}

fn quotas() -> impl Strategy<Value = Quota> {
    (1..50_u32, 1..2_000_u32, 1..120_000_u64).prop_filter_map("valid", |(burst, count, millis)| {
        let quota = Quota::per(count, Duration::from_millis(millis)).burst(burst);
        quota.validate().is_ok().then_some(quota)
    })
}

/// Pauses in thousandths of the time in which a whole burst comes back, so that buckets are empty
/// as often as full, and costs in hundredths of a burst, some of them too high.
fn histories() -> impl Strategy<Value = Vec<(u64, u32)>> {
    prop::collection::vec(
        (prop_oneof![Just(0), 0..20_u64, 0..2_000_u64], prop_oneof![Just(1), 1..130_u32]),
        1..200,
    )
}

fn pause(rate: Rate, thousandths: u64) -> u64 {
    rate.burst / 1_000 * thousandths
}

fn cost(quota: Quota, hundredths: u32) -> u32 {
    (quota.burst * hundredths / 100).max(1)
}

fn retry_after(rate: Rate, taken: Taken) -> Option<Duration> {
    match rate.decision(taken) {
        Decision::Limited { retry_after, .. } => retry_after,
        Decision::Allowed { .. } => None,
    }
}

proptest! {
    #[test]
    fn it_decides_like_a_bucket_of_tokens(quota in quotas(), history in histories()) {
        let rate = Rate::new(quota);
        let mut model = Tokens::full(rate);
        let (mut arrival, mut now) = (0, 0);
        for (gap, share) in history {
            now += pause(rate, gap);
            let cost = cost(quota, share);
            let taken = rate.take(arrival, now, cost);
            prop_assert_eq!(taken.allowed, model.take(now, cost));
            prop_assert_eq!(rate.decision(taken).remaining(), model.units());
            let reset = rate.decision(taken).reset().as_nanos();
            prop_assert_eq!(reset, u128::from(rate.burst - model.held));
            match rate.decision(taken) {
                Decision::Allowed { .. } => arrival = taken.arrival(now),
                Decision::Limited { retry_after: None, .. } => prop_assert!(cost > quota.burst),
                Decision::Limited { retry_after: Some(wait), .. } => {
                    let then = now + u64::try_from(wait.as_nanos()).expect("short");
                    prop_assert!(rate.take(arrival, then, cost).allowed);
                    prop_assert!(!rate.take(arrival, then - 1, cost).allowed);
                }
            }
        }
    }

    #[test]
    fn it_decides_like_governor(quota in quotas(), history in histories()) {
        let rate = Rate::new(quota);
        let nonzero = |number| NonZeroU32::new(number).expect("at least 1");
        let theirs = governor::Quota::with_period(Duration::from_nanos(rate.interval))
            .expect("longer than zero")
            .allow_burst(nonzero(quota.burst));
        let clock = FakeRelativeClock::default();
        let governor = governor::RateLimiter::direct_with_clock(theirs, clock.clone());
        let (mut arrival, mut now) = (0, 0);
        for (gap, share) in history {
            clock.advance(Duration::from_nanos(pause(rate, gap)));
            now += pause(rate, gap);
            let cost = cost(quota, share);
            let taken = rate.take(arrival, now, cost);
            match governor.check_n(nonzero(cost)) {
                Ok(Ok(())) => {
                    prop_assert!(taken.allowed);
                    arrival = taken.arrival(now);
                }
                Ok(Err(not_until)) => {
                    let wait = not_until.wait_time_from(clock.now());
                    prop_assert_eq!(retry_after(rate, taken), Some(wait));
                }
                Err(_) => {
                    prop_assert!(!taken.allowed);
                    prop_assert_eq!(retry_after(rate, taken), None);
                }
            }
        }
    }

    // What was given back counts at the time it is given back: it is then that the bucket has it
    // again.
    #[test]
    fn no_stretch_of_time_sees_more_than_a_burst_and_the_rate(
        quota in quotas(),
        history in prop::collection::vec(
            (prop_oneof![Just(0), 0..20_u64, 0..2_000_u64], 1..40_u32, prop::bool::weighted(0.3)),
            1..120,
        ),
    ) {
        let rate = Rate::new(quota);
        let (mut arrival, mut now) = (0, 0);
        // Time and units, negative for those given back; and what may still be given back.
        let mut booked: Vec<(u64, i64)> = Vec::new();
        let mut outstanding: Vec<(u32, u64)> = Vec::new();
        for (gap, share, refund) in history {
            now += pause(rate, gap);
            let cost = cost(quota, share);
            if refund && !outstanding.is_empty() {
                let (cost, charged) = outstanding.swap_remove(share as usize % outstanding.len());
                let before = arrival.max(now);
                arrival = rate.give_back(arrival, now, cost, charged);
                prop_assert!(before - arrival.max(now) <= rate.price(cost));
                booked.push((now, -i64::from(cost)));
                continue;
            }
            let taken = rate.take(arrival, now, cost);
            if taken.allowed {
                arrival = taken.arrival(now);
                booked.push((now, i64::from(cost)));
                outstanding.push((cost, arrival));
            }
        }
        for (first, &(from, _)) in booked.iter().enumerate() {
            let mut units = 0;
            for &(to, change) in &booked[first..] {
                units += change;
                let time = i128::from(rate.burst) + i128::from(to - from);
                prop_assert!(i128::from(units) * i128::from(rate.interval) <= time);
            }
        }
    }

    #[test]
    fn what_is_given_back_at_once_was_never_taken(quota in quotas(), history in histories()) {
        let rate = Rate::new(quota);
        let mut model = Tokens::full(rate);
        let (mut arrival, mut now) = (0, 0);
        for (number, (gap, share)) in history.into_iter().enumerate() {
            now += pause(rate, gap);
            let cost = cost(quota, share);
            let taken = rate.take(arrival, now, cost);
            prop_assert_eq!(taken.allowed, model.take(now, cost));
            if taken.allowed {
                arrival = taken.arrival(now);
                if number % 2 == 0 {
                    arrival = rate.give_back(arrival, now, cost, arrival);
                    model.give_back(rate.price(cost));
                }
            }
            let used = arrival.saturating_sub(now);
            prop_assert_eq!(used, rate.burst - model.held);
        }
    }

    #[test]
    fn another_quota_leaves_used_what_was_used(from in quotas(), to in quotas(), used in 0..60_u32) {
        let (old, new) = (Rate::new(from), Rate::new(to));
        let used = used.min(from.burst);
        let now = 1_000_000_000;
        let arrival = now + old.price(used);
        let carried = old.carry_over(new, arrival, now);
        let left = new.decision(new.take(carried, now, to.burst + 1)).remaining();
        prop_assert_eq!(left, to.burst.saturating_sub(used));
        prop_assert!(carried <= now + new.burst);
    }
}

#[test]
fn what_time_has_brought_back_is_not_given_back() {
    let rate = Rate::new(Quota::per_second(1));
    let second = 1_000_000_000;
    let first = rate.take(0, 0, 1).arrival(0);
    // A second later the unit is there again, and taken again. Giving back the first changes
    // nothing: there was one unit a second.
    let taken = rate.take(first, second, 1);
    assert!(taken.allowed);
    let arrival = rate.give_back(taken.arrival(second), second, 1, first);
    assert!(!rate.take(arrival, second, 1).allowed);
}

#[test]
fn a_clock_that_steps_back_gives_nothing_away() {
    let rate = Rate::new(Quota::per_second(2));
    let arrival = rate.take(0, 5_000_000, 2).arrival(5_000_000);
    assert!(!rate.take(arrival, 1_000_000, 1).allowed);
}

#[test]
fn the_end_of_time_is_no_overflow() {
    let rate = Rate::new(Quota::per(1, Duration::from_secs(86_400)).burst(366));
    let taken = rate.take(u64::MAX - 1, u64::MAX, 366);
    assert!(taken.allowed);
    assert_eq!(taken.arrival(u64::MAX), u64::MAX);
    assert!(!rate.take(u64::MAX, 0, 1).allowed);
    assert_eq!(rate.give_back(0, 0, u32::MAX, u64::MAX), 0);
}
