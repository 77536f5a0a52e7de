//! The caller's manager with limits around it, and what bb8 is given in its place.

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bb8::ManageConnection;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::config::PoolConfig;
use crate::error::{Cause, HandshakeError, panic_message};
use crate::event::{Observer, PoolEvent};
use crate::gate::Gate;
use crate::stats::CloseReason;

/// Any [`bb8::ManageConnection`] whose error can be shown; nothing needs to be implemented.
pub trait Manager: ManageConnection<Error: std::error::Error + Send + Sync> {}

impl<M: ManageConnection<Error: std::error::Error + Send + Sync>> Manager for M {}

/// The caller's manager: bounded in time, and its panics are errors.
pub(crate) struct Bounded<M> {
    pub(crate) manager: M,
    connect_timeout: Duration,
    validation_timeout: Duration,
}

/// A connection in the store or out of it.
#[derive(Debug)]
pub(crate) struct Slot<C> {
    pub(crate) conn: C,
    /// False while it is out or under test: whatever interrupts that, the store then closes it.
    pub(crate) fit: bool,
    /// When it was last given back.
    pub(crate) used: Instant,
    /// When it was last known to work.
    pub(crate) alive: Instant,
    pub(crate) expires: Instant,
    /// Its own share of the keepalive, so that connections are not tested together.
    pub(crate) stagger: f64,
    /// After the connection, so that it is closed when it no longer counts.
    pub(crate) member: Member,
}

/// One connection among those that count.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) reason: CloseReason,
    made: Instant,
    books: Arc<Books>,
}

/// Where it is written down that a connection is gone.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) gate: Arc<Gate>,
    pub(crate) observer: Observer,
    /// A connection may be missing, or one is too many.
    pub(crate) unsettled: Notify,
    /// The upkeep has something to do before its next round.
    pub(crate) upkeep: Notify,
}

impl<M: Manager> Bounded<M> {
    pub(crate) fn new(manager: M, config: &PoolConfig) -> Self {
        Self {
            manager,
            connect_timeout: config.connect_timeout,
            validation_timeout: config.validation_timeout,
        }
    }

    /// Whether the driver itself says that the connection is gone. A panic says it too.
    pub(crate) fn is_broken(&self, conn: &mut M::Connection) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.manager.has_broken(conn))).unwrap_or(true)
    }

    /// One connect with a deadline over the whole handshake.
    pub(crate) async fn handshake(&self) -> Result<M::Connection, Cause> {
        // Built inside the future, since the call may panic before it returns one.
        let connect = caught(async { self.manager.connect().await });
        match timeout(self.connect_timeout, connect).await {
            Ok(Ok(Ok(conn))) => Ok(conn),
            Ok(Ok(Err(error))) => Err(Arc::new(error)),
            Ok(Err(message)) => Err(Arc::new(HandshakeError::Panicked(message))),
            Err(_) => Err(Arc::new(HandshakeError::TimedOut(self.connect_timeout))),
        }
    }

    /// Tests a connection. Whoever drops this before its end must close the connection.
    pub(crate) async fn test(&self, conn: &mut M::Connection) -> Result<(), Cause> {
        let test = caught(async { self.manager.is_valid(conn).await });
        match timeout(self.validation_timeout, test).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(Arc::new(error)),
            Ok(Err(message)) => Err(Arc::new(HandshakeError::TestPanicked(message))),
            Err(_) => Err(Arc::new(HandshakeError::TestTimedOut(self.validation_timeout))),
        }
    }
}

impl Member {
    /// A connection that was just made, and was counted.
    pub(crate) fn new(books: Arc<Books>, made: Instant) -> Self {
        Self { reason: CloseReason::PoolClosed, made, books }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.books.gate.closed(self.reason);
        let age = self.made.elapsed();
        self.books.observer.tell(&PoolEvent::Closed { reason: self.reason, age });
        if self.books.gate.is_unsettled() {
            self.books.unsettled.notify_one();
        }
    }
}

/// The manager that bb8 owns. The pool connects and tests by itself, and bb8 only keeps what it is
/// given: asked for a connection while it has one, it never needs to make any.
pub(crate) struct Keeper<M>(pub(crate) PhantomData<fn() -> M>);

impl<M: Manager> ManageConnection for Keeper<M> {
    /// Boxed: bb8 moves it about a dozen times from the store to a lease and back.
    type Connection = Box<Slot<M::Connection>>;
    type Error = Refused;

    async fn connect(&self) -> Result<Self::Connection, Refused> {
        Err(Refused)
    }

    async fn is_valid(&self, _: &mut Self::Connection) -> Result<(), Refused> {
        Err(Refused)
    }

    fn has_broken(&self, slot: &mut Self::Connection) -> bool {
        !slot.fit
    }
}

/// What the store is told that asks for a connection of its own.
#[derive(Debug)]
pub(crate) struct Refused;

/// Turns a panic of a future into its message. The future is never polled again after one.
pub(crate) async fn caught<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(payload) => Poll::Ready(Err(panic_message(&*payload))),
    })
    .await
}
