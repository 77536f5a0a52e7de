//! PostgreSQL: connections that come back without anybody's transaction or query on them.

mod answer;
mod cancel;
mod connect;
mod connection;
mod copy;
mod endpoint;
mod error;
mod lease;
mod listen;
mod manager;
mod pipeline;
mod prepared;
mod recovery;
mod retry;
mod rows;
mod settings;
mod socket;
mod statements;
mod stream;
mod tap;
#[cfg_attr(not(feature = "tls"), path = "tls_absent.rs")]
mod tls;
mod transaction;
mod url;
mod wire;

#[cfg(test)]
mod tests;

/// What the fuzzers reach.
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    pub(crate) use super::tap::Session;
    use crate::config::ConfigError;

    pub(crate) fn parse(text: &str) -> Result<(), ConfigError> {
        super::settings::Settings::parse(text).map(drop)
    }
}

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

pub use tokio_postgres;
pub use tokio_postgres::types::ToSql;
pub use tokio_postgres::{IsolationLevel, Row};
use tower_service::Service;

pub use self::connection::Params;
pub use self::copy::{CopyIn, CopyOut};
pub use self::error::ServerError;
pub use self::lease::PgLease;
use self::listen::Listeners;
pub use self::listen::{ListenEvent, Listener, Notification};
use self::manager::PgManager;
use self::pipeline::{Pipelines, Ride};
pub use self::rows::RowStream;
pub use self::transaction::{PgSavepoint, PgTransaction, TransactionOptions};
use crate::acquire::Acquire;
use crate::config::{ConfigError, PoolConfig};
use crate::error::PoolError;
use crate::event::{Hook, PoolEvent};
use crate::pool::{CloseReport, Pool};
use crate::service::AcquireFuture;
use crate::stats::PoolStats;

/// A pool of PostgreSQL connections. Clones share it.
///
/// Each verb here is one statement; [`begin`](Self::begin), [`transaction`](Self::transaction) and
/// [`acquire`](Self::acquire) hold a connection for several. Statements are prepared once per
/// connection and found by their text, so put values into `params`, never into the text.
///
/// # Pipelines
/// When reads meet, [`query`](Self::query), [`query_one`](Self::query_one) and
/// [`query_opt`](Self::query_opt) send them on a few connections that all callers share, many under
/// way on each, in sessions that refuse writes: on two cores that served about twice as many as a
/// connection for each, and took less than half of the processor time. A read is a text that begins
/// with `SELECT`, `WITH`, `VALUES` or `TABLE`. One that the server refuses as a write has done
/// nothing and runs on a connection of its own, from then on at once. So does one that waits behind
/// a slow one, after 5 to 25 ms, and the slow one after 100 ms. That means that a read may be begun
/// twice. A function with effects that PostgreSQL allows in a read-only transaction, such as one
/// that takes an advisory lock, is known by its name; if one of your own hides such a call, run it
/// on a lease, or set [`pipelines`](PoolConfig::pipelines) to 0.
///
/// Writes are not sent so: those on one connection would be committed one after the other, and wait
/// for each other's locks.
///
/// # Cancellation
/// When the future of a verb is dropped, its statement is cancelled at the server and the connection
/// is cleaned in the background; a read on a shared connection is left to end, unless it is slow.
/// Whether a cancelled write took effect is unknown.
#[derive(Clone)]
pub struct PgPool {
    pool: Pool<PgManager>,
    /// `None` if every statement gets a connection of its own.
    pipelines: Option<Arc<Pipelines>>,
    /// Transactions tried again.
    retries: Arc<AtomicU64>,
    listeners: Arc<Listeners>,
}

impl PgPool {
    /// Connects, and proves by one connection that the server can be used.
    ///
    /// # Errors
    /// [`PoolError::Config`], or why no connection could be made.
    pub async fn connect(config: PoolConfig) -> Result<Self, PoolError> {
        Self::builder(config).connect().await
    }

