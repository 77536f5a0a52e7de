//! Listens in on a connection: a stream that reads along what passes through it, and changes
//! nothing of it but for one fault of the driver; see [`Session::passage`].
//!
//! It sits above TLS and below the driver, so it sees the protocol from the startup message on.
//! Each message costs the look at its five bytes of head; nothing is copied, locked or allocated.

mod frames;
mod session;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::session::Passage;
pub(crate) use self::session::Session;
use super::wire::Wire;

/// A stream that tells a [`Wire`] what passes.
pub(super) struct Tap<S> {
    stream: S,
    session: Session,
    wire: Arc<Wire>,
    /// Who waits to write; see [`Passage::Hold`].
    held: Option<Waker>,
}

impl<S> Tap<S> {
    pub(super) fn new(stream: S) -> (Self, Arc<Wire>) {
        let wire = Arc::new(Wire::default());
        (Self { stream, session: Session::new(), wire: Arc::clone(&wire), held: None }, wire)
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    fn publish(&self) {
        let Self { session, wire, .. } = self;
        wire.publish(session.state(), session.answered(), session.backend());
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.session.received(&buf.filled()[before..]);
        if let Some(writer) = self.held.take() {
            writer.wake();
        }
        // Before the driver sees it: who gets an answer from the driver finds it counted.
        self.publish();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = match self.session.passage(buf) {
            Passage::Write(most) => {
                ready!(Pin::new(&mut self.stream).poll_write(cx, &buf[..most]))?
            }
            Passage::Drop(count) => return Poll::Ready(Ok(count)),
            Passage::Hold => {
                self.held = Some(cx.waker().clone());
                return Poll::Pending;
            }
        };
        self.session.sent(&buf[..count]);
        self.publish();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S> Drop for Tap<S> {
    fn drop(&mut self) {
        self.wire.close();
    }
}
