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
use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

#[derive(Debug)]
pub(super) struct Core {
    name: Arc<str>,
    seed: RandomState,
    buckets: Buckets,
    missing_key: MissingKey,
    #[cfg(feature = "redis")]
    store_failure: StoreFailure,
    shadow: AtomicBool,
    policy: ArcSwap<Policy>,
    /// Held while the quota is changed, here and part by part where the buckets are.
    changing: Mutex<()>,
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
pub(super) enum Charge {
    Memory(memory::Taken),
    #[cfg(feature = "redis")]
    Remote(Box<(Decision, Claim)>),
    /// Nothing was taken: there were too few, and the limit is in shadow mode; or another limit has
    /// refused in the same step.
    Nothing {
        remaining: u32,
        reset: u64,
    },
}

impl Charge {
    fn nothing(decision: Decision) -> Self {
        let reset = u64::try_from(decision.reset().as_nanos()).unwrap_or(u64::MAX);
        Self::Nothing { remaining: decision.remaining(), reset }
    }

    /// Units that can be given back.
    #[cfg(feature = "axum")]
    pub(super) fn cost(&self) -> u32 {
        match self {
            Self::Memory(taken) => taken.cost(),
            #[cfg(feature = "redis")]
            Self::Remote(charged) => charged.1.cost,
            Self::Nothing { .. } => 0,
        }
    }
}

/// A quota with what is made of it, once and not for each response.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) quota: Quota,
    pub(super) rate: memory::Rate,
    #[cfg(feature = "axum")]
    pub(super) fields: super::headers::Fields,
}

