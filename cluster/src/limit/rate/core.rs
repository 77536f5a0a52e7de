//! One limit: where its buckets are, what it counts, and what its settings make of a decision.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::config::validate_name;
use super::key::{Key, KeyParts};
use super::memory;
#[cfg(feature = "redis")]
use super::remote::{Answer, RemoteStore, Spent, Verdict};
use super::{
    Decision, MissingKey, Quota, RateKey, RateLimitConfig, RateLimitStats, Refusal, StoreFailure,
};
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
    Remote(Arc<dyn RemoteStore>),
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
    Remote {
        decision: Decision,
        key: String,
        at: Moment,
    },
    /// Nowhere: there were too few, and the limit is in shadow mode.
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
            Source::Remote { decision, .. } => *decision,
            Source::Nowhere { remaining, reset } => {
                Decision::Allowed { remaining: *remaining, reset: *reset }
            }
        }
    }

    pub(super) fn cost(&self) -> u32 {
        self.cost
    }
}

/// An outcome, or the question that leads to it.
#[derive(Debug)]
pub(super) enum Taken {
    Known(Outcome),
    #[cfg(feature = "redis")]
    Asked(Asked),
}

/// A question to a store outside this process, under way.
#[cfg(feature = "redis")]
pub(super) struct Asked {
    pub(super) verdict: std::pin::Pin<Box<dyn Future<Output = Verdict> + Send>>,
    pub(super) claim: Claim,
}

/// What was asked for.
#[cfg(feature = "redis")]
#[derive(Debug)]
pub(super) struct Claim {
    key: String,
    cost: u32,
    at: Moment,
}

#[cfg(feature = "redis")]
impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").finish_non_exhaustive()
    }
}

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
            store_failure: config.store_failure,
            shadow: AtomicBool::new(config.shadow),
            quota: ArcSwap::from_pointee(config.quota),
            tally: Tally::default(),
        })
    }

    pub(super) fn name(&self) -> &str {
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
            // It learns the quota with each question.
            #[cfg(feature = "redis")]
            Buckets::Remote(_) => {}
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
            Buckets::Remote(_) => KeyParts::spelled(&self.name),
        }
    }

    /// Takes `cost` units from the bucket of a key if they are there.
    pub(super) fn take(&self, parts: KeyParts, cost: u32, now: &mut Moment) -> Taken {
        match (&self.buckets, parts.finish()) {
            (Buckets::Memory(buckets), Key::Hash(hash)) => {
                let (taken, ticket) = buckets.take(hash, cost, now);
                if taken.is_allowed() {
                    let from = Source::Memory(taken, ticket);
                    return Taken::Known(Outcome::Charged(Charge { cost, from }));
                }
                Taken::Known(self.refused(taken.decision(), cost))
            }
            #[cfg(feature = "redis")]
            (Buckets::Remote(store), Key::Text(key)) => self.ask(&**store, key, cost, *now),
            // The parts come from `parts`, which knows the buckets.
            #[cfg(feature = "redis")]
            (Buckets::Memory(_), Key::Text(_)) | (Buckets::Remote(_), Key::Hash(_)) => {
                Taken::Known(Outcome::Uncounted)
            }
        }
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
            (Buckets::Remote(store), Source::Remote { decision, key, at }) => {
                self.tally.remote.refunded.fetch_add(1, Ordering::Relaxed);
                let ago = Duration::from_nanos(now.nanos().saturating_sub(at.nanos()));
                let spent = Spent { ago, reset: decision.reset() };
                store.give_back(key.clone(), charge.cost, self.quota(), spent);
            }
            _ => {}
        }
    }

    /// Puts units back into a key's bucket in memory.
    pub(super) fn give_back_to<K: RateKey + ?Sized>(&self, key: &K, cost: u32, now: Moment) {
        let mut parts = self.parts();
        key.parts(&mut parts);
        if let (Buckets::Memory(buckets), Key::Hash(hash)) = (&self.buckets, parts.finish()) {
            buckets.give_back_to(hash, cost, now);
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
            Buckets::Remote(_) => tally.remote.counts(),
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
impl Core {
    fn ask(&self, store: &dyn RemoteStore, key: String, cost: u32, at: Moment) -> Taken {
        let quota = self.quota();
        let claim = Claim { key: key.clone(), cost, at };
        if cost > quota.burst {
            let decision =
                Decision::Limited { retry_after: None, remaining: 0, reset: Duration::ZERO };
            return Taken::Known(self.conclude(claim, Verdict::Decided(decision)));
        }
        match store.check(key, cost, quota) {
            Answer::Now(verdict) => Taken::Known(self.conclude(claim, verdict)),
            Answer::Later(verdict) => Taken::Asked(Asked { verdict, claim }),
        }
    }

    /// What the store's verdict means for the request.
    pub(super) fn conclude(&self, claim: Claim, verdict: Verdict) -> Outcome {
        let Claim { key, cost, at } = claim;
        let Verdict::Decided(decision) = verdict else {
            self.tally.errors.fetch_add(1, Ordering::Relaxed);
            return match self.store_failure {
                StoreFailure::Reject if !self.is_shadow() => {
                    Outcome::Refused(Refusal::StoreFailed, None)
                }
                _ => Outcome::Uncounted,
            };
        };
        let tally = &self.tally.remote;
        if decision.is_allowed() {
            tally.allowed.fetch_add(1, Ordering::Relaxed);
            return Outcome::Charged(Charge { cost, from: Source::Remote { decision, key, at } });
        }
        tally.limited.fetch_add(1, Ordering::Relaxed);
        self.refused(decision, cost)
    }
}

#[cfg(feature = "redis")]
impl RemoteTally {
    /// Keys are counted where they are.
    fn counts(&self) -> memory::Counts {
        memory::Counts {
            allowed: self.allowed.load(Ordering::Relaxed),
            limited: self.limited.load(Ordering::Relaxed),
            refunded: self.refunded.load(Ordering::Relaxed),
            ..memory::Counts::default()
        }
    }
}
