//! Keeps the connection of a listener.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};

use super::super::connect::Connected;
use super::super::manager::PgManager;
use super::{Inbox, ListenEvent};
use crate::error::PoolError;
use crate::event;
use crate::manager::Bounded;
use crate::pool::Pool;

/// Silence after which the connection is tested: a dead one is silent too.
const TEST_AFTER: Duration = Duration::from_secs(30);
/// The longest pause before the first attempt to connect again; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How to get a connection that listens.
pub(super) struct Source {
    manager: Arc<Bounded<PgManager>>,
    command: String,
    inbox: Arc<Inbox>,
    connect_timeout: Duration,
    test_timeout: Duration,
}

/// A connection that listens.
pub(super) struct Line(Connected);

impl Drop for Line {
    fn drop(&mut self) {
        // A quiet one says goodbye by itself when its client is gone. Otherwise its task would wait
        // for an answer that may never come.
        if self.0.wire.is_busy() {
            self.0.task.abort();
        }
    }
}

impl Source {
    pub(super) fn new(pool: &Pool<PgManager>, command: String, inbox: Arc<Inbox>) -> Self {
        let config = pool.config();
        Self {
            manager: Arc::clone(&pool.shared.manager),
            command,
            inbox,
            connect_timeout: config.connect_timeout,
            test_timeout: config.validation_timeout,
        }
    }

    pub(super) async fn connect(&self) -> Result<Line, PoolError> {
        let connected = self.manager.manager.connect_apart().await;
        let line = Line(connected.map_err(|error| PoolError::Connect(Arc::new(error)))?);
        // First the way, then the command: what comes with its answer is not lost.
        line.0.mailbox.forward(Arc::clone(&self.inbox));
        match timeout(self.connect_timeout, line.0.client.batch_execute(&self.command)).await {
            Ok(Ok(())) => Ok(line),
            Ok(Err(error)) => Err(PoolError::Postgres(error)),
            Err(elapsed) => Err(PoolError::Connect(Arc::new(elapsed))),
        }
    }

    /// Returns when the connection is of no more use.
    async fn lost(&self, line: &Line) {
        loop {
            tokio::select! {
                () = line.0.mailbox.ended() => return,
                () = sleep(TEST_AFTER) => {}
            }
            let test = timeout(self.test_timeout, line.0.client.check_connection()).await;
            if !matches!(test, Ok(Ok(()))) {
                return;
            }
        }
    }

    async fn keep(self, first: Line) {
        let mut line = first;
        loop {
            self.lost(&line).await;
            drop(line);
            line = self.reconnect().await;
            self.inbox.put(ListenEvent::Reconnected);
        }
    }

    async fn reconnect(&self) -> Line {
        let mut longest = FIRST_PAUSE;
        loop {
            // Any pause up to the longest: many programs lost the same server.
            sleep(longest.mul_f64(fastrand::f64())).await;
            match self.connect().await {
                Ok(line) => return line,
                Err(error) => event::listener_lost(&error),
            }
            longest = (longest * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Runs until the pool is closed or gone.
pub(super) async fn run(
    source: Source,
    line: Line,
    mut closed: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let end = End(Arc::clone(&source.inbox));
    tokio::select! {
        // An error: the pool was dropped.
        _closed_or_gone = closed.wait_for(|closed| *closed) => {}
        () = source.keep(line) => {}
    }
    drop(end);
}

/// Ends the events, however the task ends.
struct End(Arc<Inbox>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close();
    }
}
