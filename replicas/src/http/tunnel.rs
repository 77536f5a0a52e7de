//! A connection that has changed its protocol: bytes go both ways until both sides have ended, or
//! nothing moves.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy_bidirectional};
use tokio::net::TcpStream;
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
    /// Its socket, and what it has said already.
    pub(super) upstream: (TcpStream, Bytes),
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
            let changed = timeout(CHANGE_PATIENCE, self.client).await;
            // An error is a client that left; the node has done its part.
            if let Ok(Ok(client)) = changed {
                carry(client, self.upstream, self.idle).await;
            }
            self.pick.succeeded();
        });
    }
}

/// How a tunnel ends (an error, silence, in order) is the business of those who speak through it.
async fn carry(client: Upgraded, (upstream, said): (TcpStream, Bytes), idle: Duration) {
    let moved = Arc::new(Mutex::new(Instant::now()));
    let mut client = Moving { io: TokioIo::new(client), moved: Arc::clone(&moved) };
    let mut upstream = Moving { io: upstream, moved: Arc::clone(&moved) };
    let silence = async {
        loop {
            let due = *moved.lock() + idle;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    };
    let carried = async {
        client.write_all(&said).await?;
        client.flush().await?;
        copy_bidirectional(&mut client, &mut upstream).await
    };
    tokio::select! {
        _ended = carried => {}
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
