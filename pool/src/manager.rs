//! What bb8 is given instead of the caller's manager: connects that are bounded in time and number
//! and survive a panic, and connections that know whether they are fit.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bb8::ManageConnection;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::config::PoolConfig;
use crate::error::{Cause, HandshakeError, panic_message};
use crate::event;
use crate::failures::Failures;
use crate::meter::Meter;

/// Any [`bb8::ManageConnection`] whose error can be shown; nothing needs to be implemented.
pub trait Manager: ManageConnection<Error: std::error::Error + Send + Sync> {}

impl<M: ManageConnection<Error: std::error::Error + Send + Sync>> Manager for M {}

/// The caller's manager with limits around it.
pub(crate) struct Bounded<M> {
    pub(crate) manager: M,
    pub(crate) meter: Arc<Meter>,
    closed: AtomicBool,
    connecting: Semaphore,
    connect_timeout: Duration,
    validation_timeout: Duration,
    max_lifetime: Duration,
}

/// A connection in the store.
#[derive(Debug)]
pub(crate) struct Slot<C> {
    pub(crate) conn: C,
    /// False while it is out or under test: whatever interrupts that, the store then closes it.
    pub(crate) fit: bool,
    /// When it was last known to work.
    pub(crate) used: Instant,
    pub(crate) expires: Instant,
}

impl<M: Manager> Bounded<M> {
    pub(crate) fn new(manager: M, config: &PoolConfig, meter: Arc<Meter>) -> Self {
        Self {
            manager,
            meter,
            closed: AtomicBool::new(false),
            connecting: Semaphore::new(config.max_connecting),
            connect_timeout: config.connect_timeout,
            validation_timeout: config.validation_timeout,
            max_lifetime: config.max_lifetime,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// No connect begins from now on, and no connection that comes back is kept.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether the driver itself says that the connection is gone.
    pub(crate) fn is_broken(&self, slot: &mut Slot<M::Connection>) -> bool {
        self.manager.has_broken(&mut slot.conn)
    }

    /// One connect with a deadline over the whole handshake.
    async fn handshake(&self) -> Result<M::Connection, Cause> {
        let attempt = self.meter.connect();
        // Built inside the future, since the call may panic before it returns one.
        let connect = caught(async { self.manager.connect().await });
        let conn = match timeout(self.connect_timeout, connect).await {
            Ok(Ok(Ok(conn))) => conn,
            Ok(Ok(Err(error))) => return Err(Arc::new(error)),
            Ok(Err(message)) => return Err(Arc::new(HandshakeError::Panicked(message))),
            Err(_) => return Err(Arc::new(HandshakeError::TimedOut(self.connect_timeout))),
        };
        attempt.made();
        Ok(conn)
    }

    /// Tests a connection. It stays unfit unless the test succeeds, however that ends.
    pub(crate) async fn test(&self, slot: &mut Slot<M::Connection>) -> Result<(), Cause> {
        slot.fit = false;
        let test = caught(self.manager.is_valid(&mut slot.conn));
        let failure: Cause = match timeout(self.validation_timeout, test).await {
            Ok(Ok(Ok(()))) => {
                slot.fit = true;
                slot.used = Instant::now();
                return Ok(());
            }
            Ok(Ok(Err(error))) => Arc::new(error),
            Ok(Err(message)) => Arc::new(HandshakeError::Panicked(message)),
            Err(_) => Arc::new(HandshakeError::TestTimedOut(self.validation_timeout)),
        };
        self.meter.invalid();
        Err(failure)
    }
}

/// The manager that bb8 owns; the pool holds the other reference.
pub(crate) struct Keeper<M>(pub(crate) Arc<Bounded<M>>);

impl<M: Manager> ManageConnection for Keeper<M> {
    type Connection = Slot<M::Connection>;
    type Error = Cause;

    async fn connect(&self) -> Result<Self::Connection, Cause> {
        let permit = self.0.connecting.acquire().await;
        if permit.is_err() || self.0.is_closed() {
            return Err(Arc::new(HandshakeError::Closed));
        }
        let conn = self.0.handshake().await?;
        let now = Instant::now();
        let lifetime = self.0.max_lifetime.mul_f64(1.0 - fastrand::f64() / 10.0);
        Ok(Slot { conn, fit: true, used: now, expires: now + lifetime })
    }

    // Never called: the pool tests by itself, with a deadline and only when it is worth it.
    async fn is_valid(&self, slot: &mut Self::Connection) -> Result<(), Cause> {
        self.0.test(slot).await
    }

    fn has_broken(&self, slot: &mut Self::Connection) -> bool {
        !slot.fit || self.0.is_closed() || self.0.is_broken(slot)
    }
}

/// Where bb8 leaves the failures of connects that it started itself.
#[derive(Clone)]
pub(crate) struct Sink(pub(crate) Arc<Failures>);

impl bb8::ErrorSink<Cause> for Sink {
    fn sink(&self, cause: Cause) {
        // A closed pool refuses what bb8 starts to replace closed connections: no news.
        if !matches!(cause.downcast_ref(), Some(HandshakeError::Closed)) {
            event::connect_failed(&cause);
        }
        self.0.deliver(&cause);
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<Cause>> {
        Box::new(self.clone())
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}

/// Turns a panic of a future into its message. The future is never polled again after one.
pub(crate) async fn caught<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(payload) => std::task::Poll::Ready(Err(panic_message(&*payload))),
    })
    .await
}
