//! A limit on the calls under way at once, fixed or as many as the backend bears.

mod adaptive;
mod answer;
#[cfg(feature = "axum")]
mod body;
mod config;
mod core;
mod future;
mod gradient;

mod layer;
mod permit;
mod primitives;
mod samples;
mod service;
mod slots;
mod stats;
mod turn;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::answer::Answer;
pub use self::config::{AdaptiveConfig, Concurrency, ConcurrencyConfig};
pub use self::future::ConcurrencyLimitFuture;
pub use self::layer::ConcurrencyLimitLayer;
#[cfg(feature = "axum")]
pub use self::layer::OverloadFails;
pub use self::permit::ConcurrencyPermit;
pub use self::service::ConcurrencyLimitService;
pub use self::stats::ConcurrencyLimitStats;

use self::core::Core;
use self::turn::Turn;
use crate::ConfigError;

/// One limit on calls at once. A cheap handle: clones, and every layer and service made from them,
/// share it.
///
/// A [`ConcurrencyLimitLayer`] puts it around a tower service; [`acquire`](Self::acquire) and
/// [`try_acquire`](Self::try_acquire) are for code that is none.
///
/// # Example
/// ```
/// use escala_cluster::{ConcurrencyConfig, ConcurrencyLimit};
///
/// let limit = ConcurrencyLimit::new("exports", ConcurrencyConfig::fixed(2))?;
/// let first = limit.try_acquire()?;
/// let _second = limit.try_acquire()?;
/// assert!(limit.try_acquire().is_err());
/// first.succeeded();
/// assert!(limit.try_acquire().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Cost
/// A place that is free, and its return: no lock and no allocation; two atomic additions, and a
/// reference counted up and down. An adaptive limit reads the clock at both ends and adds to two
/// more counters; once per window one call works out the new limit. A call that waits takes a lock,
/// and so does the end of a call while somebody waits.
#[derive(Clone)]
pub struct ConcurrencyLimit {
    core: Arc<Core>,
}

/// As many calls are under way as may be, and as many wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many calls are under way")]
#[non_exhaustive]
pub struct Overloaded {
    /// Time after which to ask again, as configured: when a place will be free, nobody knows.
    pub retry_after: Duration,
}

impl Overloaded {
    /// Whether the same call can succeed later: always.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        true
    }
}

impl ConcurrencyLimit {
    /// A limit with all its places free. The name is what statistics call it.
    ///
    /// # Errors
    /// The first field of the configuration that breaks its rule.
    // By value, like the other parts: it may come to be kept.
    #[expect(clippy::needless_pass_by_value, reason = "a configuration is given away")]
    pub fn new(name: impl Into<Arc<str>>, config: ConcurrencyConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { core: Arc::new(Core::new(name.into(), &config)) })
    }

    /// The name it was made with.
    #[must_use]
    pub fn name(&self) -> &str {
        self.core.name()
    }

    /// Calls allowed at once as of now.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.core.limit()
    }

    /// Changes the number of calls allowed at once. Calls under way go on: if they are more than
    /// that, no place is given out until enough have ended. An adaptive limit goes on from there,
    /// within its bounds. At least 1.
    pub fn set_limit(&self, calls: u32) {
        self.core.set_limit(calls.max(1));
    }

    /// The right to one call, without waiting for it.
    ///
    /// # Errors
    /// [`Overloaded`] if no place is free, or others wait for it.
    pub fn try_acquire(&self) -> Result<ConcurrencyPermit, Overloaded> {
        self.try_permit().ok_or_else(|| self.core.reject())
    }

    /// The right to one call, waiting for it in turn if the configuration allows that.
    ///
    /// Dropping the future leaves the queue; a place that was already given passes to the next.
    /// Waiting takes a timer of tokio's, and panics outside its runtime.
    ///
    /// # Errors
    /// [`Overloaded`] if too many wait already, or after [`max_wait`](ConcurrencyConfig::max_wait).
    pub async fn acquire(&self) -> Result<ConcurrencyPermit, Overloaded> {
        if let Some(permit) = self.try_permit() {
            return Ok(permit);
        }
        Turn::new(Arc::clone(&self.core)).await
    }

    /// The figures as of now.
    #[must_use]
    pub fn stats(&self) -> ConcurrencyLimitStats {
        self.core.stats()
    }

    #[inline]
    fn try_permit(&self) -> Option<ConcurrencyPermit> {
        let began = self.core.try_take()?;
        Some(ConcurrencyPermit::new(Arc::clone(&self.core), began))
    }
}

impl fmt::Debug for ConcurrencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimit")
            .field("name", &self.name())
            .field("limit", &self.limit())
            .finish_non_exhaustive()
    }
}
