//! One request and the head of its response on one connection, driven by whoever waits for it, without
//! a task of its own.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::UpstreamError;
use super::connection::Connection;
use super::connections::Connections;
use super::request_body::Stream;
use super::response_head::{self, ResponseHead};
use super::upload::{Upload, UploadError};

pub(super) struct Exchange {
    connection: Box<Connection>,
    home: Arc<Connections>,
    upload: Upload,
    sent: Sent,
    /// Whether it is a `HEAD`.
    to_head: bool,
    /// Whether the connection has carried a request before.
    used: bool,
}

/// How much of the request is out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Partly,
    Wholly,
    /// No more of it will be: the other side takes none, and may have said why, or there is none.
    Refused(io::ErrorKind),
}

/// Why there is no head.
pub(super) enum NoHead {
    /// The connection was closed before a byte of the request was written.
    Unsent(io::Error),
    Failed(UpstreamError),
}

impl Exchange {
    pub(super) fn new(
        connection: Box<Connection>,
        home: Arc<Connections>,
        upload: Upload,
        to_head: bool,
        used: bool,
    ) -> Self {
        Self { connection, home, upload, sent: Sent::Partly, to_head, used }
    }

    /// Sends what can be sent, and waits for the head.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, NoHead>> {
        if self.used && !self.upload.has_begun() && !self.connection.is_quiet() {
            return Poll::Ready(Err(NoHead::Unsent(io::ErrorKind::ConnectionAborted.into())));
        }
        match self.poll_send(cx) {
            Ok(()) => {}
            Err(UploadError::Body(error)) => {
                return Poll::Ready(Err(NoHead::Failed(UpstreamError::RequestBody(error))));
            }
            Err(UploadError::Write(error)) => return Poll::Ready(Err(NoHead::Unsent(error))),
        }
        loop {
            let failed = match ready!(self.poll_read(cx)) {
                Ok(0) => UpstreamError::Closed(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => UpstreamError::Closed(error),
                Ok(_) => match response_head::take(&mut self.connection.received, self.to_head) {
                    Ok(None) => continue,
                    Ok(Some(head)) => return Poll::Ready(Ok(head)),
                    Err(rule) => UpstreamError::Protocol(rule),
                },
            };
            return Poll::Ready(Err(NoHead::Failed(failed)));
        }
    }

    /// Sends what can be sent. A write that fails once something is out is no error: what the other
    /// side had to say may be there.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), UploadError> {
        if self.sent != Sent::Partly {
            return Ok(());
        }
        match self.upload.poll_write(&mut self.connection, cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.sent = Sent::Wholly,
            Poll::Ready(Err(UploadError::Write(error))) if self.upload.has_begun() => {
                self.sent = Sent::Refused(error.kind());
            }
            Poll::Ready(Err(error)) => {
                // A body that is asked again may say that it has ended, and the other side would take
                // what it has for the whole.
                self.sent = Sent::Refused(io::ErrorKind::Other);
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Whoever has to wait needs no room.
        ready!(self.connection.poll_readable(cx))?;
        if !self.connection.has_room() {
            self.connection.received = self.home.room();
        }
        self.connection.poll_read(cx)
    }

    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        self.connection.poll_due(cx, due)
    }

    /// Sends the rest of the request; ready once no more of it will be sent.
    pub(super) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        self.poll_send(cx)?;
        if self.is_sending() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// Whether more of the request is to be sent.
    pub(super) fn is_sending(&self) -> bool {
        self.sent == Sent::Partly
    }

    /// Whether the end of what comes is one that the other side meant. How a connection was lost is told
    /// to whoever asks first, and that may have been a write; `EPIPE` is one that was closed before.
    pub(super) fn ends_in_order(&self) -> bool {
        !matches!(self.sent, Sent::Refused(kind) if kind != io::ErrorKind::BrokenPipe)
    }

    /// What came and was not used.
    pub(super) fn received(&mut self) -> &mut BytesMut {
        &mut self.connection.received
    }

    /// The request's body, if it is one that a client sends meanwhile.
    pub(super) fn stream(&self) -> Option<&Stream> {
        self.upload.stream()
    }

    pub(super) fn is_to_head(&self) -> bool {
        self.to_head
    }

    /// The response is over; the connection is kept if it can carry another one.
    pub(super) fn finish(self, keeps: bool) {
        if keeps && self.sent == Sent::Wholly && self.connection.received.is_empty() {
            self.home.keep(self.connection);
        }
    }

    /// Whether the connection may have been closed because nobody used it.
    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    /// What was to be sent, and to whom, where nothing was.
    pub(super) fn into_unsent(self) -> (Arc<Connections>, Upload, bool) {
        (self.home, self.upload, self.to_head)
    }

    /// The socket of a connection that has changed its protocol, and what came in the new one.
    pub(super) fn into_socket(self) -> (TcpStream, Bytes) {
        let (stream, received) = self.connection.into_parts();
        (stream, received.freeze())
    }
}
