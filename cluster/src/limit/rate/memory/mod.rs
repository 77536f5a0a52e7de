//! Buckets in the memory of this process.

mod gcra;
mod table;

use parking_lot::Mutex;

pub(super) use self::gcra::Rate;
use self::table::Table;
use super::config::Overflow;
use super::{Decision, Quota};
use crate::clock::Moment;

/// Keys a shard is made for. Few enough that letting its table grow, which happens under its lock,
/// takes some ten microseconds.
const KEYS_PER_SHARD: usize = 1_024;

/// With 64 shards two threads meet in one of 64 checks, and a check holds the lock for some ten
/// nanoseconds.
const FEWEST_SHARDS: usize = 64;

/// Below this many keys the shards would be so small that some are full long before the others.
const FEWEST_KEYS_PER_SHARD: usize = 64;

/// The buckets of one limit.
#[derive(Debug)]
pub(super) struct Buckets {
    /// A power of two of them.
    shards: Box<[Shard]>,
    /// Bits of a hash below those that choose the shard.
    shift: u32,
    overflow: Overflow,
}

/// On cache lines of its own, two of them since they are fetched in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The quota, here so that reading it costs nothing and changing it is seen by all at once.
    rate: Rate,
    table: Table,
    /// The bucket of the keys there is no room for.
    shared: u64,
    counts: Counts,
}

/// What the shards count.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) allowed: u64,
    pub(super) limited: u64,
    pub(super) refunded: u64,
    pub(super) overflow: u64,
    pub(super) evicted: u64,
    pub(super) keys: u64,
}

/// What came of a check, with what it takes to give the units back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    hash: u64,
    /// When it was, and how much of the time of a burst was used after it.
    at: u64,
    used: u64,
    cost: u32,
    allowed: bool,
    bucket: Bucket,
}

#[derive(Debug, Clone, Copy)]
enum Bucket {
    Own,
    Shared,
    None,
}

impl Taken {
    pub(super) fn is_allowed(&self) -> bool {
        self.allowed
    }

    #[cfg(feature = "axum")]
    pub(super) fn cost(&self) -> u32 {
        self.cost
    }

    /// For people. `rate` is that of the quota it was decided by.
    pub(super) fn decision(&self, rate: Rate) -> Decision {
        let Self { allowed, cost, used, .. } = *self;
        rate.decision(gcra::Taken { allowed, cost, used })
    }
}

impl Buckets {
    pub(super) fn new(quota: Quota, max_keys: usize, overflow: Overflow) -> Self {
        let wanted = (max_keys / KEYS_PER_SHARD).next_power_of_two().max(FEWEST_SHARDS);
        let most = prev_power_of_two((max_keys / FEWEST_KEYS_PER_SHARD).max(1));
        let shards = wanted.min(most);
        let shard = |number: usize| Shard {
            state: Mutex::new(State {
                rate: Rate::new(quota),
                // The first ones take what is left over: the sum is exact.
                table: Table::new(max_keys / shards + usize::from(number < max_keys % shards)),
                shared: 0,
                counts: Counts::default(),
            }),
        };
        Self {
            shards: (0..shards).map(shard).collect(),
            shift: u64::BITS - shards.trailing_zeros(),
            overflow,
        }
    }

    /// Takes `cost` units from the key's bucket if they are there. It refuses by the exact time
    /// only, and leaves that to its caller.
    #[inline(always)]
    pub(super) fn take(&self, hash: u64, cost: u32, now: &mut Moment) -> (Taken, Rate) {
        let mut state = self.shard(hash).state.lock();
        let (taken, bucket) = loop {
            let (taken, bucket) = state.take(hash, cost, now.nanos(), self.overflow);
            if taken.allowed || !now.refine() {
                break (taken, bucket);
            }
        };
        let State { counts, rate, .. } = &mut *state;
        let gcra::Taken { allowed, used, .. } = taken;
        *(if allowed { &mut counts.allowed } else { &mut counts.limited }) += 1;
        counts.overflow += u64::from(!matches!(bucket, Bucket::Own));
        (Taken { hash, at: now.nanos(), used, cost, allowed, bucket }, *rate)
    }

