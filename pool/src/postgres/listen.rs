//! `LISTEN`: what others `NOTIFY`, on a connection that is made again when it breaks.

mod inbox;
mod task;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::AbortHandle;
pub use tokio_postgres::Notification;

pub(super) use self::inbox::{Inbox, Mailbox};
use super::PgPool;
use crate::config::ConfigError;
use crate::error::PoolError;

/// Listeners of one pool at a time. Each is one connection beyond `max_size`; one is enough for all
/// channels of a program.
const MOST_LISTENERS: usize = 16;
/// What PostgreSQL cuts longer names to: they would never match.
const LONGEST_NAME: usize = 63;

/// What a [`Listener`] hears.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ListenEvent {
    /// Somebody notified a channel.
    Notification(Notification),
    /// The connection was lost and made again. What was notified meanwhile is lost: look at the
    /// tables themselves.
    Reconnected,
    /// So many notifications were thrown away, the oldest first, since they were not read in time.
    Lagged(u64),
}

/// Notifications of some channels, until it is dropped or the pool is closed.
///
/// It has a connection of its own, beyond `max_size`. When that breaks, it is made again in the
/// background, with growing pauses of up to 5 s while that fails, and the next event is
/// [`ListenEvent::Reconnected`]. A connection that has been silent for 30 s is tested.
///
/// # Limits
/// 1,024 notifications wait to be read; then the oldest are thrown away and
/// [`ListenEvent::Lagged`] says how many. At most 16 listeners a pool.
pub struct Listener {
    inbox: Arc<Inbox>,
    task: AbortHandle,
}

/// What the listeners of a pool share.
#[derive(Debug)]
pub(super) struct Listeners {
    places: Arc<Semaphore>,
    /// Dropped with the pool, which ends them too.
    closed: watch::Sender<bool>,
}

impl Listeners {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(MOST_LISTENERS)), closed: watch::Sender::new(false) }
    }

    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, PoolError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map_err(|_full| PoolError::TooManyListeners { limit: MOST_LISTENERS })
    }
}

impl PgPool {
    /// Listens to channels on a connection of its own. Once this returns, nothing is missed unless
    /// an event says so.
    ///
    /// # Errors
    /// [`PoolError::Config`] if a name is empty, longer than 63 bytes or holds a zero byte, or there
    /// is none; [`PoolError::TooManyListeners`]; or why no connection could be made.
    pub async fn listen<I>(&self, channels: I) -> Result<Listener, PoolError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let command = command(channels)?;
        let place = self.listeners.place()?;
        let closed = self.listeners.closed.subscribe();
        if *closed.borrow() {
            return Err(PoolError::Closed);
        }
        let inbox = Arc::new(Inbox::default());
        let source = task::Source::new(&self.pool, command, Arc::clone(&inbox));
        let line = source.connect().await?;
        let running = task::run(source, line, closed, place);
        let task = self.pool.runtime().spawn(running).abort_handle();
        Ok(Listener { inbox, task })
    }
}

fn command(channels: impl IntoIterator<Item: AsRef<str>>) -> Result<String, ConfigError> {
    let mut command = String::new();
    for channel in channels {
        let name = channel.as_ref();
        if name.is_empty() || name.len() > LONGEST_NAME || name.contains('\0') {
            let rule = "must have 1 to 63 bytes, none of them zero";
            return Err(ConfigError::new("channels", format!("{name:?}"), rule));
        }
        command.push_str(&format!("LISTEN \"{}\";", name.replace('"', "\"\"")));
    }
    if command.is_empty() {
        return Err(ConfigError::new("channels", "[]", "must name a channel"));
    }
    Ok(command)
}

impl Listener {
    /// The next event; `None` once the pool is closed and everything is read.
    pub async fn next(&mut self) -> Option<ListenEvent> {
        std::future::poll_fn(|cx| self.inbox.poll_next(cx)).await
    }
}

impl Stream for Listener {
    type Item = ListenEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ListenEvent>> {
        self.inbox.poll_next(cx)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_channels_are_quoted_and_checked() {
        assert_eq!(command(["a", "B \"c\""]).unwrap(), "LISTEN \"a\";LISTEN \"B \"\"c\"\"\";");
        let long = "é".repeat(32);
        for bad in ["", "a\0b", long.as_str()] {
            assert_eq!(command(["a", bad]).unwrap_err().field, "channels");
        }
        assert!(command([""; 0]).is_err());
        assert!(command([&long[..62]]).is_ok());
    }
}
