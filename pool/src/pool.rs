//! The pool: fair permits in front of the store, one deadline per acquire, a close that drains.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bb8::QueueStrategy;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::config::{ConfigError, PoolConfig};
use crate::error::{Cause, HandshakeError, PoolError};
use crate::event;
use crate::failures::Failures;
use crate::lease::{Lease, Stored};
use crate::manager::{Bounded, Keeper, Manager, Sink};
use crate::meter::{Meter, Outcome, Ticket};
use crate::stats::PoolStats;
use crate::upkeep;

/// How long a caller waits inside bb8 before it asks again. bb8 tries a failed connect again only
/// then, so this is also the pace of retries; and it heals a wake-up that bb8 may lose when two
/// connections come back at one moment.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// A pool of connections over any [`bb8::ManageConnection`]. Clones share it.
///
/// The `url` of the configuration is not used here.
///
/// # Cancellation
/// Dropping the future of [`acquire`](Self::acquire) gives up its place; a connect it started goes
/// on and its connection is kept for the next caller.
///
/// # Cost
/// A free connection: one permit, about 1 µs in all, most of it in bb8; no round trip if it was
/// used within `validate_after`.
pub struct Pool<M: Manager> {
    shared: Arc<Shared<M>>,
}

/// What a closed pool could not wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// Leases (SQLite: jobs, waiting and running) still out when the deadline passed. They may be
    /// used to their end; their connections are closed then.
    pub abandoned: usize,
}

/// What clones, leases and the upkeep share.
pub(crate) struct Shared<M: Manager> {
    store: bb8::Pool<Keeper<M>>,
    pub(crate) manager: Arc<Bounded<M>>,
    permits: Arc<Semaphore>,
    pub(crate) meter: Arc<Meter>,
    failures: Arc<Failures>,
    pub(crate) config: PoolConfig,
    /// A lease may be dropped outside the runtime, and leave work to do.
    pub(crate) runtime: Handle,
    /// Somebody may wait for the last lease.
    returns: Notify,
    /// Dropped with the pool, which ends the upkeep.
    _alive: tokio::sync::oneshot::Sender<()>,
}

impl<M: Manager> Pool<M> {
    /// Makes a pool. It connects `min_idle` connections in the background.
    ///
    /// # Errors
    /// A limit breaks its rule.
    ///
    /// # Panics
    /// Outside a tokio runtime, which the background work needs.
    pub fn new(manager: M, config: PoolConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        let meter = Arc::new(Meter::default());
        let failures = Arc::new(Failures::default());
        let manager = Arc::new(Bounded::new(manager, &config, Arc::clone(&meter)));
        let (alive, ended) = tokio::sync::oneshot::channel();
        let min_idle = config.min_idle.min(config.max_size);
        // It fits: `validate` allows at most 100,000.
        let store = bb8::Pool::builder()
            .max_size(config.max_size as u32)
            // Not bb8's own `min_idle`: that opens a connection for every one that is taken out.
            .min_idle(None)
            .test_on_check_out(false)
            .max_lifetime(None)
            .idle_timeout(config.idle_timeout)
            .reaper_rate(config.idle_timeout / 3)
            .connection_timeout(ASK_AGAIN)
            .retry_connection(false)
            .error_sink(Box::new(Sink(Arc::clone(&failures))))
            .queue_strategy(QueueStrategy::Lifo)
            .build_unchecked(Keeper(Arc::clone(&manager)));
        let shared = Arc::new(Shared {
            store,
            manager,
            permits: Arc::new(Semaphore::new(config.max_size)),
            meter,
            failures,
            config,
            runtime: Handle::current(),
            returns: Notify::new(),
            _alive: alive,
        });
        upkeep::spawn(&shared, min_idle, ended);
        Ok(Self { shared })
    }

