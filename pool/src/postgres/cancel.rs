//! Cancels the query of a connection, and knows when that was carried out.
//!
//! The protocol's own cancel request goes on a connection of its own, for which the server starts a
//! process, and during that accepts nobody else. Where callers give up often, when they are in
//! trouble already, that is more work than most of what they gave up. So with the second cancel in a
//! second a session is opened that has its server signal other backends, in a fraction of the time,
//! until none was cancelled for a while.
//!
//! Both ways succeed after the backend was signalled and not before, so a later query is not hit.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_postgres::{Error, Statement};

use super::connect::{AbortOnDrop, Connected, Connector};
use super::connection::PgConnection;
use super::endpoint::Endpoint;
use super::error::BoxError;
use super::socket::Address;
use super::stream::{Done, KeptOpen, Stream};
use crate::event;

/// Two cancels within this time are many.
const OFTEN: Duration = Duration::from_secs(1);
/// How long the session stays without a cancel.
const LINGER: Duration = Duration::from_secs(10);
/// How long none is opened after one was of no use.
const REST: Duration = Duration::from_secs(60);
/// Who waits longer for a signal has the others go the protocol's way.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long a request by the protocol's way stays open for its server to end it: longer than a failover,
/// during which a pooler keeps it. One for each recovery that has timed out meanwhile.
const HOLD: Duration = Duration::from_secs(60);
/// For the session to be made ready, once it is connected.
const PREPARATION: Duration = Duration::from_secs(1);

/// Of that very connection only: what a pooler in between calls its process is none of the server's,
/// or somebody else's. A process of -1 would stand for all.
const SIGNAL: &str = "SELECT CASE WHEN client_port = $2 AND client_addr = inet_client_addr() \
                      THEN pg_cancel_backend(pid) END FROM pg_stat_get_activity($1) WHERE pid = $1";

/// A connection as other sessions of its server see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backend {
    pub(super) pid: i32,
    pub(super) port: u16,
}

/// Cancels what the connections of one pool do.
pub(super) struct Canceller {
    connector: Arc<Connector>,
    session: Mutex<Signalling>,
}

/// Whether there is a session that sends signals. What it was is ended when it becomes another.
enum Signalling {
    Without {
        /// When something was cancelled last.
        last: Option<Instant>,
        /// No session is opened before then.
        rests: Option<Instant>,
    },
    Opening {
        task: AbortOnDrop,
    },
    Open {
        signaller: Arc<Signaller>,
        used: Instant,
        /// Ends it when it is not used any more.
        _task: AbortOnDrop,
    },
    /// There will be none any more.
    Closed,
}

impl Signalling {
    fn without() -> Self {
        Self::Without { last: None, rests: None }
    }

    /// After a session was of no use, or for this reason could not be opened.
    fn resting(error: Option<&(dyn std::error::Error + Send + Sync)>) -> Self {
        event::signaller_dismissed(error);
        Self::Without { last: None, rests: Some(Instant::now() + REST) }
    }
}

impl Canceller {
    pub(super) fn new(connector: Arc<Connector>) -> Arc<Self> {
        Arc::new(Self { connector, session: Mutex::new(Signalling::without()) })
    }

