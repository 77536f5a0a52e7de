//! The background task: one loop for samples and checks.

use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::monitor;
use crate::observability::Inner;

/// The background task of an [`Observability`](crate::Observability): a future that ends with the
/// task and says why. Dropping it leaves the task running.
#[derive(Debug)]
pub struct Task {
    handle: JoinHandle<Exit>,
}

/// Why a background task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// The shutdown future ended.
    Shutdown,
    /// The last handle was dropped.
    Dropped,
    /// Another task of the same handle was already running.
    AlreadyRunning,
    /// It was aborted, by [`Task::abort`] or by the runtime's end.
    Aborted,
    /// It panicked, which is a bug in this crate: closures of the application are fenced.
    Panicked,
}

impl Task {
    pub(crate) fn spawn<F>(weak: Weak<Inner>, shutdown: F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self { handle: tokio::spawn(drive(weak, shutdown)) }
    }

    /// Whether the task has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Ends the task at its next await; checks under way are dropped.
    pub fn abort(&self) {
        self.handle.abort();
    }
}

impl Future for Task {
    type Output = Exit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Exit> {
        Poll::Ready(match ready!(Pin::new(&mut self.handle).poll(cx)) {
            Ok(exit) => exit,
            Err(error) if error.is_panic() => Exit::Panicked,
            Err(_) => Exit::Aborted,
        })
    }
}

async fn drive<F: Future<Output = ()>>(weak: Weak<Inner>, shutdown: F) -> Exit {
    let mut shutdown = pin!(shutdown);
    let Some(_running) = Running::claim(&weak) else { return Exit::AlreadyRunning };
    let mut next_sample = Instant::now();
    let mut runs = JoinSet::new();
    loop {
        // Held only within a round, so that waiting keeps nothing alive.
        let Some(inner) = weak.upgrade() else { return Exit::Dropped };
        let now = Instant::now();
        *inner.heartbeat.lock() = Some(now);
        if now >= next_sample {
            monitor::tick(&inner, now);
            next_sample = now + inner.config.metrics_interval;
        }
        let wake = match inner.checks.start_due(now, &mut runs) {
            Some(due) => due.min(next_sample),
            None => next_sample,
        };
        let changed = Arc::clone(&inner.checks.changed);
        drop(inner);
        let run_ended = async {
            if runs.join_next().await.is_none() {
                pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = &mut shutdown => return Exit::Shutdown,
            () = sleep_until(wake) => {}
            () = run_ended => {}
            () = changed.notified() => {}
        }
    }
}

/// The right to be the only task; given back with the heartbeat when the task ends in any way.
struct Running(Weak<Inner>);

impl Running {
    fn claim(weak: &Weak<Inner>) -> Option<Self> {
        let inner = weak.upgrade()?;
        let taken = inner.running.swap(true, Ordering::AcqRel);
        (!taken).then(|| Self(weak.clone()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            *inner.heartbeat.lock() = None;
            inner.running.store(false, Ordering::Release);
        }
    }
}
