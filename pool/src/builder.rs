//! Makes a pool of its parts.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bb8::QueueStrategy;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use crate::config::{ConfigError, PoolConfig, some};
use crate::event::{Hook, Observer, PoolEvent};
use crate::gate::{Gate, Limits};
use crate::leaks::Leaks;
use crate::manager::{Books, Bounded, Keeper, Manager};
use crate::pool::Pool;
use crate::shared::Shared;
use crate::upkeep;

/// Makes a [`Pool`].
#[must_use]
pub struct PoolBuilder<M> {
    manager: M,
    config: PoolConfig,
    hook: Option<Hook>,
}

impl<M: Manager> PoolBuilder<M> {
    pub(crate) fn new(manager: M) -> Self {
        Self { manager, config: PoolConfig::default(), hook: None }
    }

    /// Sets all limits.
    pub fn config(mut self, config: PoolConfig) -> Self {
        self.config = config;
        self
    }

    /// Calls `hook` with whatever happens: waits, connects, holds, why connections are closed. It is
    /// called outside of all locks, and a panic of it stays inside. It shall not block.
    pub fn on_event(mut self, hook: impl Fn(&PoolEvent<'_>) + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn hook(mut self, hook: Option<Hook>) -> Self {
        self.hook = hook;
        self
    }

    /// Makes the pool. It connects `min_idle` connections in the background, one after another.
    ///
    /// # Errors
    /// A limit breaks its rule.
    ///
    /// # Panics
    /// Outside a tokio runtime, which the background work needs.
    pub fn build(self) -> Result<Pool<M>, ConfigError> {
        let Self { manager, config, hook } = self;
        config.validate()?;
        let limits = Limits {
            reserved: config.reserved,
            max_waiters: config.max_waiters,
            max_connecting: config.max_connecting,
            min_idle: config.min_idle,
            max_backoff: config.max_backoff,
        };
        let gate = Arc::new(Gate::new(config.max_size, limits));
        let books = Arc::new(Books {
            gate: Arc::clone(&gate),
            observer: Observer::new(hook),
            unsettled: Notify::new(),
            upkeep: Notify::new(),
        });
        let (alive, ended) = oneshot::channel();
        let shared = Arc::new(Shared {
            store: store(),
            manager: Arc::new(Bounded::new(manager, &config)),
            gate,
            books,
            leaks: some(config.leak_threshold).map(Leaks::new),
            config,
            runtime: Handle::current(),
            _alive: alive,
        });
        upkeep::spawn(&shared, ended);
        Ok(Pool::from(shared))
    }
}

impl<M> fmt::Debug for PoolBuilder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The manager may hold a password, so it is not shown.
        f.debug_struct("PoolBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

/// bb8 as a stack of connections: how many there may be, when one is opened and when it is closed is
/// decided by the gate, which can change its mind.
fn store<M: Manager>() -> bb8::Pool<Keeper<M>> {
    bb8::Pool::builder()
        .max_size(u32::MAX)
        .min_idle(None)
        .test_on_check_out(false)
        .max_lifetime(None)
        .idle_timeout(None)
        // Nobody ever waits inside bb8.
        .connection_timeout(Duration::from_secs(1))
        .retry_connection(false)
        .queue_strategy(QueueStrategy::Lifo)
        .build_unchecked(Keeper(PhantomData))
}
