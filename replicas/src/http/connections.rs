//! The connections to one upstream of one runtime: those without a request, and how more are opened.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::BytesMut;
use http::Uri;
use parking_lot::Mutex;
use tokio::runtime::{self, Handle};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::UpstreamConfig;
use super::connection::Connection;
use super::connector::Connector;
use crate::BoxError;

/// A connection that is waited for; and whether it has carried a request before.
pub(super) type Opening =
    Pin<Box<dyn Future<Output = Result<(Box<Connection>, bool), BoxError>> + Send>>;

pub(super) struct Connections {
    /// Whose sockets they are. No handle, which would keep what is left of one that has ended.
    runtime: runtime::Id,
    connector: Connector,
    target: Uri,
    /// How many are kept, and for how long.
    max_idle: usize,
    idle_timeout: Duration,
    idle: Mutex<Idle>,
    /// Tells those who wait for a new one.
    kept: Notify,
}

#[derive(Default)]
struct Idle {
    /// The one that was used last is last, and is used first: the others may be closed in peace.
    kept: Vec<Kept>,
    /// Whether somebody comes to close those that are kept for too long.
    watched: bool,
    /// To read into, for whichever connection has an answer next: the processor's cache has it still.
    room: BytesMut,
}

struct Kept {
    connection: Box<Connection>,
    since: Instant,
}

impl Connections {
    pub(super) fn new(
        runtime: runtime::Id,
        target: Uri,
        config: &UpstreamConfig,
        max_idle: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            connector: Connector::new(config.connect_timeout),
            target,
            max_idle,
            idle_timeout: config.pool_idle_timeout,
            idle: Mutex::default(),
            kept: Notify::new(),
        })
    }

    pub(super) fn runtime(&self) -> runtime::Id {
        self.runtime
    }

    /// One that was kept, if it was not for too long.
    pub(super) fn take(&self, now: Instant) -> Option<Box<Connection>> {
        let Kept { connection, since } = self.idle.lock().kept.pop()?;
        // Those below it have been kept for longer.
        (now < since + self.idle_timeout).then_some(connection)
    }

    /// A new one, or one that was kept meanwhile: a server whose queue is full has connections that
    /// come free before it takes another.
    pub(super) fn open(self: &Arc<Self>) -> Opening {
        let connections = Arc::clone(self);
        Box::pin(async move {
            tokio::select! {
                biased;
                opened = connections.connector.open(connections.target.clone()) => {
                    Ok((Box::new(Connection::new(opened?)), false))
                }
                kept = connections.next_kept() => Ok((kept, true)),
            }
        })
    }

    async fn next_kept(&self) -> Box<Connection> {
        loop {
            let kept = self.kept.notified();
            if let Some(connection) = self.take(Instant::now()) {
                return connection;
            }
            kept.await;
        }
    }

    /// Keeps one for the next request.
    pub(super) fn keep(self: &Arc<Self>, mut connection: Box<Connection>) {
        let room = connection.take_room();
        let mut idle = self.idle.lock();
        if room.capacity() > 0 {
            idle.room = room;
        }
        if idle.kept.len() >= self.max_idle {
            return;
        }
        let mut watcher = None;
        if !idle.watched {
            watcher = Handle::try_current().ok().filter(|runtime| runtime.id() == self.runtime);
            if watcher.is_none() {
                // Nobody would close it.
                return;
            }
            idle.watched = true;
        }
        idle.kept.push(Kept { connection, since: Instant::now() });
        drop(idle);
        if let Some(runtime) = watcher {
            // Not under the lock: a runtime that is ending drops it here, which clears all.
            let due = Instant::now() + self.idle_timeout;
            runtime.spawn(watch(Watching(Arc::downgrade(self)), due));
        }
        self.kept.notify_one();
    }

    /// Closes all that is kept.
    fn clear(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        drop(idle);
    }

    /// Room to read into; none if others have it.
    pub(super) fn room(&self) -> BytesMut {
        std::mem::take(&mut self.idle.lock().room)
    }

    /// Closes those that were kept for long enough, or that the other side has closed. When to come
    /// again; never, if none is left.
    fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut idle = self.idle.lock();
        let fresh =
            |kept: &Kept| now < kept.since + self.idle_timeout && kept.connection.is_quiet();
        let (kept, closed) = std::mem::take(&mut idle.kept).into_iter().partition(fresh);
        idle.kept = kept;
        let oldest = idle.kept.first().map(|kept| kept.since + self.idle_timeout);
        idle.watched = oldest.is_some();
        drop(idle);
        drop::<Vec<Kept>>(closed);
        oldest
    }
}

/// Ends when there is nothing to close.
async fn watch(mut watching: Watching, mut due: Instant) {
    loop {
        sleep_until(due).await;
        let next = watching.0.upgrade().and_then(|connections| connections.sweep(Instant::now()));
        let Some(next) = next else {
            // Somebody else may be watching by now.
            watching.0 = Weak::new();
            return;
        };
        due = next;
    }
}

/// Nobody could use or close the connections of a runtime that has ended.
struct Watching(Weak<Connections>);

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(connections) = self.0.upgrade() {
            connections.clear();
        }
    }
}