    /// Makes the pool without waiting for a connection, for a server that may be down at present.
    ///
    /// # Errors
    /// [`PoolError::Config`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect_lazy(config: PoolConfig) -> Result<Self, PoolError> {
        Self::builder(config).connect_lazy()
    }

    /// A pool of its parts.
    pub fn builder(config: PoolConfig) -> PgPoolBuilder {
        PgPoolBuilder { config, hook: None }
    }

    /// Takes a connection for several statements.
    ///
    /// # Errors
    /// As [`Pool::acquire`].
    #[track_caller]
    pub fn acquire(&self) -> impl Future<Output = Result<PgLease, PoolError>> + Send + use<'_> {
        self.acquire_at(Acquire::new(), Location::caller())
    }

    /// As [`acquire`](Self::acquire), with a deadline of its own or in the reserved lane.
    ///
    /// # Errors
    /// As [`Pool::acquire`].
    #[track_caller]
    pub fn acquire_with(
        &self,
        acquire: Acquire,
    ) -> impl Future<Output = Result<PgLease, PoolError>> + Send + use<'_> {
        self.acquire_at(acquire, Location::caller())
    }

    pub(crate) async fn acquire_at(
        &self,
        acquire: Acquire,
        place: &'static Location<'static>,
    ) -> Result<PgLease, PoolError> {
        Ok(PgLease::new(self.pool.acquire_at(acquire, place).await?))
    }

    /// Begins a transaction on a connection of its own.
    ///
    /// # Errors
    /// As [`Pool::acquire`] and [`PgLease::batch_execute`].
    #[track_caller]
    pub fn begin(&self) -> impl Future<Output = Result<PgTransaction, PoolError>> + Send + use<'_> {
        self.begin_at(TransactionOptions::new(), Location::caller())
    }

    /// Begins a transaction of a certain kind on a connection of its own.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    #[track_caller]
    pub fn begin_with(
        &self,
        options: &TransactionOptions,
    ) -> impl Future<Output = Result<PgTransaction, PoolError>> + Send + use<'_> {
        self.begin_at(*options, Location::caller())
    }

    async fn begin_at(
        &self,
        options: TransactionOptions,
        place: &'static Location<'static>,
    ) -> Result<PgTransaction, PoolError> {
        let lease = self.acquire_at(Acquire::new(), place).await?;
        PgTransaction::begin(lease, &options, None).await
    }

    /// Runs a statement and returns all its rows.
    ///
    /// # Errors
    /// As [`Pool::acquire`] and [`PgLease::query`].
    pub async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, PoolError> {
        let Some(pipelines) = &self.pipelines else {
            return self.acquire().await?.query(sql, params).await;
        };
        match pipelines.query(sql, params).await {
            Ride::Answered(result) => result,
            Ride::Elsewhere(outside) => {
                let lease = self.acquire_with(outside.acquire()).await?;
                outside.run(lease.query(sql, params)).await
            }
        }
    }

    /// Runs a statement that returns exactly one row.
    ///
    /// # Errors
    /// As [`Pool::acquire`] and [`PgLease::query_one`].
    pub async fn query_one(&self, sql: &str, params: Params<'_>) -> Result<Row, PoolError> {
        lease::one(self.query(sql, params).await?)
    }

    /// Runs a statement that returns one row or none.
    ///
    /// # Errors
    /// As [`Pool::acquire`] and [`PgLease::query_opt`].
    pub async fn query_opt(&self, sql: &str, params: Params<'_>) -> Result<Option<Row>, PoolError> {
        lease::at_most_one(self.query(sql, params).await?)
    }

    /// Runs a statement and returns the number of rows it changed.
    ///
    /// # Errors
    /// As [`Pool::acquire`] and [`PgLease::execute`].
    pub async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64, PoolError> {
        self.acquire().await?.execute(sql, params).await
    }

    /// Runs several statements without values, separated by semicolons.
    ///
    /// # Errors
    /// As [`Pool::acquire`] and [`PgLease::batch_execute`].
    pub async fn batch_execute(&self, sql: &str) -> Result<(), PoolError> {
        self.acquire().await?.batch_execute(sql).await
    }

    /// Makes a connection for something that needs one of its own, such as whoever watches the server:
    /// by the hosts, TLS, session settings and `connect_timeout` of this pool, but none of its
    /// connections. It is the driver's own, in no figure and under no limit, and closed when it is
    /// dropped and has its answers.
    ///
    /// # Errors
    /// [`PoolError::Connect`].
    pub async fn connect_apart(&self) -> Result<tokio_postgres::Client, PoolError> {
        let connected = self.pool.shared.manager.manager.connect_apart().await;
        let connected = connected.map_err(|error| PoolError::Connect(Arc::new(error)))?;
        Ok(connected.client)
    }

    /// The figures of this moment.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let mut stats = self.pool.stats();
        if let Some(pipelines) = &self.pipelines {
            pipelines.add_to(&mut stats);
        }
        stats.retries_total = self.retries.load(Ordering::Relaxed);
        stats
    }

    /// As [`Pool::resize`].
    ///
    /// # Errors
    /// The rule of `max_size`.
    pub fn resize(&self, max_size: usize) -> Result<(), ConfigError> {
        self.pool.resize(max_size)?;
        if let Some(pipelines) = &self.pipelines {
            pipelines.resize(max_size);
        }
        Ok(())
    }

    /// As [`Pool::pause`].
    pub fn pause(&self) {
        self.pool.pause();
        if let Some(pipelines) = &self.pipelines {
            pipelines.pause(true);
        }
    }

    /// As [`Pool::resume`].
    pub fn resume(&self) {
        self.pool.resume();
        if let Some(pipelines) = &self.pipelines {
            pipelines.pause(false);
        }
    }

    /// Closes as [`Pool::close`] does.
    pub async fn close(&self) -> CloseReport {
        self.close_within(self.pool.config().close_timeout).await
    }

    /// Closes as [`Pool::close_within`] does.
    pub async fn close_within(&self, deadline: Duration) -> CloseReport {
        if let Some(pipelines) = &self.pipelines {
            pipelines.close();
        }
        self.listeners.close();
        let report = self.pool.close_within(deadline).await;
        self.pool.shared.manager.manager.canceller().close();
        report
    }
}

