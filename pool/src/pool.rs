//! The handle of a pool.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::acquire::Acquire;
use crate::builder::PoolBuilder;
use crate::config::{ConfigError, PoolConfig, count};
use crate::error::PoolError;
use crate::event::{self, PoolEvent};
use crate::lease::Lease;
use crate::manager::Manager;
use crate::service::Readiness;
use crate::shared::Shared;
use crate::stats::PoolStats;

/// A pool of connections over any [`bb8::ManageConnection`]. Clones share it.
///
/// The `url` of the configuration is not used here.
///
/// # Readiness and clones
/// As a tower service a pool is ready when a permit can be had, in turn with all other callers. The
/// clone that was made ready keeps it until it is called or dropped, so do not keep a ready clone
/// for later. A pool that is closed, has too many waiters or stays in use for `acquire_timeout` is
/// ready too: its call fails.
///
/// # Cancellation
/// Dropping the future of [`acquire`](Self::acquire) gives up its place; a connect it started goes
/// on and its connection is kept for the next caller.
///
/// # Cost
/// A free connection that was used within `validate_after`: two reads of the clock, a short lock
/// three times, and bb8. No round trip, no allocation.
pub struct Pool<M: Manager> {
    pub(crate) shared: Arc<Shared<M>>,
    /// Of this clone alone.
    pub(crate) readiness: Readiness,
}

/// What a closed pool could not wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// Leases (SQLite: jobs, waiting and running) still out when the deadline passed. They may be
    /// used to their end; their connections are closed then.
    pub abandoned: usize,
}

impl<M: Manager> Pool<M> {
    /// A pool with these limits and no event hook.
    ///
    /// # Errors
    /// As [`PoolBuilder::build`].
    ///
    /// # Panics
    /// As [`PoolBuilder::build`].
    pub fn new(manager: M, config: PoolConfig) -> Result<Self, ConfigError> {
        Self::builder(manager).config(config).build()
    }

    /// A pool of its parts.
    pub fn builder(manager: M) -> PoolBuilder<M> {
        PoolBuilder::new(manager)
    }

    /// Takes a connection that is fit to use, in the order of the callers, within `acquire_timeout`.
    ///
    /// # Errors
    /// [`is_saturated`](PoolError::is_saturated) errors when all connections stay in use,
    /// [`is_connection`](PoolError::is_connection) errors when none can be made, with the cause: at
    /// once while the pool has no connection at all, else at the deadline.
    #[track_caller]
    pub fn acquire(&self) -> impl Future<Output = Result<Lease<M>, PoolError>> + Send + use<'_, M> {
        self.acquire_at(Acquire::new(), Location::caller())
    }

    /// As [`acquire`](Self::acquire), with a deadline of its own or in the reserved lane.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    #[track_caller]
    pub fn acquire_with(
        &self,
        acquire: Acquire,
    ) -> impl Future<Output = Result<Lease<M>, PoolError>> + Send + use<'_, M> {
        self.acquire_at(acquire, Location::caller())
    }

    /// As [`acquire_with`](Self::acquire_with), for a wrapper that knows its caller.
    pub(crate) async fn acquire_at(
        &self,
        acquire: Acquire,
        place: &'static Location<'static>,
    ) -> Result<Lease<M>, PoolError> {
        Shared::acquire(&self.shared, acquire, place).await
    }

    /// The limits.
    #[cfg(feature = "postgres")]
    pub(crate) fn config(&self) -> &PoolConfig {
        &self.shared.config
    }

    /// Where the background work runs.
    #[cfg(feature = "postgres")]
    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.shared.runtime
    }

    /// Whether a permit is free for whoever comes.
    #[cfg(feature = "postgres")]
    pub(crate) fn has_spare(&self) -> bool {
        self.shared.gate.has_spare()
    }

    /// Whether somebody waits for a permit.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_contended(&self) -> bool {
        self.shared.gate.is_contended()
    }

    /// The figures of this moment.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.shared.stats()
    }

    /// Changes `max_size`. More are opened when they are wanted. If there are too many now, idle
    /// connections are closed at once and leases when they come back; nobody's lease is cut short.
    /// `min_idle` stays as configured, capped at the new size.
    ///
    /// # Errors
    /// The rule of `max_size`.
    pub fn resize(&self, max_size: usize) -> Result<(), ConfigError> {
        count("max_size", max_size)?;
        let from = self.shared.gate.resize(max_size);
        if from != max_size {
            self.shared.tell(&PoolEvent::Resized { from, to: max_size });
        }
        self.shared.settle();
        self.shared.books.upkeep.notify_one();
        Ok(())
    }

    /// Holds callers back: they wait, within their deadlines, until [`resume`](Self::resume). Leases
    /// that are out go on, the reserved lane is served, and nothing is tested or opened in the
    /// background. Wait for `leased` of [`stats`](Self::stats) to be 0 to have the server to
    /// yourself.
    pub fn pause(&self) {
        if self.shared.gate.pause(true) {
            self.shared.tell(&PoolEvent::Paused);
        }
    }

    /// Serves callers again, in the order they came.
    pub fn resume(&self) {
        if self.shared.gate.pause(false) {
            self.shared.tell(&PoolEvent::Resumed);
            self.shared.books.upkeep.notify_one();
        }
    }

    /// Turns new and waiting callers away, closes idle connections and waits for leases, at most
    /// `close_timeout`. May be called again.
    pub async fn close(&self) -> CloseReport {
        self.close_within(self.shared.config.close_timeout).await
    }

    /// As [`close`](Self::close), with a deadline of its own.
    pub async fn close_within(&self, deadline: Duration) -> CloseReport {
        let shared = &self.shared;
        shared.gate.close();
        shared.settle();
        if let Some(drained) = shared.gate.drained() {
            // Whether it drained is read from the gate: the last lease may come back just now.
            let _in_time = timeout(deadline, drained).await;
        }
        // What a caller had a claim on when it was turned away is idle again.
        shared.settle();
        let abandoned = shared.gate.permits_out();
        if abandoned > 0 {
            event::abandoned(abandoned);
        }
        CloseReport { abandoned }
    }
}

impl<M: Manager> From<Arc<Shared<M>>> for Pool<M> {
    fn from(shared: Arc<Shared<M>>) -> Self {
        Self { shared, readiness: Readiness::default() }
    }
}

impl<M: Manager> Clone for Pool<M> {
    fn clone(&self) -> Self {
        Self::from(Arc::clone(&self.shared))
    }
}

impl<M: Manager> fmt::Debug for Pool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The manager may hold a password, so it is not shown.
        f.debug_struct("Pool")
            .field("config", &self.shared.config)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
