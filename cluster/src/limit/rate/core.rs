//! One limit: where its buckets are, what it counts, and what its settings make of a decision.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

#[cfg(feature = "redis")]
use super::StoreFailure;
use super::config::validate_name;
use super::key::{Key, KeyParts};
use super::memory;
#[cfg(feature = "redis")]
use super::remote::{Claim, RemoteStore, Spent, Verdict};
use super::{Decision, MissingKey, Quota, RateKey, RateLimitConfig, RateLimitStats, Refusal};
use crate::ConfigError;
use crate::clock::Moment;
use ahash::RandomState;
use arc_swap::ArcSwap;

#[derive(Debug)]
pub(super) struct Core {
    name: Arc<str>,
    seed: RandomState,
    buckets: Buckets,
    missing_key: MissingKey,
    #[cfg(feature = "redis")]
    store_failure: StoreFailure,
    shadow: AtomicBool,
    quota: ArcSwap<Quota>,
    tally: Tally,
}

/// Where the buckets are.
#[derive(Debug)]
pub(super) enum Buckets {
    Memory(memory::Buckets),
    #[cfg(feature = "redis")]
    Remote(Arc<dyn RemoteStore>, Option<Share>),
}

/// This process's part of a limit whose store cannot be asked.
#[cfg(feature = "redis")]
#[derive(Debug)]
pub(super) struct Share {
    processes: u32,
    buckets: memory::Buckets,
}

/// What is counted beside the buckets in memory, which count for themselves.
#[derive(Debug, Default)]
struct Tally {
    shadow_limited: AtomicU64,
    keyless: AtomicU64,
    errors: AtomicU64,
    #[cfg(feature = "redis")]
    remote: RemoteTally,
}

#[cfg(feature = "redis")]
#[derive(Debug, Default)]
struct RemoteTally {
    allowed: AtomicU64,
    limited: AtomicU64,
    refunded: AtomicU64,
}

/// What a limit says to a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It may go on, and has used its units.
    Charged(Charge),
    /// It may go on, and this limit has nothing to say about it.
    Uncounted,
    /// It may not.
    Refused(Refusal, Option<Decision>),
}

/// Units that were taken, or would have been in shadow mode.
#[derive(Debug)]
pub(super) struct Charge {
    cost: u32,
    from: Source,
}

/// Where the units were taken.
#[derive(Debug)]
enum Source {
    Memory(memory::Taken, memory::Ticket),
    #[cfg(feature = "redis")]
    Remote(Decision, Box<Claim>),
    /// Nowhere: there were too few, and the limit is in shadow mode; or another limit has refused
    /// in the same step.
    Nowhere {
        remaining: u32,
        reset: Duration,
    },
}

impl Charge {
    pub(super) fn decision(&self) -> Decision {
        match &self.from {
            Source::Memory(taken, _) => taken.decision(),
            #[cfg(feature = "redis")]
            Source::Remote(decision, _) => *decision,
            Source::Nowhere { remaining, reset } => {
                Decision::Allowed { remaining: *remaining, reset: *reset }
            }
        }
    }

    #[cfg(feature = "axum")]
    pub(super) fn cost(&self) -> u32 {
        self.cost
    }
}

/// An outcome, or what has to be asked for it.
#[derive(Debug)]
pub(super) enum Taken {
    Known(Outcome),
    #[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "nobody else is asked"))]
    Claimed(Claimed),
}

/// What a store outside this process has to be asked for.
#[cfg(feature = "redis")]
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) store: Arc<dyn RemoteStore>,
    pub(super) claim: Claim,
}

/// Without such a store nothing is ever asked for.
#[cfg(not(feature = "redis"))]
#[derive(Debug, Clone, Copy)]
pub(super) enum Claimed {}

