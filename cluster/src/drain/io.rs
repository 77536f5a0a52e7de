//! The socket of one connection: counts as open until it is dropped, whoever owns it by then.

use std::io::{self, IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::futures::OwnedNotified;

use super::conn::Conn;
use super::heads::Heads;
use super::server::{Mode, Place};
#[cfg(feature = "http2")]
use super::streams::Preface;

/// Bytes that are thrown away at a time.
const THROWN_AWAY: usize = 4 * 1024;

/// Parts that are no longer than this together are copied into one: `send` costs a quarter of a
/// microsecond less than `writev`, and the copy a tenth of one at most.
const PUT_TOGETHER: usize = 4 * 1024;

/// A TCP stream that notes received bytes, and that fails once the server cuts what is left: an
/// upgraded connection lives in a task of which we hold nothing else.
pub(super) struct Io {
    stream: TcpStream,
    conn: Arc<Conn>,
    /// Set while an upgraded connection waits. Boxed, because hyper wants its streams `Unpin`.
    cut: Option<Pin<Box<OwnedNotified>>>,
    heads: Heads,
    #[cfg(feature = "http2")]
    preface: Preface,
    /// Kept until the socket is closed: that of an upgraded connection outlives its `Connection`.
    _place: Place,
}

impl Io {
    pub(super) fn new(stream: TcpStream, conn: Arc<Conn>, place: Place) -> Self {
        Self {
            stream,
            conn,
            cut: None,
            heads: Heads::default(),
            #[cfg(feature = "http2")]
            preface: Preface::default(),
            _place: place,
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        if self.conn.is_h2() {
            self.conn.passes();
            return;
        }
        #[cfg(feature = "http2")]
        if self.preface.ends_in(bytes) {
            self.conn.speak_h2();
            return;
        }
        if self.conn.received() {
            self.heads.begin(self.conn.requests() + 1);
        }
        if let Some(request) = self.heads.read(bytes) {
            self.conn.set_ambiguous(request);
        }
    }

    /// Asks the kernel itself: the runtime may not yet know of what has arrived.
    fn read_now(&self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let socket = SockRef::from(&self.stream);
        match (&*socket).read(buffer.initialize_unfilled()) {
            Ok(read) => {
                buffer.advance(read);
                Poll::Ready(Ok(()))
            }
            // Of other errors the runtime learns as well.
            Err(_) => Poll::Pending,
        }
    }

    fn is_cut(&self) -> bool {
        self.conn.is_upgraded() && self.conn.server().mode() == Mode::Cutting
    }

    /// Passes on what the stream said; one that waits is woken by the cut as well.
    fn unless_cut<T>(
        &mut self,
        cx: &mut Context<'_>,
        answer: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if answer.is_ready() || !self.conn.is_upgraded() {
            return answer;
        }
        loop {
            let server = self.conn.server();
            let cut = self.cut.get_or_insert_with(|| Box::pin(server.moved()));
            let waits = cut.as_mut().poll(cx).is_pending();
            // Looked at after the wait is set up, so that no move falls in between.
            if server.mode() == Mode::Cutting {
                return Poll::Ready(Err(cut_error()));
            }
            if waits {
                return Poll::Pending;
            }
            self.cut = None;
        }
    }
}

fn poll_write_parts(
    stream: Pin<&mut TcpStream>,
    cx: &mut Context<'_>,
    parts: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if parts.iter().map(|part| part.len()).sum::<usize>() > PUT_TOGETHER {
        return stream.poll_write_vectored(cx, parts);
    }
    let mut together = [MaybeUninit::uninit(); PUT_TOGETHER];
    let mut together = ReadBuf::uninit(&mut together);
    parts.iter().for_each(|part| together.put_slice(part));
    stream.poll_write(cx, together.filled())
}

fn cut_error() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the server has ended")
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_cut() {
            return Poll::Ready(Err(cut_error()));
        }
        let before = buffer.filled().len();
        let mut answer = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if answer.is_pending() && self.conn.looks_once_more() {
            answer = self.read_now(buffer);
        }
        if buffer.filled().len() > before && !self.conn.is_upgraded() {
            self.received(&buffer.filled()[before..]);
        }
        self.unless_cut(cx, answer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut() {
            return Poll::Ready(Err(cut_error()));
        }
        let answer = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.conn.wrote(answer.is_ready());
        self.unless_cut(cx, answer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut() {
            return Poll::Ready(Err(cut_error()));
        }
        let answer = poll_write_parts(Pin::new(&mut self.stream), cx, slices);
        self.conn.wrote(answer.is_ready());
        self.unless_cut(cx, answer)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Closes our side, then reads on until the client has closed the other one: what it had sent
    /// when it learnt of the close would have the kernel reset the connection, and take back from it a
    /// response that it has not read yet. The connection's timer bounds it.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.conn.is_upgraded() || self.conn.is_quiet() {
            return Pin::new(&mut self.stream).poll_shutdown(cx);
        }
        if !self.conn.is_parting() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.conn.part();
        }
        let mut thrown_away = [MaybeUninit::uninit(); THROWN_AWAY];
        loop {
            let mut buffer = ReadBuf::uninit(&mut thrown_away);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.conn.passes();
        }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        self.conn.closed();
    }
}
