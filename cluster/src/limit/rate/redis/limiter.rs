//! A limit in Redis as a handle: asked directly, or put into a layer.

use std::fmt;
use std::sync::Arc;

use super::RedisRateStore;
use crate::ConfigError;
use crate::clock::Moment;
use crate::limit::rate::core::{Buckets, Claimed, Core, Outcome, Taken};
use crate::limit::rate::remote::{Answer, Verdict};
use crate::limit::rate::{
    Decision, KeyBy, Limit, Quota, RateKey, RateLimitConfig, RateLimitStats, RateLimited, Refusal,
};

/// A rate limit over keys that all processes share, in Redis. A cheap handle: clones, and every
/// layer made from them, are the same limit, and so is every limit of that name in any process
/// whose store has the same Redis and namespace.
///
/// # Example
/// ```no_run
/// use escala_cluster::{Quota, RedisRateConfig, RedisRateLimiter, RedisRateStore};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisRateStore::new(RedisRateConfig::new("redis://127.0.0.1:6379"))?;
/// let exports = RedisRateLimiter::new("exports", Quota::per_minute(2), &store)?;
/// if exports.check("tenant-7").await?.is_none_or(|decision| decision.is_allowed()) {
///     // Export.
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisRateLimiter {
    core: Arc<Core>,
}

impl RedisRateLimiter {
    /// A limit whose buckets are in this store. Clients see the name in `RateLimit` headers.
    ///
    /// # Errors
    /// The first field of the configuration that breaks its rule, or the name if it is not 1 to 64
    /// visible ASCII characters.
    pub fn new(
        name: impl Into<Arc<str>>,
        config: impl Into<RateLimitConfig>,
        store: &RedisRateStore,
    ) -> Result<Self, ConfigError> {
        let config = config.into();
        config.validate()?;
        let buckets = Buckets::remote(store.remote(), &config);
        Ok(Self { core: Arc::new(Core::new(name.into(), config, buckets)?) })
    }

    /// The name it was made with.
    #[must_use]
    pub fn name(&self) -> &str {
        self.core.name()
    }

    /// Takes one unit of the key's if it is there.
    ///
    /// # Errors
    /// As [`check_n`](Self::check_n).
    pub async fn check<K: RateKey + ?Sized>(
        &self,
        key: &K,
    ) -> Result<Option<Decision>, RateLimited> {
        self.check_n(key, 1).await
    }

    /// Takes `cost` units of the key's if all of them are there, else none; a cost of 0 only looks
    /// at what is left. `None` if Redis did not
    /// answer and such requests are let through
    /// ([`StoreFailure::Allow`](crate::StoreFailure::Allow)).
    ///
    /// Takes no longer than the store's [`timeout`](crate::RedisRateConfig#structfield.timeout).
    ///
    /// # Errors
    /// Redis did not answer and such requests are refused
    /// ([`StoreFailure::Reject`](crate::StoreFailure::Reject)).
    ///
    /// # Cancellation
    /// Dropping it leaves open whether the units are taken.
    pub async fn check_n<K: RateKey + ?Sized>(
        &self,
        key: &K,
        cost: u32,
    ) -> Result<Option<Decision>, RateLimited> {
        let mut parts = self.core.parts();
        key.parts(&mut parts);
        let outcome = match self.core.take(&mut parts, cost, &mut Moment::recent()) {
            Taken::Known(outcome) => outcome,
            Taken::Claimed(Claimed { store, claim }) => {
                let verdicts = match store.check(std::slice::from_ref(&claim)) {
                    Answer::Now(verdicts) => verdicts,
                    Answer::Later(verdicts) => verdicts.await,
                };
                let verdict = verdicts.first().copied().unwrap_or(Verdict::Failed);
                self.core.conclude(claim, verdict, true)
            }
        };
        match outcome {
            Outcome::Charged(charge) => Ok(Some(self.core.decision(&charge))),
            Outcome::Refused(_, Some(decision)) => Ok(Some(decision)),
            Outcome::Uncounted => Ok(None),
            Outcome::Refused(refusal, None) => Err(self.refused(refusal)),
        }
    }

    /// Puts `cost` units back that were taken for what then was not done. More than the key has
    /// used cannot be put back. Nobody waits for it: it is sent in the background, at most once,
    /// and lost if Redis is away.
    pub fn give_back<K: RateKey + ?Sized>(&self, key: &K, cost: u32) {
        self.core.give_back_to(key, cost, Moment::exact());
    }

    /// The limit with what finds the key of a request, for a
    /// [`RateLimitLayer`](crate::RateLimitLayer). Limits of one store that follow each other in a
    /// layer are asked in one step: all of them are charged, or none.
    #[must_use]
    pub fn by<Req>(&self, key: KeyBy<Req>) -> Limit<Req> {
        Limit::new(Arc::clone(&self.core), key)
    }

    /// Changes the quota in this process. What keys have used stays used, at most a whole burst of
    /// the new quota; each process asks by the quota it knows.
    ///
    /// # Errors
    /// The first field that breaks its rule; nothing is changed then.
    pub fn set_quota(&self, quota: Quota) -> Result<(), ConfigError> {
        self.core.set_quota(quota, Moment::exact())
    }

    /// The quota as of now.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.core.quota()
    }

    /// Begins or ends to count only, see
    /// [`shadow`](crate::RateLimitConfig#structfield.shadow).
    pub fn set_shadow(&self, shadow: bool) {
        self.core.set_shadow(shadow);
    }

    /// The figures of this process as of now; those of Redis are the store's.
    #[must_use]
    pub fn stats(&self) -> RateLimitStats {
        self.core.stats()
    }

    fn refused(&self, refusal: Refusal) -> RateLimited {
        RateLimited { limit: Arc::clone(self.core.name()), refusal, retry_after: None }
    }
}

impl fmt::Debug for RedisRateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisRateLimiter").field("name", &self.name()).finish_non_exhaustive()
    }
}
