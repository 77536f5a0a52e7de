//! A limit as a handle: asked directly, or put into a layer.

use std::fmt;
use std::sync::Arc;

use super::core::{Buckets, Core};
use super::memory;
use super::{Decision, KeyBy, Limit, Quota, RateKey, RateLimitConfig, RateLimitStats};
use crate::ConfigError;
use crate::clock::Moment;

/// A rate limit over the keys of one process. A cheap handle: clones, and every layer made from
/// them, share its buckets.
///
/// A [`RateLimitLayer`](crate::RateLimitLayer) puts it in front of a service; the calls below are
/// for code that is none.
///
/// # Example
/// ```
/// use escala_cluster::{Decision, Quota, RateLimiter};
///
/// let exports = RateLimiter::new("exports", Quota::per_minute(2))?;
/// assert!(exports.check("tenant-7").is_allowed());
/// assert!(exports.check("tenant-7").is_allowed());
/// let Decision::Limited { retry_after: Some(wait), .. } = exports.check("tenant-7") else {
///     panic!("the third in a minute");
/// };
/// assert!(wait.as_secs() <= 30);
/// assert!(exports.check("tenant-8").is_allowed());
/// # Ok::<(), escala_cluster::ConfigError>(())
/// ```
///
/// # Limits
/// At most [`max_keys`](RateLimitConfig#structfield.max_keys) keys, in parts of some thousand each.
/// Each new key looks at a few others and forgets those whose bucket is full again, which changes no
/// decision; if a part is taken up by keys in use, a new one gets what
/// [`overflow`](RateLimitConfig#structfield.overflow) says. Memory grows with the keys up to the
/// bound, and is kept.
///
/// # Time
/// That of tokio. A test that pauses the clock does so before the first check of its thread, as
/// `start_paused` does: until the kernel's next tick a thread goes by the reading it has.
///
/// # Cost
/// A check: one clock read, late by at most a tick of the kernel unless the check refuses (what that
/// gives a key is said at [`Quota`]), one hash, and one short lock that only keys of the same part share. No
/// allocation for a known key.
#[derive(Clone)]
pub struct RateLimiter {
    core: Arc<Core>,
}

impl RateLimiter {
    /// A limit with all buckets full. Clients see the name in `RateLimit` headers.
    ///
    /// # Errors
    /// The first field of the configuration that breaks its rule, or the name if it is not 1 to 64
    /// visible ASCII characters.
    pub fn new(
        name: impl Into<Arc<str>>,
        config: impl Into<RateLimitConfig>,
    ) -> Result<Self, ConfigError> {
        let config = config.into();
        config.validate()?;
        let buckets = memory::Buckets::new(config.quota, config.max_keys, config.overflow);
        let core = Core::new(name.into(), config, Buckets::Memory(buckets))?;
        Ok(Self { core: Arc::new(core) })
    }

    /// The name it was made with.
    #[must_use]
    pub fn name(&self) -> &str {
        self.core.name()
    }

    /// Takes one unit of the key's if it is there.
    pub fn check<K: RateKey + ?Sized>(&self, key: &K) -> Decision {
        self.check_n(key, 1)
    }

    /// Takes `cost` units of the key's if all of them are there, else none.
    pub fn check_n<K: RateKey + ?Sized>(&self, key: &K, cost: u32) -> Decision {
        self.core.check(key, cost, &mut Moment::recent())
    }

    /// Puts `cost` units back that were taken for what then was not done. More than the key has
    /// used cannot be put back.
    pub fn give_back<K: RateKey + ?Sized>(&self, key: &K, cost: u32) {
        self.core.give_back_to(key, cost, Moment::exact());
    }

    /// The limit with what finds the key of a request, for a
    /// [`RateLimitLayer`](crate::RateLimitLayer).
    #[must_use]
    pub fn by<Req>(&self, key: KeyBy<Req>) -> Limit<Req> {
        Limit::new(Arc::clone(&self.core), key)
    }

    /// Changes the quota. What keys have used stays used, at most a whole burst of the new quota.
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

    /// Begins or ends to count only, see [`shadow`](RateLimitConfig#structfield.shadow).
    pub fn set_shadow(&self, shadow: bool) {
        self.core.set_shadow(shadow);
    }

    /// The figures as of now.
    #[must_use]
    pub fn stats(&self) -> RateLimitStats {
        self.core.stats()
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").field("name", &self.name()).finish_non_exhaustive()
    }
}