    /// Takes a connection that is fit to use, in the order of the callers.
    ///
    /// # Errors
    /// [`is_saturated`](PoolError::is_saturated) errors when all connections stay in use,
    /// [`is_connection`](PoolError::is_connection) errors when none can be made, with the cause: at
    /// once while the pool has no connection at all, else at the deadline.
    pub async fn acquire(&self) -> Result<Lease<M>, PoolError> {
        let ticket = Ticket::start(&self.shared.meter);
        let result = Shared::lease(&self.shared).await;
        ticket.settle(result.as_ref().map_or_else(Outcome::of, |_| Outcome::Acquired));
        result
    }

    /// The limits.
    #[cfg(feature = "postgres")]
    pub(crate) fn config(&self) -> &PoolConfig {
        &self.shared.config
    }

    /// Where the background work runs.
    #[cfg(feature = "postgres")]
    pub(crate) fn runtime(&self) -> &Handle {
        &self.shared.runtime
    }

    /// Whether a connection is free for whoever comes.
    #[cfg(feature = "postgres")]
    pub(crate) fn has_spare(&self) -> bool {
        self.shared.permits.available_permits() > 0
    }

    /// Whether somebody waits for a connection.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_contended(&self) -> bool {
        self.shared.meter.snapshot().waiting > 0
    }

    /// The figures of this moment.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let state = self.shared.store.state();
        let mut stats = self.shared.meter.snapshot();
        stats.size = state.connections as usize;
        stats.available = state.idle_connections as usize;
        stats.max_size = self.shared.config.max_size;
        stats
    }

    /// Turns new and waiting callers away, closes idle connections and waits for leases, at most
    /// `close_timeout`. May be called again.
    pub async fn close(&self) -> CloseReport {
        let shared = &self.shared;
        let deadline = Instant::now() + shared.config.close_timeout;
        shared.manager.close();
        shared.permits.close();
        shared.drop_idle().await;
        let drained = async {
            loop {
                let mut returned = pin!(shared.returns.notified());
                // Registered before the look, so that a return in between is not missed.
                returned.as_mut().enable();
                if shared.leases_out() == 0 {
                    break;
                }
                returned.await;
            }
        };
        // Whether it drained is read from the permits: the last lease may come back just now.
        let _in_time = timeout_at(deadline, drained).await;
        let abandoned = shared.leases_out();
        if abandoned > 0 {
            event::abandoned(abandoned);
        }
        CloseReport { abandoned }
    }
}

impl<M: Manager> Shared<M> {
    async fn lease(this: &Arc<Self>) -> Result<Lease<M>, PoolError> {
        let began = Instant::now();
        let deadline = began + this.config.acquire_timeout;
        let permit = this.permit(began, deadline).await?;
        let stored = this.checkout(began, deadline).await?;
        Ok(Lease::new(stored, permit, Arc::clone(this)))
    }

