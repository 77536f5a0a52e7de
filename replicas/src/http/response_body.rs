//! A response's body on its way to the client: it may not fall silent, and its node is in use until
//! its end.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::body_decoder::BodyDecoder;
use super::download::Download;
use super::exchange::Exchange;
use super::overlap::{self, Overlap};
use super::response_head::ResponseFraming;
use super::{Upstream, UpstreamError};
use crate::{Outcome, Pick};

/// A response's body.
///
/// It streams as the upstream sends it, no faster than the client takes it. The upstream counts
/// as in use until its end has come. A body that breaks off or falls silent is an error, never a short
/// body that looks whole: HTTP/1.0's, which ends with its connection, cannot be told from a whole
/// one if that is closed in order. Breaking off counts as the node's failure; silence says
/// nothing of the node, for a stream may have nothing to say; what the client drops before all has come,
/// or whose request it breaks off, counts as cancelled.
#[must_use]
pub struct ResponseBody {
    source: Source,
    /// An answer to HEAD: what it would be long is not known from its body.
    to_head: bool,
    /// The node and what its head was worth; `None` once that has been said.
    pick: Option<(Pick<Upstream>, Outcome)>,
}

enum Source {
    /// All that is to come.
    Whole(Option<Bytes>),
    /// What comes on its connection.
    Download(Box<Download>),
    /// The same while the request is still under way.
    Overlap(Box<Overlap>),
    /// The connection speaks another protocol from here on.
    Changed(Box<Exchange>),
}

impl ResponseBody {
    /// What follows a head. The usual short body has come with it, and its connection is free.
    pub(super) fn following(
        mut exchange: Exchange,
        framing: ResponseFraming,
        keeps: bool,
        patience: Duration,
    ) -> Self {
        let to_head = exchange.is_to_head();
        let whole = whole(exchange.received(), framing);
        let decoder = match whole {
            Some(_) => BodyDecoder::new(ResponseFraming::None),
            None => BodyDecoder::new(framing),
        };
        // Without a runtime, what is left of the request goes when the body is asked for.
        let overlaps = if exchange.is_sending() { Handle::try_current().ok() } else { None };
        let source = match (whole, overlaps) {
            (Some(whole), None) => {
                exchange.finish(keeps);
                return Self { to_head, ..Self::whole(whole) };
            }
            (Some(whole), Some(runtime)) => {
                overlap::send_rest(&runtime, Download::new(exchange, decoder, keeps, patience));
                return Self { to_head, ..Self::whole(whole) };
            }
            (None, None) => {
                Source::Download(Box::new(Download::new(exchange, decoder, keeps, patience)))
            }
            (None, Some(runtime)) => {
                let download = Download::new(exchange, decoder, keeps, patience);
                Source::Overlap(Box::new(Overlap::start(&runtime, download)))
            }
        };
        Self { source, to_head, pick: None }
    }

    /// Nothing, on a connection that is still of use.
    pub(super) fn changed(exchange: Exchange) -> Self {
        Self { source: Source::Changed(Box::new(exchange)), to_head: false, pick: None }
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        let source = Source::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()));
        Self { source, to_head: false, pick: None }
    }

    /// The socket of a connection that has changed its protocol.
    pub(super) fn into_socket(self) -> Option<(TcpStream, Bytes)> {
        match self.source {
            Source::Changed(exchange) => Some(exchange.into_socket()),
            Source::Whole(_) | Source::Download(_) | Source::Overlap(_) => None,
        }
    }

    /// Keeps the pick until the end, which is now if all has come.
    pub(super) fn picked(mut self, pick: Pick<Upstream>, outcome: Outcome) -> Self {
        match self.source {
            Source::Download(_) | Source::Overlap(_) => self.pick = Some((pick, outcome)),
            Source::Whole(_) | Source::Changed(_) => pick.end(outcome),
        }
        self
    }

    /// The download's end: its connection is free.
    fn finish(&mut self) {
        if let Source::Download(download) = std::mem::replace(&mut self.source, Source::Whole(None))
        {
            download.finish();
        }
        if let Some((pick, worth)) = self.pick.take() {
            pick.end(worth);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let (frame, at_end) = match &mut self.source {
            Source::Whole(bytes) => {
                return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))));
            }
            Source::Changed(_) => return Poll::Ready(None),
            Source::Download(download) => (ready!(download.poll_frame(cx)), download.is_at_end()),
            Source::Overlap(overlap) => (ready!(overlap.poll_frame(cx)), overlap.is_at_end()),
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                let outcome = match &error {
                    error if error.is_client() => None,
                    UpstreamError::Timeout => Some(Outcome::Neutral),
                    _ => Some(Outcome::Failure),
                };
                end(&mut self.pick, outcome);
                self.source = Source::Whole(None);
                return Poll::Ready(Some(Err(error)));
            }
        };
        // A server drops a body after its last byte, without asking for its end.
        if frame.is_none() || at_end {
            self.finish();
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(bytes) => bytes.is_none(),
            Source::Changed(_) => true,
            Source::Download(_) | Source::Overlap(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(_) if self.to_head => SizeHint::default(),
            Source::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Source::Changed(_) => SizeHint::with_exact(0),
            Source::Download(download) => download.size_hint(),
            Source::Overlap(overlap) => overlap.size_hint(),
        }
    }
}

/// A body all of which has come.
fn whole(received: &mut BytesMut, framing: ResponseFraming) -> Option<Bytes> {
    match framing {
        ResponseFraming::None => Some(Bytes::new()),
        ResponseFraming::Length(length) => {
            let length = usize::try_from(length).ok().filter(|length| *length <= received.len())?;
            Some(received.split_to(length).freeze())
        }
        ResponseFraming::Chunked | ResponseFraming::UntilClose => None,
    }
}

/// Without an outcome it counts as cancelled.
fn end(pick: &mut Option<(Pick<Upstream>, Outcome)>, outcome: Option<Outcome>) {
    if let (Some((pick, _)), Some(outcome)) = (pick.take(), outcome) {
        pick.end(outcome);
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("pick", &self.pick).finish_non_exhaustive()
    }
}
