//! An open connection to an upstream: its socket, what came and was not used, and one timer.

use std::io;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// Room for one read: for the usual answer, and grown for long ones.
const FIRST_READ: usize = 8 * 1024;
const LARGEST_READ: usize = 256 * 1024;

pub(super) struct Connection {
    stream: TcpStream,
    pub(super) received: BytesMut,
    read_size: usize,
    /// Runs on from request to request, and is set anew only when it has run out or would be late:
    /// the runtime's timers cost more than a look at a clock.
    timer: Pin<Box<Sleep>>,
}

impl Connection {
    /// # Panics
    /// Outside of a runtime.
    pub(super) fn new(stream: TcpStream) -> Self {
        let timer = Box::pin(sleep_until(Instant::now()));
        Self { stream, received: BytesMut::new(), read_size: FIRST_READ, timer }
    }

    /// Reads what has come; 0 if the other side has closed.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.received.capacity() - self.received.len() < self.read_size / 4 {
            self.received.reserve(self.read_size);
        }
        let room = self.received.capacity() - self.received.len();
        let read = ready!(pin!(self.stream.read_buf(&mut self.received)).poll(cx))?;
        if read == room {
            self.read_size = (self.read_size * 2).min(LARGEST_READ);
        } else if read < self.read_size / 8 {
            self.read_size = (self.read_size / 2).max(FIRST_READ);
        }
        Poll::Ready(Ok(read))
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match parts {
            // `send` costs a quarter of a microsecond less than `writev`.
            [only] => Pin::new(&mut self.stream).poll_write(cx, only),
            several => Pin::new(&mut self.stream).poll_write_vectored(cx, several),
        }
    }

    /// Ends once `due` has come.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        if self.timer.deadline() > due {
            self.timer.as_mut().reset(due);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(due);
        }
    }

    /// Whether it can carry a request: nothing has come that nobody asked for, and no end.
    pub(super) fn is_quiet(&self) -> bool {
        let nothing = |read: io::Result<usize>| {
            read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        self.received.is_empty() && nothing(self.stream.try_read(&mut [0]))
    }

    /// Ends once there may be something to read.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_read_ready(cx)
    }

    /// Whether it has room of its own, as one with long answers has.
    pub(super) fn has_room(&self) -> bool {
        self.received.capacity() > 0
    }

    /// Room for answers of the usual size, once nothing is in it.
    pub(super) fn take_room(&mut self) -> BytesMut {
        if self.read_size > FIRST_READ {
            BytesMut::new()
        } else {
            std::mem::take(&mut self.received)
        }
    }

    /// The socket, and what came after the last response's head.
    pub(super) fn into_parts(self) -> (TcpStream, BytesMut) {
        (self.stream, self.received)
    }
}
