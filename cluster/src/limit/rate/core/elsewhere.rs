//! The part of a limit whose buckets are in a store outside this process: what it asks for, and
//! what it makes of the verdicts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::super::memory;
use super::super::remote::{Claim, RemoteStore, Verdict};
use super::super::{Decision, RateLimitConfig, Refusal, StoreFailure};
use super::{Buckets, Charge, Core, Outcome, Taken};
use crate::clock::Moment;

/// This process's part of a limit whose store cannot be asked.
#[derive(Debug)]
pub(in super::super) struct Share {
    pub(super) processes: u32,
    pub(super) buckets: memory::Buckets,
}

/// What a store outside this process has to be asked for.
#[derive(Debug)]
pub(in super::super) struct Claimed {
    pub(in super::super) store: Arc<dyn RemoteStore>,
    pub(in super::super) claim: Claim,
}

#[derive(Debug, Default)]
pub(super) struct RemoteTally {
    pub(super) allowed: AtomicU64,
    pub(super) limited: AtomicU64,
    pub(super) refunded: AtomicU64,
}

impl Buckets {
    pub(in super::super) fn remote(store: Arc<dyn RemoteStore>, config: &RateLimitConfig) -> Self {
        let share = match config.store_failure {
            StoreFailure::Local { processes } => {
                let quota = config.quota.shared_by(processes);
                let buckets = memory::Buckets::new(quota, config.max_keys, config.overflow);
                Some(Share { processes, buckets })
            }
            StoreFailure::Allow | StoreFailure::Reject => None,
        };
        Self::Remote(store, share)
    }
}

impl Core {
    /// Whether the buckets are in this store.
    pub(in super::super) fn asks(&self, store: &Arc<dyn RemoteStore>) -> bool {
        matches!(&self.buckets, Buckets::Remote(ours, _) if std::ptr::addr_eq(&raw const **ours, &raw const **store))
    }

    pub(super) fn claim(
        &self,
        store: &Arc<dyn RemoteStore>,
        key: String,
        cost: u32,
        at: Moment,
    ) -> Taken {
        let claim = self.claim_of(key, cost, at);
        if cost > claim.quota.burst {
            self.tally.remote.limited.fetch_add(1, Ordering::Relaxed);
            let never =
                Decision::Limited { retry_after: None, remaining: 0, reset: Duration::ZERO };
            return Taken::Known(self.refused(never));
        }
        Taken::Claimed(Claimed { store: Arc::clone(store), claim })
    }

    pub(super) fn claim_of(&self, key: String, cost: u32, at: Moment) -> Claim {
        Claim { key, cost, quota: self.quota(), shadow: self.is_shadow(), at }
    }

    /// What the store's verdict means for the request. What was allowed is `taken` unless a claim
    /// beside it was refused.
    pub(in super::super) fn conclude(
        &self,
        claim: Claim,
        verdict: Verdict,
        taken: bool,
    ) -> Outcome {
        let Verdict::Decided(decision) = verdict else {
            if verdict == Verdict::Moot {
                return Outcome::Uncounted;
            }
            self.tally.errors.fetch_add(1, Ordering::Relaxed);
            return match (self.store_failure, &self.buckets) {
                (StoreFailure::Reject, _) if !self.is_shadow() => {
                    Outcome::Refused(Refusal::StoreFailed, None)
                }
                (StoreFailure::Local { .. }, Buckets::Remote(_, Some(share))) => {
                    // What fits into the whole burst is not too costly for being a share.
                    let cost = claim.cost.min(self.quota().shared_by(share.processes).burst);
                    // Read anew: the claim has waited, and others have been decided meanwhile.
                    let (hash, mut now) = (self.seed.hash_one(&claim.key), Moment::recent());
                    self.take_here(&share.buckets, hash, cost, &mut now)
                }
                _ => Outcome::Uncounted,
            };
        };
        let tally = &self.tally.remote;
        if decision.is_allowed() {
            tally.allowed.fetch_add(1, Ordering::Relaxed);
            if taken {
                return Outcome::Charged(Charge::Remote(Box::new((decision, claim))));
            }
            tally.refunded.fetch_add(1, Ordering::Relaxed);
            return Outcome::Charged(Charge::nothing(decision));
        }
        tally.limited.fetch_add(1, Ordering::Relaxed);
        self.refused(decision)
    }
}

impl RemoteTally {
    /// With those of this process's share. Other keys are counted where they are.
    pub(super) fn counts(&self, share: Option<&Share>) -> memory::Counts {
        let mut counts = share.map(|share| share.buckets.counts()).unwrap_or_default();
        counts.allowed += self.allowed.load(Ordering::Relaxed);
        counts.limited += self.limited.load(Ordering::Relaxed);
        counts.refunded += self.refunded.load(Ordering::Relaxed);
        counts
    }
}