    /// Returns when the backend was signalled. `again`: it was before, and does not hear.
    ///
    /// # Errors
    /// It may be signalled yet, so the connection must not be used any more. Nor if this is dropped.
    pub(super) async fn cancel(
        self: &Arc<Self>,
        conn: &PgConnection,
        again: bool,
    ) -> Result<(), BoxError> {
        if let Some(backend) = conn.backend()
            && let Some(signaller) = self.signaller(conn.endpoint(), again)
        {
            // Whoever is dropped meanwhile has waited too long.
            let doubt = Doubt(Some((self, &signaller)));
            let mut signal = pin!(signaller.signal(backend));
            let signalled = match timeout(PATIENCE, signal.as_mut()).await {
                Ok(signalled) => signalled,
                Err(_elapsed) => {
                    self.dismiss(&signaller);
                    // It may be carried out yet, so there is no other way for this one.
                    signal.await
                }
            };
            match signalled {
                Ok(true) => {
                    doubt.settle();
                    return Ok(());
                }
                // Not the session's fault.
                Ok(false) if conn.is_gone() => doubt.settle(),
                // The server has answered: nothing is to come.
                Ok(false) => {}
                Err(error) if error.as_db_error().is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        request(conn).await
    }

    /// No session is left, or opened, after this.
    pub(super) fn close(&self) {
        *self.session.lock() = Signalling::Closed;
    }

    /// The session to that server, if there is one. Has it opened where it is missed.
    fn signaller(self: &Arc<Self>, endpoint: &Endpoint, again: bool) -> Option<Arc<Signaller>> {
        let now = Instant::now();
        let mut session = self.session.lock();
        if let Signalling::Open { signaller, used, .. } = &mut *session {
            if signaller.is_gone() {
                *session = Signalling::without();
            } else if signaller.server == endpoint.address {
                *used = now;
                return Some(Arc::clone(signaller));
            }
        }
        if let Signalling::Without { last, rests } = &mut *session
            && !again
            && rests.is_none_or(|end| end <= now)
        {
            let before = last.replace(now);
            if before.is_some_and(|before| now.duration_since(before) < OFTEN) {
                let keep =
                    keep(Arc::downgrade(self), Arc::clone(&self.connector), endpoint.clone());
                let task = AbortOnDrop::new(&tokio::spawn(keep));
                *session = Signalling::Opening { task };
            }
        }
        None
    }

    fn opened(&self, opened: Result<Signaller, BoxError>) {
        let mut session = self.session.lock();
        if let Signalling::Opening { task } = &mut *session {
            *session = match opened {
                Ok(signaller) => {
                    let (signaller, used) = (Arc::new(signaller), Instant::now());
                    Signalling::Open { signaller, used, _task: task.take() }
                }
                Err(error) => Signalling::resting(Some(&*error)),
            };
        }
    }

    /// It is of no use.
    fn dismiss(&self, signaller: &Arc<Signaller>) {
        let mut session = self.session.lock();
        if let Signalling::Open { signaller: current, .. } = &*session
            && Arc::ptr_eq(current, signaller)
        {
            *session = Signalling::resting(None);
        }
    }

    /// Until when it stays at least; `None` if it is no longer there.
    fn stays(&self) -> Option<Instant> {
        let mut session = self.session.lock();
        let Signalling::Open { used, .. } = &*session else { return None };
        let end = *used + LINGER;
        if end > Instant::now() {
            return Some(end);
        }
        *session = Signalling::without();
        None
    }
}

/// Opens the session, and ends it when nothing was cancelled for a while. Ended from outside when it
/// is to go sooner.
async fn keep(canceller: Weak<Canceller>, connector: Arc<Connector>, endpoint: Endpoint) {
    let opened = Signaller::connect(&connector, endpoint).await;
    drop(connector);
    if let Some(canceller) = canceller.upgrade() {
        canceller.opened(opened);
    }
    while let Some(end) = canceller.upgrade().and_then(|canceller| canceller.stays()) {
        sleep_until(end).await;
    }
}

/// Dismisses a session unless it was settled that it is of use.
struct Doubt<'a>(Option<(&'a Canceller, &'a Arc<Signaller>)>);

impl Doubt<'_> {
    fn settle(mut self) {
        self.0 = None;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some((canceller, signaller)) = self.0 {
            canceller.dismiss(signaller);
        }
    }
}

/// A session that has its server signal other backends.
struct Signaller {
    server: Address,
    connected: Connected,
    statement: Statement,
    /// One that waits for an answer would not end with its client.
    _task: AbortOnDrop,
}

impl Signaller {
    async fn connect(connector: &Connector, endpoint: Endpoint) -> Result<Self, BoxError> {
        let server = endpoint.address.clone();
        let connected = connector.connect_again(endpoint).await?;
        let task = AbortOnDrop::of(&connected);
        let statement = timeout(PREPARATION, connected.client.prepare(SIGNAL)).await??;
        Ok(Self { server, connected, statement, _task: task })
    }

    fn is_gone(&self) -> bool {
        self.connected.client.is_closed()
    }

    /// Whether there was such a backend, and it was signalled.
    async fn signal(&self, backend: Backend) -> Result<bool, Error> {
        let Backend { pid, port } = backend;
        let client = &self.connected.client;
        let row = client.query_opt(&self.statement, &[&pid, &i32::from(port)]).await?;
        row.map_or(Ok(false), |row| Ok(row.try_get::<_, Option<bool>>(0)?.unwrap_or(false)))
    }
}

/// The protocol's way, on a connection of its own.
async fn request(conn: &PgConnection) -> Result<(), BoxError> {
    let (mut stream, _) = conn.endpoint().open().await?;
    conn.client.cancel_token().cancel_query_raw(KeptOpen(&mut stream), Done).await?;
    // In a task, so that whoever has waited long enough does not end it; see `KeptOpen`.
    tokio::spawn(timeout(HOLD, ended(stream))).await?.map_err(Into::into)
}

/// Nothing is ever answered. The server closes it after it has signalled the backend, so this
/// returns with the connection's end, orderly or not.
async fn ended(mut stream: Stream) {
    while stream.read(&mut [0; 16]).await.is_ok_and(|count| count > 0) {}
}