/// Makes a [`PgPool`].
#[must_use]
pub struct PgPoolBuilder {
    config: PoolConfig,
    hook: Option<Hook>,
}

impl PgPoolBuilder {
    /// As [`PoolBuilder::on_event`](crate::PoolBuilder::on_event).
    pub fn on_event(mut self, hook: impl Fn(&PoolEvent<'_>) + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// As [`PgPool::connect`].
    ///
    /// # Errors
    /// [`PoolError::Config`], or why no connection could be made.
    pub async fn connect(self) -> Result<PgPool, PoolError> {
        let pool = self.connect_lazy()?;
        drop(pool.acquire().await?);
        Ok(pool)
    }

    /// As [`PgPool::connect_lazy`].
    ///
    /// # Errors
    /// [`PoolError::Config`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect_lazy(self) -> Result<PgPool, PoolError> {
        let Self { config, hook } = self;
        let manager = PgManager::new(&config)?;
        let pool = Pool::builder(manager).config(config).hook(hook).build()?;
        let pipelines = Pipelines::new(&pool);
        let listeners = Arc::new(Listeners::new());
        Ok(PgPool { pool, pipelines, retries: Arc::default(), listeners })
    }
}

impl fmt::Debug for PgPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgPoolBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl fmt::Debug for PgPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pool.fmt(f)
    }
}

/// Ready when a permit can be had, as [`Pool`] is.
impl Service<()> for PgPool {
    type Response = PgLease;
    type Error = PoolError;
    type Future = PgAcquireFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PoolError>> {
        self.pool.poll_ready(cx)
    }

    #[track_caller]
    fn call(&mut self, (): ()) -> PgAcquireFuture {
        PgAcquireFuture(self.pool.call(()))
    }
}

/// The rest of an acquire after readiness: a connection for the permit.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct PgAcquireFuture(AcquireFuture<PgManager>);

impl Future for PgAcquireFuture {
    type Output = Result<PgLease, PoolError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_ok(PgLease::new)
    }
}