impl Core {
    pub(super) fn new(
        name: Arc<str>,
        config: RateLimitConfig,
        buckets: Buckets,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        validate_name(&name)?;
        Ok(Self {
            name,
            seed: RandomState::new(),
            buckets,
            missing_key: config.missing_key,
            #[cfg(feature = "redis")]
            store_failure: config.store_failure,
            shadow: AtomicBool::new(config.shadow),
            quota: ArcSwap::from_pointee(config.quota),
            tally: Tally::default(),
        })
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn quota(&self) -> Quota {
        **self.quota.load()
    }

    pub(super) fn set_quota(&self, quota: Quota, now: Moment) -> Result<(), ConfigError> {
        quota.validate()?;
        self.quota.store(Arc::new(quota));
        match &self.buckets {
            Buckets::Memory(buckets) => buckets.set_quota(quota, now),
            // The store learns the quota with each question.
            #[cfg(feature = "redis")]
            Buckets::Remote(_, share) => {
                if let Some(Share { processes, buckets }) = share {
                    buckets.set_quota(quota.shared_by(*processes), now);
                }
            }
        }
        Ok(())
    }

    pub(super) fn set_shadow(&self, shadow: bool) {
        self.shadow.store(shadow, Ordering::Relaxed);
    }

    /// What a key's parts are written to.
    pub(super) fn parts(&self) -> KeyParts {
        match self.buckets {
            Buckets::Memory(_) => KeyParts::hashed(&self.seed),
            #[cfg(feature = "redis")]
            Buckets::Remote(..) => KeyParts::spelled(&self.name),
        }
    }

    /// Takes `cost` units from the bucket of a key if they are there.
    pub(super) fn take(&self, parts: KeyParts, cost: u32, now: &mut Moment) -> Taken {
        match (&self.buckets, parts.finish()) {
            (Buckets::Memory(buckets), Key::Hash(hash)) => {
                Taken::Known(self.take_here(buckets, hash, cost, now))
            }
            #[cfg(feature = "redis")]
            (Buckets::Remote(store, _), Key::Text(key)) => self.claim(store, key, cost, *now),
            // The parts come from `parts`, which knows the buckets.
            #[cfg(feature = "redis")]
            (Buckets::Memory(_), Key::Text(_)) | (Buckets::Remote(..), Key::Hash(_)) => {
                Taken::Known(Outcome::Uncounted)
            }
        }
    }

    fn take_here(
        &self,
        buckets: &memory::Buckets,
        hash: u64,
        cost: u32,
        now: &mut Moment,
    ) -> Outcome {
        let (taken, ticket) = buckets.take(hash, cost, now);
        if taken.is_allowed() {
            return Outcome::Charged(Charge { cost, from: Source::Memory(taken, ticket) });
        }
        self.refused(taken.decision(), cost)
    }

    /// What becomes of a request without a key.
    pub(super) fn take_without_key(&self, cost: u32, now: &mut Moment) -> Taken {
        self.tally.keyless.fetch_add(1, Ordering::Relaxed);
        match self.missing_key {
            MissingKey::Share => self.take(self.parts(), cost, now),
            MissingKey::Skip => Taken::Known(Outcome::Uncounted),
            MissingKey::Reject if self.is_shadow() => Taken::Known(Outcome::Uncounted),
            MissingKey::Reject => Taken::Known(Outcome::Refused(Refusal::NoKey, None)),
        }
    }

    /// The decision alone, of a limit in memory.
    pub(super) fn check<K: RateKey + ?Sized>(
        &self,
        key: &K,
        cost: u32,
        now: &mut Moment,
    ) -> Decision {
        let mut parts = self.parts();
        key.parts(&mut parts);
        match self.take(parts, cost, now) {
            Taken::Known(Outcome::Charged(charge)) => charge.decision(),
            Taken::Known(Outcome::Refused(_, Some(decision))) => decision,
            // Neither comes from buckets in memory.
            _ => Decision::Allowed { remaining: 0, reset: Duration::ZERO },
        }
    }

    /// Puts back what a charge has taken.
    pub(super) fn give_back(&self, charge: &Charge, now: Moment) {
        match (&self.buckets, &charge.from) {
            (Buckets::Memory(buckets), Source::Memory(_, ticket)) => {
                buckets.give_back(*ticket, charge.cost, now);
            }
            #[cfg(feature = "redis")]
            (Buckets::Remote(_, Some(share)), Source::Memory(_, ticket)) => {
                share.buckets.give_back(*ticket, charge.cost, now);
            }
            #[cfg(feature = "redis")]
            (Buckets::Remote(store, _), Source::Remote(decision, claim)) => {
                self.tally.remote.refunded.fetch_add(1, Ordering::Relaxed);
                let ago = Duration::from_nanos(now.nanos().saturating_sub(claim.at.nanos()));
                store.give_back(claim, Spent { ago, reset: decision.reset() });
            }
            _ => {}
        }
    }

    /// Puts units back into a key's bucket, whenever they were taken.
    pub(super) fn give_back_to<K: RateKey + ?Sized>(&self, key: &K, cost: u32, now: Moment) {
        let mut parts = self.parts();
        key.parts(&mut parts);
        match (&self.buckets, parts.finish()) {
            (Buckets::Memory(buckets), Key::Hash(hash)) => buckets.give_back_to(hash, cost, now),
            #[cfg(feature = "redis")]
            (Buckets::Remote(store, _), Key::Text(key)) => {
                self.tally.remote.refunded.fetch_add(1, Ordering::Relaxed);
                store.give_back(&self.claim_of(key, cost, now), Spent::UNKNOWN);
            }
            #[cfg(feature = "redis")]
            _ => {}
        }
    }

    /// What becomes of a request whose key has too few units.
    fn refused(&self, decision: Decision, cost: u32) -> Outcome {
        let Decision::Limited { retry_after, remaining, reset } = decision else {
            return Outcome::Uncounted;
        };
        if self.is_shadow() {
            self.tally.shadow_limited.fetch_add(1, Ordering::Release);
            return Outcome::Charged(Charge { cost, from: Source::Nowhere { remaining, reset } });
        }
        let refusal = retry_after.map_or(Refusal::TooCostly, |_| Refusal::Limited);
        Outcome::Refused(refusal, Some(decision))
    }

    fn is_shadow(&self) -> bool {
        self.shadow.load(Ordering::Relaxed)
    }

    pub(super) fn stats(&self) -> RateLimitStats {
        let tally = &self.tally;
        // Read before what includes it, so that the difference is never negative.
        let shadow_limited = tally.shadow_limited.load(Ordering::Acquire);
        let counts = match &self.buckets {
            Buckets::Memory(buckets) => buckets.counts(),
            #[cfg(feature = "redis")]
            Buckets::Remote(_, share) => tally.remote.counts(share.as_ref()),
        };
        RateLimitStats {
            name: self.name.to_string(),
            keys: counts.keys,
            allowed_total: counts.allowed,
            limited_total: counts.limited.saturating_sub(shadow_limited),
            shadow_limited_total: shadow_limited,
            refunded_total: counts.refunded,
            keyless_total: tally.keyless.load(Ordering::Relaxed),
            overflow_total: counts.overflow,
            evicted_total: counts.evicted,
            errors_total: tally.errors.load(Ordering::Relaxed),
        }
    }
}

#[cfg(feature = "redis")]
impl Buckets {
    pub(super) fn remote(store: Arc<dyn RemoteStore>, config: &RateLimitConfig) -> Self {
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

#[cfg(feature = "redis")]
impl Core {
    /// Whether the buckets are in this store.
    pub(super) fn asks(&self, store: &Arc<dyn RemoteStore>) -> bool {
        matches!(&self.buckets, Buckets::Remote(ours, _) if std::ptr::addr_eq(&raw const **ours, &raw const **store))
    }

    fn claim(&self, store: &Arc<dyn RemoteStore>, key: String, cost: u32, at: Moment) -> Taken {
        let claim = self.claim_of(key, cost, at);
        if cost > claim.quota.burst {
            self.tally.remote.limited.fetch_add(1, Ordering::Relaxed);
            let never =
                Decision::Limited { retry_after: None, remaining: 0, reset: Duration::ZERO };
            return Taken::Known(self.refused(never, cost));
        }
        Taken::Claimed(Claimed { store: Arc::clone(store), claim })
    }

    fn claim_of(&self, key: String, cost: u32, at: Moment) -> Claim {
        Claim { key, cost, quota: self.quota(), shadow: self.is_shadow(), at }
    }

    /// What the store's verdict means for the request. What was allowed is `taken` unless a claim
    /// beside it was refused.
    pub(super) fn conclude(&self, claim: Claim, verdict: Verdict, taken: bool) -> Outcome {
        let cost = claim.cost;
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
                    let cost = cost.min(self.quota().shared_by(share.processes).burst);
                    let (hash, mut at) = (self.seed.hash_one(&claim.key), claim.at);
                    self.take_here(&share.buckets, hash, cost, &mut at)
                }
                _ => Outcome::Uncounted,
            };
        };
        let tally = &self.tally.remote;
        if decision.is_allowed() {
            tally.allowed.fetch_add(1, Ordering::Relaxed);
            if taken {
                let from = Source::Remote(decision, Box::new(claim));
                return Outcome::Charged(Charge { cost, from });
            }
            tally.refunded.fetch_add(1, Ordering::Relaxed);
            let (remaining, reset) = (decision.remaining(), decision.reset());
            return Outcome::Charged(Charge {
                cost: 0,
                from: Source::Nowhere { remaining, reset },
            });
        }
        tally.limited.fetch_add(1, Ordering::Relaxed);
        self.refused(decision, cost)
    }
}

#[cfg(feature = "redis")]
impl RemoteTally {
    /// With those of this process's share. Other keys are counted where they are.
    fn counts(&self, share: Option<&Share>) -> memory::Counts {
        let mut counts = share.map(|share| share.buckets.counts()).unwrap_or_default();
        counts.allowed += self.allowed.load(Ordering::Relaxed);
        counts.limited += self.limited.load(Ordering::Relaxed);
        counts.refunded += self.refunded.load(Ordering::Relaxed);
        counts
    }
}
