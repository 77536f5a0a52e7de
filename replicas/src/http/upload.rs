//! A request on its way out: its head, then its body as it comes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;

use super::connection::Connection;
use super::request_body::{RequestBody, Stream};
use super::request_head::RequestFraming;
use crate::BoxError;

/// Parts that are written before others have their turn, be it the answer.
const PARTS_AT_ONCE: usize = 16;

const CHUNK_END: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const LAST_CHUNK_END: &[u8] = b"\r\n0\r\n\r\n";

/// What of a request has still to be written.
pub(super) struct Upload {
    body: RequestBody,
    framing: RequestFraming,
    /// The head, or the line before a chunk.
    lead: Vec<u8>,
    written_of_lead: usize,
    part: Bytes,
    tail: &'static [u8],
    /// Whether a byte has been written.
    begun: bool,
    /// Whether nothing follows these parts.
    last: bool,
}

pub(super) enum UploadError {
    /// The request's own body.
    Body(BoxError),
    Write(io::Error),
}

impl Upload {
    pub(super) fn new(head: Vec<u8>, body: RequestBody, framing: RequestFraming) -> Self {
        let last = framing == RequestFraming::None;
        let (part, tail) = (Bytes::new(), &b""[..]);
        Self { body, framing, lead: head, written_of_lead: 0, part, tail, begun: false, last }
    }

    /// Whether a byte has been written.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// The body, if it is one that a client sends meanwhile.
    pub(super) fn stream(&self) -> Option<&Stream> {
        match &self.body {
            RequestBody::Stream(stream) => Some(stream),
            RequestBody::Empty | RequestBody::Whole(_) => None,
        }
    }

    /// Writes all there is; ready once that is the whole request.
    pub(super) fn poll_write(
        &mut self,
        connection: &mut Connection,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), UploadError>> {
        if !self.begun && !self.last && self.part.is_empty() {
            // The first part goes with the head, if it is there.
            if let Poll::Ready(Err(error)) = self.poll_part(cx) {
                return Poll::Ready(Err(UploadError::Body(error)));
            }
        }
        for _ in 0..PARTS_AT_ONCE {
            while self.has_bytes() {
                let parts = [
                    IoSlice::new(&self.lead[self.written_of_lead..]),
                    IoSlice::new(&self.part),
                    IoSlice::new(self.tail),
                ];
                let count = if self.part.is_empty() && self.tail.is_empty() { 1 } else { 3 };
                let written = ready!(connection.poll_write(cx, &parts[..count]));
                match written {
                    Ok(0) => {
                        let error = io::ErrorKind::WriteZero.into();
                        return Poll::Ready(Err(UploadError::Write(error)));
                    }
                    Ok(written) => self.wrote(written),
                    Err(error) => return Poll::Ready(Err(UploadError::Write(error))),
                }
            }
            if self.last {
                return Poll::Ready(Ok(()));
            }
            if let Err(error) = ready!(self.poll_part(cx)) {
                return Poll::Ready(Err(UploadError::Body(error)));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn has_bytes(&self) -> bool {
        self.written_of_lead < self.lead.len() || !self.part.is_empty() || !self.tail.is_empty()
    }

    fn wrote(&mut self, mut bytes: usize) {
        self.begun = true;
        let of_lead = bytes.min(self.lead.len() - self.written_of_lead);
        self.written_of_lead += of_lead;
        bytes -= of_lead;
        let of_part = bytes.min(self.part.len());
        let _written = self.part.split_to(of_part);
        self.tail = &self.tail[bytes - of_part..];
        if self.written_of_lead == self.lead.len() && self.part.is_empty() {
            self.lead.clear();
            self.written_of_lead = 0;
        }
    }

    /// Takes the body's next part, or its end.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(self.end());
            };
            // There are no trailers of requests: what announces them was taken off.
            match frame?.into_data() {
                Ok(data) if !data.is_empty() => return Poll::Ready(self.take(data)),
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn take(&mut self, data: Bytes) -> Result<(), BoxError> {
        match &mut self.framing {
            RequestFraming::None => return Err("a request without a body has one".into()),
            RequestFraming::Length(left) => {
                let after = left.checked_sub(data.len() as u64);
                *left = after.ok_or("the request's body is longer than it was said to be")?;
                self.last = *left == 0;
            }
            RequestFraming::Chunked => {
                self.lead.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                self.last = self.body.is_end_stream();
                self.tail = if self.last { LAST_CHUNK_END } else { CHUNK_END };
            }
        }
        self.part = data;
        Ok(())
    }

    fn end(&mut self) -> Result<(), BoxError> {
        self.last = true;
        match self.framing {
            RequestFraming::Length(1..) => {
                Err("the request's body is shorter than it was said to be".into())
            }
            RequestFraming::Chunked => {
                self.tail = LAST_CHUNK;
                Ok(())
            }
            RequestFraming::None | RequestFraming::Length(0) => Ok(()),
        }
    }
}
