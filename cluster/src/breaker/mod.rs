//! A circuit breaker: a backend that keeps failing is left alone for a while, its callers get their
//! answer at once.

#[cfg(feature = "axum")]
mod body;
mod config;
mod core;
mod fallback;
mod future;
mod guard;
mod judge;
mod layer;
mod machine;
mod outcome;
mod permit;
mod registry;
mod reject;
mod service;
mod stats;
mod window;

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "axum")]
pub use self::body::JudgedBody;
pub use self::config::BreakerConfig;
pub use self::fallback::{FallbackFuture, FallbackTo};
pub use self::future::ResponseFuture;
pub use self::guard::Guard;
#[cfg(feature = "axum")]
pub use self::judge::AtEndOfBody;
pub use self::judge::{AtHead, JudgeAt, ReadRequest};
pub use self::layer::BreakerLayer;
pub use self::machine::State;
#[cfg(feature = "axum")]
pub use self::outcome::ServerErrorsFail;
pub use self::outcome::{Classify, ErrorsFail, Judgement, Outcome};
pub use self::permit::Permit;
pub use self::registry::{
    BreakerRegistry, KeyFn, KeyOf, KeyOverflow, Keyed, RegistryConfig, RegistryStats, key_fn,
};
#[cfg(feature = "axum")]
pub use self::registry::{ExtensionKey, HashedKey, HeaderKey, HostKey, RouteKey};
#[cfg(feature = "axum")]
pub use self::reject::AsResponse;
pub use self::reject::{AsError, Divert, Reject};
pub use self::service::BreakerService;
pub use self::stats::BreakerStats;

use self::core::Core;
use crate::ConfigError;

/// One circuit. A cheap handle: clones, and every layer and service made from them, share it.
///
/// A [`BreakerLayer`] puts it around a tower service; [`admit`](Self::admit) is for code that is
/// none.
///
/// # Example
/// ```
/// use escala_cluster::{Breaker, BreakerConfig};
///
/// fn quote() -> Result<u32, std::io::Error> { Ok(42) }
///
/// let breaker = Breaker::new("quotes", BreakerConfig::default())?;
/// let permit = breaker.admit()?; // or an error that says when to ask again
/// match quote() {
///     Ok(_) => permit.succeeded(),
///     Err(_) => permit.failed(),
/// }
/// assert_eq!(breaker.stats().succeeded_total, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Cost
/// A call on a closed circuit: no lock and no allocation; atomics, one clock read if the failure
/// rate is used and one more if the call has to wait. A rejection by an open circuit: no lock and
/// a clock read. A lock is taken while half-open and for each move.
#[derive(Debug, Clone)]
pub struct Breaker {
    core: Arc<Core>,
}

/// The circuit rejects calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the circuit is open")]
#[non_exhaustive]
pub struct Open {
    /// Time after which a call may be let through again. A minimum: others may ask before, and the
    /// trial may fail.
    pub retry_after: Duration,
}

impl Open {
    /// Whether the same call can succeed later: always.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        true
    }
}

impl Breaker {
    /// A closed circuit. The name is what logs and statistics call it.
    ///
    /// # Errors
    /// The first field of the configuration that breaks its rule.
    pub fn new(name: impl Into<Arc<str>>, config: BreakerConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self::of_valid(name.into(), config))
    }

    /// As [`new`](Self::new), for a configuration that has been checked.
    fn of_valid(name: Arc<str>, config: BreakerConfig) -> Self {
        Self { core: Arc::new(Core::new(name, config)) }
    }

    /// The name it was made with.
    #[must_use]
    pub fn name(&self) -> &str {
        self.core.name()
    }

    /// Where the circuit stands now.
    #[must_use]
    pub fn state(&self) -> State {
        self.core.state()
    }

    /// The right to one call.
    ///
    /// # Errors
    /// [`Open`] while the circuit is open, or half-open with all its permits handed out.
    pub fn admit(&self) -> Result<Permit, Open> {
        let mut permit = self.admit_young()?;
        permit.start_age();
        Ok(permit)
    }

    /// Rejects every call until [`reset`](Self::reset) or [`force_close`](Self::force_close).
    pub fn force_open(&self) {
        self.core.change(machine::Machine::force_open);
    }

    /// Lets every call through, whatever their results, until [`reset`](Self::reset) or
    /// [`force_open`](Self::force_open).
    pub fn force_close(&self) {
        self.core.change(machine::Machine::force_close);
    }

    /// Closes the circuit with nothing counted, and lets it open by itself again. Calls under way
    /// change nothing any more.
    pub fn reset(&self) {
        self.core.change(machine::Machine::reset);
    }

    /// The figures as of now.
    #[must_use]
    pub fn stats(&self) -> BreakerStats {
        self.core.stats()
    }

    /// The rejection that a call would meet now, as far as that is known without a lock.
    pub(crate) fn rejects(&self) -> Option<Open> {
        self.core.rejects()
    }

    /// Counts a call that is refused because [`rejects`](Self::rejects) has said so before.
    pub(crate) fn refuse(&self) -> Open {
        self.core.rejected();
        // Without one the circuit has moved since: the next call may go through.
        self.rejects().unwrap_or(Open { retry_after: Duration::ZERO })
    }

    /// A permit whose age starts when the caller says so.
    pub(crate) fn admit_young(&self) -> Result<Permit, Open> {
        let ticket = self.core.admit()?;
        Ok(Permit::new(Arc::clone(&self.core), ticket))
    }

    /// A permit of a closed circuit, and nothing at all of any other: moves nothing.
    fn admit_closed(&self) -> Option<Permit> {
        let ticket = self.core.admit_closed()?;
        Some(Permit::new(Arc::clone(&self.core), ticket))
    }

    /// Whether somebody else has a handle or a permit.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.core) > 1
    }
}