impl Policy {
    fn new(name: &str, quota: Quota) -> Self {
        #[cfg(not(feature = "axum"))]
        let _ = name;
        Self {
            quota,
            rate: memory::Rate::new(quota),
            #[cfg(feature = "axum")]
            fields: super::headers::Fields::new(name, quota),
        }
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
        let policy = Policy::new(&name, config.quota);
        Ok(Self {
            name,
            seed: RandomState::new(),
            buckets,
            missing_key: config.missing_key,
            #[cfg(feature = "redis")]
            store_failure: config.store_failure,
            shadow: AtomicBool::new(config.shadow),
            policy: ArcSwap::from_pointee(policy),
            changing: Mutex::new(()),
            tally: Tally::default(),
        })
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn quota(&self) -> Quota {
        self.policy.load().quota
    }

    pub(super) fn policy(&self) -> Guard<Arc<Policy>> {
        self.policy.load()
    }

    /// That of the buckets a charge came from.
    fn rate(&self) -> memory::Rate {
        match &self.buckets {
            Buckets::Memory(_) => self.policy().rate,
            #[cfg(feature = "redis")]
            Buckets::Remote(_, share) => {
                let processes = share.as_ref().map_or(1, |share| share.processes);
                memory::Rate::new(self.quota().shared_by(processes))
            }
        }
    }

    /// What has come of a check of this limit, for people.
    pub(super) fn decision(&self, charge: &Charge) -> Decision {
        match charge {
            Charge::Memory(taken) => taken.decision(self.rate()),
            #[cfg(feature = "redis")]
            Charge::Remote(charged) => charged.0,
            Charge::Nothing { remaining, reset } => {
                let (remaining, reset) = (*remaining, Duration::from_nanos(*reset));
                Decision::Allowed { remaining, reset }
            }
        }
    }

    pub(super) fn set_quota(&self, quota: Quota, now: Moment) -> Result<(), ConfigError> {
        quota.validate()?;
        let _changing = self.changing.lock();
        self.policy.store(Arc::new(Policy::new(&self.name, quota)));
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
    #[inline]
    pub(super) fn parts(&self) -> KeyParts {
        match self.buckets {
            Buckets::Memory(_) => KeyParts::hashed(&self.seed),
            #[cfg(feature = "redis")]
            Buckets::Remote(..) => KeyParts::spelled(&self.name),
        }
    }

    /// Takes `cost` units from the bucket of a key if they are there.
    #[inline]
    pub(super) fn take(&self, parts: &mut KeyParts, cost: u32, now: &mut Moment) -> Taken {
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

    /// The same for a caller that will give nothing back: `None` if the units were there.
    #[inline]
    pub(super) fn take_for_good(
        &self,
        parts: &mut KeyParts,
        cost: u32,
        now: &mut Moment,
    ) -> Option<Taken> {
        match (&self.buckets, parts.finish()) {
            (Buckets::Memory(buckets), Key::Hash(hash)) => {
                let refused = buckets.take_for_good(hash, cost, now)?;
                Some(Taken::Known(self.refused(refused)))
            }
            #[cfg(feature = "redis")]
            (Buckets::Remote(store, _), Key::Text(key)) => Some(self.claim(store, key, cost, *now)),
            #[cfg(feature = "redis")]
            (Buckets::Memory(_), Key::Text(_)) | (Buckets::Remote(..), Key::Hash(_)) => None,
        }
    }

    #[inline]
    fn take_here(
        &self,
        buckets: &memory::Buckets,
        hash: u64,
        cost: u32,
        now: &mut Moment,
    ) -> Outcome {
        let (taken, rate) = buckets.take(hash, cost, now);
        if taken.is_allowed() {
            return Outcome::Charged(Charge::Memory(taken));
        }
        self.refused(taken.decision(rate))
    }

    /// What becomes of a request without a key.
    #[cold]
    pub(super) fn take_without_key(&self, cost: u32, now: &mut Moment) -> Taken {
        self.tally.keyless.fetch_add(1, Ordering::Relaxed);
        match self.missing_key {
            MissingKey::Share => self.take(&mut self.parts(), cost, now),
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
        let outcome = match (&self.buckets, parts.finish()) {
            (Buckets::Memory(buckets), Key::Hash(hash)) => {
                let (taken, rate) = buckets.take(hash, cost, now);
                let decision = taken.decision(rate);
                if taken.is_allowed() {
                    return decision;
                }
                self.refused(decision)
            }
            // A handle of its own asks other stores.
            #[cfg(feature = "redis")]
            _ => Outcome::Uncounted,
        };
        match outcome {
            Outcome::Charged(charge) => self.decision(&charge),
            Outcome::Refused(_, Some(decision)) => decision,
            _ => Decision::Allowed { remaining: 0, reset: Duration::ZERO },
        }
    }

    /// Puts back what a charge has taken.
    pub(super) fn give_back(&self, charge: &Charge, now: Moment) {
        match (&self.buckets, charge) {
            (Buckets::Memory(buckets), Charge::Memory(taken)) => buckets.give_back(taken, now),
            #[cfg(feature = "redis")]
            (Buckets::Remote(_, Some(share)), Charge::Memory(taken)) => {
                share.buckets.give_back(taken, now);
            }
            #[cfg(feature = "redis")]
            (Buckets::Remote(store, _), Charge::Remote(charged)) => {
                let (decision, claim) = &**charged;
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
    #[cold]
    fn refused(&self, decision: Decision) -> Outcome {
        let Decision::Limited { retry_after, .. } = decision else {
            return Outcome::Uncounted;
        };
        if self.is_shadow() {
            self.tally.shadow_limited.fetch_add(1, Ordering::Release);
            return Outcome::Charged(Charge::nothing(decision));
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
            return Taken::Known(self.refused(never));
        }
        Taken::Claimed(Claimed { store: Arc::clone(store), claim })
    }

    fn claim_of(&self, key: String, cost: u32, at: Moment) -> Claim {
        Claim { key, cost, quota: self.quota(), shadow: self.is_shadow(), at }
    }

    /// What the store's verdict means for the request. What was allowed is `taken` unless a claim
    /// beside it was refused.
    pub(super) fn conclude(&self, claim: Claim, verdict: Verdict, taken: bool) -> Outcome {
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