    /// The same for a caller that will give nothing back: `None` if the units were there.
    #[inline]
    pub(super) fn take_for_good(&self, hash: u64, cost: u32, now: &mut Moment) -> Option<Decision> {
        let (taken, rate) = self.take(hash, cost, now);
        if taken.allowed { None } else { Some(taken.decision(rate)) }
    }

    /// Puts the units back that were taken, as far as time has not.
    pub(super) fn give_back(&self, taken: &Taken, now: Moment) {
        let now = now.nanos();
        let mut state = self.shard(taken.hash).state.lock();
        state.counts.refunded += 1;
        let State { rate, table, shared, .. } = &mut *state;
        let arrival = match taken.bucket {
            Bucket::Own => table.find(taken.hash),
            Bucket::Shared => Some(shared),
            Bucket::None => None,
        };
        // A key that was forgotten has all its units.
        if let Some(arrival) = arrival {
            let charged = taken.at.saturating_add(taken.used);
            *arrival = rate.give_back(*arrival, now, taken.cost, charged);
        }
    }

    /// Puts `cost` units back into a key's bucket, whenever they were taken.
    pub(super) fn give_back_to(&self, hash: u64, cost: u32, now: Moment) {
        let (at, used) = (now.nanos(), u64::MAX);
        let taken = Taken { hash, at, used, cost, allowed: true, bucket: Bucket::Own };
        self.give_back(&taken, now);
    }

    /// Changes the quota. The units that keys have used stay used.
    pub(super) fn set_quota(&self, quota: Quota, now: Moment) {
        let now = now.nanos();
        let new = Rate::new(quota);
        for shard in &self.shards {
            let State { rate, table, shared, .. } = &mut *shard.state.lock();
            table.change_all(|arrival| rate.carry_over(new, arrival, now));
            *shared = rate.carry_over(new, *shared, now);
            *rate = new;
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for shard in &self.shards {
            let state = shard.state.lock();
            sum.allowed += state.counts.allowed;
            sum.limited += state.counts.limited;
            sum.refunded += state.counts.refunded;
            sum.overflow += state.counts.overflow;
            sum.evicted += state.table.forgotten();
            sum.keys += state.table.keys() as u64;
        }
        sum
    }

    fn shard(&self, hash: u64) -> &Shard {
        // With a single shard the shift would be by all 64 bits.
        let index = hash.checked_shr(self.shift).unwrap_or(0);
        &self.shards[index as usize]
    }
}

impl State {
    #[expect(clippy::inline_always, reason = "what it returns goes through memory otherwise")]
    #[inline(always)]
    fn take(
        &mut self,
        hash: u64,
        cost: u32,
        now: u64,
        overflow: Overflow,
    ) -> (gcra::Taken, Bucket) {
        if let Some(arrival) = self.table.find(hash) {
            let taken = self.rate.take(*arrival, now, cost);
            if taken.allowed {
                *arrival = taken.arrival(now);
            }
            return (taken, Bucket::Own);
        }
        self.take_new(hash, cost, now, overflow)
    }

    /// For a key that is not known.
    #[inline(never)]
    fn take_new(
        &mut self,
        hash: u64,
        cost: u32,
        now: u64,
        overflow: Overflow,
    ) -> (gcra::Taken, Bucket) {
        let taken = self.rate.take(0, now, cost);
        // A key that got nothing has used nothing: there is nothing to keep.
        if !taken.allowed || self.table.insert(hash, taken.arrival(now), now).is_ok() {
            return (taken, Bucket::Own);
        }
        match overflow {
            Overflow::Share => {
                let taken = self.rate.take(self.shared, now, cost);
                if taken.allowed {
                    self.shared = taken.arrival(now);
                }
                (taken, Bucket::Shared)
            }
            Overflow::Allow => (taken, Bucket::None),
            Overflow::Reject => (self.rate.refuse(cost), Bucket::None),
        }
    }
}

fn prev_power_of_two(number: usize) -> usize {
    1 << number.ilog2()
}

#[cfg(test)]
mod tests;