    /// The right to one connection. The semaphore serves its callers in order, which bb8 does not:
    /// there a running task takes a connection back before the one that was woken for it runs.
    async fn permit(
        &self,
        began: Instant,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, PoolError> {
        match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => return Ok(permit),
            Err(TryAcquireError::Closed) => return Err(PoolError::Closed),
            Err(TryAcquireError::NoPermits) => {}
        }
        let _place = self.meter.queue(self.config.max_waiters)?;
        match timeout_at(deadline, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_closed)) => Err(PoolError::Closed),
            Err(_elapsed) => Err(self.saturated(began)),
        }
    }

    /// A connection that works, from the store or new.
    async fn checkout(&self, began: Instant, deadline: Instant) -> Result<Stored<M>, PoolError> {
        let entered = Instant::now();
        let mut cause = None;
        loop {
            let mut stored = match self.take(deadline, &mut cause).await {
                Ok(Some(stored)) => stored,
                Ok(None) => return Err(self.too_late(began, entered, cause)),
                Err(cause) => return Err(connect_error(cause)),
            };
            // Not `entered`: a wait for a connect may lie between.
            let now = Instant::now();
            let slot = &mut *stored;
            if now >= slot.expires || self.manager.is_broken(slot) {
                slot.fit = false;
                continue;
            }
            if now < slot.used + self.config.validate_after {
                return Ok(stored);
            }
            match timeout_at(deadline, self.manager.test(slot)).await {
                Ok(Ok(())) => return Ok(stored),
                Ok(Err(failure)) => cause = Some(failure),
                Err(_elapsed) => return Err(self.too_late(began, entered, cause)),
            }
        }
    }

    /// Takes from the store, which connects when it is empty. `None` at the deadline.
    async fn take(
        &self,
        deadline: Instant,
        cause: &mut Option<Cause>,
    ) -> Result<Option<Stored<M>>, Cause> {
        let mut seen = self.failures.count();
        let mut get = pin!(self.store.get_owned());
        if let Some(Ok(stored)) = once(get.as_mut()).await {
            return Ok(Some(stored));
        }
        let mut late = pin!(sleep_until(deadline));
        let mut failed = self.failures.subscribe(seen);
        loop {
            tokio::select! {
                biased;
                result = &mut get => match result {
                    Ok(stored) => return Ok(Some(stored)),
                    // Only `ASK_AGAIN` has passed.
                    Err(_elapsed) => get.set(self.store.get_owned()),
                },
                failure = failed.next() => {
                    if self.store.state().connections == 0 || self.manager.is_closed() {
                        return Err(failure);
                    }
                    // Others work, so one of theirs may come back in time.
                    *cause = Some(failure);
                    seen = self.failures.count();
                    failed = self.failures.subscribe(seen);
                }
                () = &mut late => return Ok(None),
            }
        }
    }

    /// The deadline passed with a permit in hand. That is the node's fault if a connection was
    /// awaited for long, and saturation's if most of the time went by in the queue.
    fn too_late(&self, began: Instant, entered: Instant, cause: Option<Cause>) -> PoolError {
        let enough = self.config.connect_timeout.min(self.config.acquire_timeout / 2);
        if cause.is_none() && entered.elapsed() < enough {
            return self.saturated(began);
        }
        PoolError::ConnectTimeout { waited: began.elapsed(), cause }
    }

    fn saturated(&self, began: Instant) -> PoolError {
        PoolError::AcquireTimeout { waited: began.elapsed(), max_size: self.config.max_size }
    }

    /// An idle connection that nobody waits for.
    pub(crate) async fn spare(this: &Arc<Self>) -> Option<Lease<M>> {
        let permit = Arc::clone(&this.permits).try_acquire_owned().ok()?;
        let stored = this.take_idle().await?;
        Some(Lease::new(stored, permit, Arc::clone(this)))
    }

    /// Opens one more connection, if a permit is free and it can be done. True if it was.
    pub(crate) async fn grow(&self) -> bool {
        let Ok(_permit) = self.permits.try_acquire() else { return false };
        let deadline = Instant::now() + self.config.connect_timeout;
        // What comes goes to the store at once, whether it is new or was given back meanwhile.
        matches!(self.take(deadline, &mut None).await, Ok(Some(_)))
    }

    /// Connections open.
    pub(crate) fn size(&self) -> usize {
        self.store.state().connections as usize
    }

    /// Takes from the store only what is there: asking an empty one would start a connect.
    async fn take_idle(&self) -> Option<Stored<M>> {
        if self.store.state().idle_connections == 0 {
            return None;
        }
        once(pin!(self.store.get_owned())).await?.ok()
    }

    /// Empties the store of a closed pool: what comes out is not taken back.
    async fn drop_idle(&self) {
        while let Some(stored) = self.take_idle().await {
            drop(stored);
        }
    }

    fn leases_out(&self) -> usize {
        self.config.max_size - self.permits.available_permits()
    }

    /// A lease came back.
    pub(crate) fn returned(&self) {
        self.returns.notify_waiters();
    }
}

impl<M: Manager> Clone for Pool<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
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

fn connect_error(cause: Cause) -> PoolError {
    match cause.downcast_ref() {
        Some(HandshakeError::Closed) => PoolError::Closed,
        _ => PoolError::Connect(cause),
    }
}

/// Polls once; `None` while it is pending. The future may be polled on afterwards.
async fn once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
