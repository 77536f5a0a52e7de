//! A connection that has changed its protocol: bytes go both ways until both sides have ended, or
//! nothing moves.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::{Instant, sleep_until, timeout};

use super::Upstream;
use super::stats::Counters;
use crate::Pick;

/// Longest time from the response to the change of the client's connection: the response only has to
/// be written.
const CHANGE_PATIENCE: Duration = Duration::from_secs(10);

/// Both ends of a tunnel to be, and the node that is in use for as long as it lasts.
pub(super) struct Tunnel {
    pub(super) client: OnUpgrade,
    pub(super) upstream: OnUpgrade,
    pub(super) pick: Pick<Upstream>,
    /// Not the set: a tunnel of hours would keep one that nobody else has any more.
    pub(super) counters: Arc<Counters>,
    pub(super) idle: Duration,
}

impl Tunnel {
    /// Runs in a task of its own: the request it began with has been answered.
    pub(super) fn start(self) {
        self.counters.tunnels.fetch_add(1, Relaxed);
        let open = Open::new(&self.counters);
        tokio::spawn(async move {
            let _open = open;
            let changed = timeout(CHANGE_PATIENCE, both(self.client, self.upstream)).await;
            // An error is a client that left; the node has done its part.
            if let Ok(Ok((client, upstream))) = changed {
                carry(client, upstream, self.idle).await;
            }
            self.pick.succeeded();
        });
    }
}

async fn both(client: OnUpgrade, upstream: OnUpgrade) -> hyper::Result<(Upgraded, Upgraded)> {
    tokio::try_join!(client, upstream)
}

/// How a tunnel ends (an error, silence, in order) is the business of those who speak through it.
async fn carry(client: Upgraded, upstream: Upgraded, idle: Duration) {
    let moved = Arc::new(Mutex::new(Instant::now()));
    let mut client = Moving { io: TokioIo::new(client), moved: Arc::clone(&moved) };
    let mut upstream = Moving { io: TokioIo::new(upstream), moved: Arc::clone(&moved) };
    let silence = async {
        loop {
            let due = *moved.lock() + idle;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    };
    tokio::select! {
        _ended = copy_bidirectional(&mut client, &mut upstream) => {}
        () = silence => {}
    }
}

/// Counts a tunnel as open until it is dropped.
struct Open(Arc<Counters>);

impl Open {
    fn new(counters: &Arc<Counters>) -> Self {
        counters.tunnels_open.fetch_add(1, Relaxed);
        Self(Arc::clone(counters))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.tunnels_open.fetch_sub(1, Relaxed);
    }
}

/// Notes when bytes were last read.
struct Moving<T> {
    io: T,
    moved: Arc<Mutex<Instant>>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Moving<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if read.is_ready() {
            *self.moved.lock() = Instant::now();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Moving<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
