//! What came and was not read yet.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_postgres::Notification;

use super::ListenEvent;

/// Events that wait to be read. One of at most 8 kB of payload each, that bounds them to 8 MB.
const MOST: usize = 1024;

/// The events of one listener.
#[derive(Debug, Default)]
pub(in super::super) struct Inbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    events: VecDeque<ListenEvent>,
    /// Thrown away since the reader was told last.
    lost: u64,
    /// The first of those thrown away came after a new connection.
    reconnected: bool,
    closed: bool,
    reader: Option<Waker>,
}

impl Inbox {
    pub(super) fn put(&self, event: ListenEvent) {
        let reader = {
            let mut state = self.0.lock();
            if state.events.len() >= MOST {
                match state.events.pop_front() {
                    // That must not be forgotten.
                    Some(ListenEvent::Reconnected) => state.reconnected = true,
                    _ => state.lost += 1,
                }
            }
            state.events.push_back(event);
            state.reader.take()
        };
        // Outside the lock.
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    pub(super) fn close(&self) {
        let reader = {
            let mut state = self.0.lock();
            state.closed = true;
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<ListenEvent>> {
        let mut state = self.0.lock();
        if std::mem::take(&mut state.reconnected) {
            return Poll::Ready(Some(ListenEvent::Reconnected));
        }
        if state.lost > 0 {
            return Poll::Ready(Some(ListenEvent::Lagged(std::mem::take(&mut state.lost))));
        }
        if let Some(event) = state.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Where the driver of a connection leaves notifications. Most connections have nobody who listens.
#[derive(Debug, Default)]
pub(in super::super) struct Mailbox {
    inbox: OnceLock<Arc<Inbox>>,
    ended: Notify,
}

impl Mailbox {
    /// From now on notifications go there.
    pub(super) fn forward(&self, inbox: Arc<Inbox>) {
        // Only the one listener that owns the connection calls this.
        drop(self.inbox.set(inbox));
    }

    pub(in super::super) fn deliver(&self, notification: Notification) {
        if let Some(inbox) = self.inbox.get() {
            inbox.put(ListenEvent::Notification(notification));
        }
    }

    /// The connection is gone.
    pub(in super::super) fn end(&self) {
        self.ended.notify_one();
    }

    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(inbox: &Inbox) -> Option<ListenEvent> {
        match inbox.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_is_not_read_in_time_is_counted() {
        let inbox = Inbox::default();
        for _ in 0..=MOST {
            // Any event serves; one of the driver cannot be made here.
            inbox.put(ListenEvent::Lagged(7));
        }
        assert!(matches!(next(&inbox), Some(ListenEvent::Lagged(1))));
        for _ in 0..MOST {
            assert!(matches!(next(&inbox), Some(ListenEvent::Lagged(7))));
        }
        assert!(next(&inbox).is_none());
    }

    #[test]
    fn a_new_connection_is_told_however_much_was_thrown_away() {
        let inbox = Inbox::default();
        inbox.put(ListenEvent::Reconnected);
        for _ in 0..3 * MOST {
            inbox.put(ListenEvent::Lagged(7));
        }
        assert!(matches!(next(&inbox), Some(ListenEvent::Reconnected)));
        let lost = 2 * MOST as u64;
        assert!(matches!(next(&inbox), Some(ListenEvent::Lagged(count)) if count == lost));
    }
}
