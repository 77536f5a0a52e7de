//! A response's body on its way to the client: it may not fall silent, and its node is in use until
//! its end.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::request_body::Stream;
use super::{Upstream, UpstreamError};
use crate::{Outcome, Pick};

pin_project! {
    /// A response's body.
    ///
    /// It streams as the upstream sends it, no faster than the client takes it. The upstream counts
    /// as in use until the end. A body that breaks off or falls silent is an error, never a short
    /// body that looks whole: HTTP/1.0's, which ends with its connection, cannot be told from a whole
    /// one if that is closed in order. Breaking off counts as the node's failure; silence says
    /// nothing of the node, for a stream may have nothing to say; what the client drops, or whose
    /// request it breaks off, counts as cancelled.
    #[must_use]
    pub struct ResponseBody {
        source: Source,
        // An answer to HEAD: what it would be long is not known from its body.
        to_head: bool,
        patience: Duration,
        // The request's body, which may still be under way, and may break the answer off.
        upload: Option<Arc<Stream>>,
        // Runs only while the body is waited for; most come with their head.
        #[pin]
        silence: Option<Sleep>,
        // The node and what its head was worth; `None` once that has been said.
        pick: Option<(Pick<Upstream>, Outcome)>,
    }
}

enum Source {
    Whole(Option<Bytes>),
    Incoming(Incoming),
}

impl ResponseBody {
    pub(super) fn incoming(
        body: Incoming,
        upload: Option<Arc<Stream>>,
        patience: Duration,
    ) -> Self {
        let source = Source::Incoming(body);
        Self { source, to_head: false, patience, upload, silence: None, pick: None }
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        let source = Source::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()));
        let patience = Duration::ZERO;
        Self { source, to_head: false, patience, upload: None, silence: None, pick: None }
    }

    /// A server would announce the empty body of an answer to `HEAD` as a length of 0.
    pub(super) fn answering_head(mut self, to_head: bool) -> Self {
        self.to_head = to_head;
        self
    }

    /// Keeps the pick until the end, which is now if nothing is to come.
    pub(super) fn picked(mut self, pick: Pick<Upstream>, outcome: Outcome) -> Self {
        if self.is_end_stream() {
            pick.end(outcome);
        } else {
            self.pick = Some((pick, outcome));
        }
        self
    }
}

impl Source {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Incoming(body) => body.is_end_stream(),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let mut this = self.project();
        let body = match this.source {
            Source::Whole(bytes) => {
                return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))));
            }
            Source::Incoming(body) => body,
        };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            this.silence.set(None);
            if let Some(Err(_)) = frame {
                let by_client = this.upload.as_ref().is_some_and(|upload| upload.is_faulty());
                end(this.pick, Some(Outcome::Failure).filter(|_| !by_client));
            } else if frame.is_none() || this.source.is_end_stream() {
                // hyper drops a body after its last byte, without asking for its end.
                let worth = this.pick.as_ref().map(|(_, worth)| *worth);
                end(this.pick, worth);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(UpstreamError::ResponseBody)));
        }
        if this.silence.is_none() {
            this.silence.set(Some(sleep(*this.patience)));
        }
        let silence = this.silence.as_pin_mut();
        ready!(silence.map_or(Poll::Pending, |silence| silence.poll(cx)));
        end(this.pick, Some(Outcome::Neutral));
        Poll::Ready(Some(Err(UpstreamError::Timeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Source::Incoming(_) if self.to_head => SizeHint::default(),
            Source::Incoming(body) => body.size_hint(),
        }
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
