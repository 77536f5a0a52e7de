//! Bodies on their way: the request's tells that it moves, the response's may not fall silent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body as AxumBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

use super::error::OriginError;

/// When the last part of a request's body went to the origin.
///
/// An upload may take as long as it likes; only from its last part on is the origin the one that
/// keeps silent.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn moved(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Ends when nothing has moved for `patience`.
    pub(super) async fn stalled(&self, patience: Duration) {
        loop {
            let due = *self.0.lock() + patience;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// A request's body that tells when it moves.
#[derive(Debug)]
pub(super) struct RequestBody {
    body: AxumBody,
    progress: Progress,
}

impl RequestBody {
    pub(super) fn new(body: AxumBody, progress: Progress) -> Self {
        Self { body, progress }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.progress.moved();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pin_project! {
    /// The origin's body, as an error once it is silent for too long.
    #[derive(Debug)]
    pub(super) struct OriginBody {
        body: Incoming,
        patience: Duration,
        // Runs only while the body is waited for; most come with their head.
        #[pin]
        silence: Option<Sleep>,
    }
}

impl OriginBody {
    pub(super) fn new(body: Incoming, patience: Duration) -> Self {
        Self { body, patience, silence: None }
    }
}

impl Body for OriginBody {
    type Data = Bytes;
    type Error = OriginError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OriginError>>> {
        let mut this = self.project();
        if let Poll::Ready(frame) = Pin::new(this.body).poll_frame(cx) {
            this.silence.set(None);
            return Poll::Ready(frame.map(|frame| frame.map_err(OriginError::ResponseBody)));
        }
        if this.silence.is_none() {
            this.silence.set(Some(sleep(*this.patience)));
        }
        let silence = this.silence.as_pin_mut();
        ready!(silence.map_or(Poll::Pending, |silence| silence.poll(cx)));
        Poll::Ready(Some(Err(OriginError::Timeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body whose length nobody can tell: axum would announce the empty body of an answer to `HEAD`
/// as a length of 0.
#[derive(Debug)]
pub(super) struct LengthUnknown(pub(super) AxumBody);

impl Body for LengthUnknown {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}
