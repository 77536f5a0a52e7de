//! A response's body that was not there with its head.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, timeout_at};

use super::UpstreamError;
use super::body_decoder::{BodyDecoder, Part};
use super::exchange::Exchange;
use super::upload::UploadError;

/// Also sends what is left of the request, if there is some.
pub(super) struct Download {
    exchange: Exchange,
    decoder: BodyDecoder,
    /// Whether the connection may be kept afterwards.
    keeps: bool,
    /// How long the other side may be silent, and until when it may now if it is.
    patience: Duration,
    due: Option<Instant>,
    /// How it has broken off, until that is told.
    broken: Option<UpstreamError>,
}

impl Download {
    pub(super) fn new(
        exchange: Exchange,
        decoder: BodyDecoder,
        keeps: bool,
        patience: Duration,
    ) -> Self {
        Self { exchange, decoder, keeps, patience, due: None, broken: None }
    }

    /// The next part, `None` at the end.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, UpstreamError>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Err(error));
        }
        let frame = ready!(self.poll_next(cx));
        if let Err(error) = frame {
            // The server that writes it drops what it has not written, be it the head, once it knows.
            self.broken = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(frame)
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, UpstreamError>> {
        if let Err(UploadError::Body(error)) = self.exchange.poll_send(cx) {
            return Poll::Ready(Err(UpstreamError::RequestBody(error)));
        }
        if let Poll::Ready(frame) = self.poll_part(cx) {
            self.due = None;
            return Poll::Ready(frame.map_err(UpstreamError::ResponseBody));
        }
        let due = *self.due.get_or_insert_with(|| Instant::now() + self.patience);
        ready!(self.exchange.poll_due(cx, due));
        Poll::Ready(Err(UpstreamError::Timeout))
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Frame<Bytes>>>> {
        loop {
            match self.decoder.next(self.exchange.received()) {
                Ok(Part::Data(data)) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Ok(Part::Trailers(fields)) => {
                    return Poll::Ready(Ok(Some(Frame::trailers(fields))));
                }
                Ok(Part::End) => return Poll::Ready(Ok(None)),
                Ok(Part::More) => {}
                Err(rule) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, rule)));
                }
            }
            if ready!(self.exchange.poll_read(cx))? == 0 {
                let whole = self.decoder.may_close() && self.exchange.ends_in_order();
                let end = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Poll::Ready(if whole { Ok(None) } else { Err(end) });
            }
        }
    }

    /// Sends what is left of the request while nobody asks for more of the answer.
    pub(super) async fn send_meanwhile(&mut self) {
        if let Err(UploadError::Body(error)) = poll_fn(|cx| self.exchange.poll_sent(cx)).await {
            self.broken = Some(UpstreamError::RequestBody(error));
        }
    }

    /// The same after the answer, as long as anything moves.
    pub(super) async fn send_rest(&mut self) -> Result<(), UpstreamError> {
        let mut due = Instant::now() + self.patience;
        loop {
            match timeout_at(due, poll_fn(|cx| self.exchange.poll_sent(cx))).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(UploadError::Body(error))) => return Err(UpstreamError::RequestBody(error)),
                Ok(Err(UploadError::Write(error))) => return Err(UpstreamError::Closed(error)),
                Err(_elapsed) => {
                    let Some(stream) = self.exchange.stream() else {
                        return Err(UpstreamError::Timeout);
                    };
                    let (next, error) = stream.due(self.patience, self.patience);
                    if next <= Instant::now() {
                        return Err(error);
                    }
                    due = next;
                }
            }
        }
    }

    /// Whether nothing is to come, as far as is known.
    pub(super) fn is_at_end(&self) -> bool {
        self.decoder.is_at_end()
    }

    /// At its end: gives the connection back.
    pub(super) fn finish(self) {
        self.exchange.finish(self.keeps);
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self.decoder {
            BodyDecoder::Length(left) => SizeHint::with_exact(left),
            BodyDecoder::Chunked(_) | BodyDecoder::UntilClose => SizeHint::default(),
        }
    }
}
