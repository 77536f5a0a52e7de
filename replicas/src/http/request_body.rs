//! A request's body on its way to an upstream: nothing, bytes that can be sent again, or a stream
//! that knows how it gets on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::UpstreamError;
use crate::BoxError;

/// A body as one attempt sends it; a clone is the same body for another attempt.
#[derive(Clone)]
pub(super) enum RequestBody {
    Empty,
    /// Sent from its start by each attempt.
    Whole(Option<Bytes>),
    /// Can be sent once; a second attempt may take it over if the first never asked for any of it.
    Stream(Arc<Stream>),
}

/// A client's body, shared between attempts and the watch over its progress. The lock is taken once
/// a frame, by one task at a time.
pub(super) struct Stream(Mutex<State>);

struct State {
    body: Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>,
    moved_at: Instant,
    /// Whether the client's next part is waited for, or else the upstream.
    waits_for_client: bool,
    touched: bool,
}

impl RequestBody {
    pub(super) fn stream<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::Stream(Arc::new(Stream(Mutex::new(State {
            body: Box::pin(Boxed { body }),
            moved_at: Instant::now(),
            waits_for_client: false,
            touched: false,
        }))))
    }

    /// Whether it can be sent from its start again after all of it may have been sent.
    pub(super) fn is_replayable(&self) -> bool {
        !matches!(self, Self::Stream(_))
    }

    /// Whether none of it has been taken.
    pub(super) fn is_untouched(&self) -> bool {
        match self {
            Self::Empty | Self::Whole(_) => true,
            Self::Stream(stream) => !stream.0.lock().touched,
        }
    }
}

impl Stream {
    /// If that is known.
    pub(super) fn length(&self) -> Option<u64> {
        self.0.lock().body.size_hint().exact()
    }

    /// When an upstream that says nothing has had its time, and who is to blame then; later than
    /// `now` if something has moved meanwhile.
    pub(super) fn due(&self, upstream: Duration, client: Duration) -> (Instant, UpstreamError) {
        let state = self.0.lock();
        if state.waits_for_client {
            (state.moved_at + client, UpstreamError::RequestTimeout)
        } else {
            (state.moved_at + upstream, UpstreamError::Timeout)
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => {
                let mut state = stream.0.lock();
                state.touched = true;
                let frame = state.body.as_mut().poll_frame(cx);
                // The client's time begins when it is asked: until then it may not even have to send.
                if frame.is_ready() || !state.waits_for_client {
                    state.moved_at = Instant::now();
                }
                state.waits_for_client = frame.is_pending();
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Whole(None) => true,
            Self::Whole(Some(_)) => false,
            Self::Stream(stream) => stream.0.lock().body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Whole(None) => SizeHint::with_exact(0),
            Self::Whole(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.0.lock().body.size_hint(),
        }
    }
}

pin_project_lite::pin_project! {
    /// A body whose error is a box.
    struct Boxed<B> {
        #[pin]
        body: B,
    }
}

impl<B> Body for Boxed<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = self.project().body.poll_frame(cx);
        frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads a body that says it is short, so that it can be sent again.
///
/// # Errors
/// The body ends early, or its client is silent for longer than `patience`.
pub(super) async fn hold<B>(body: B, patience: Duration) -> Result<RequestBody, UpstreamError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut body = std::pin::pin!(body);
    let mut held = BytesMut::new();
    loop {
        let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx));
        let frame = tokio::time::timeout(patience, frame).await;
        match frame.map_err(|_| UpstreamError::RequestTimeout)? {
            None => {
                let held = Some(held.freeze()).filter(|held| !held.is_empty());
                return Ok(RequestBody::Whole(held));
            }
            Some(Err(error)) => return Err(UpstreamError::RequestBody(error.into())),
            // Trailers of a request that has a length do not exist.
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                // The usual short body is one part, which need not be copied.
                if held.is_empty() && body.is_end_stream() {
                    return Ok(RequestBody::Whole(Some(data)));
                }
                held.extend_from_slice(&data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body_util::StreamBody;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// It may have waited for a node and a connection, and for a `100 Continue`.
    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_client_begins_when_it_is_asked() {
        let frames = futures_util::stream::pending::<Result<Frame<Bytes>, BoxError>>();
        let mut body = RequestBody::stream(StreamBody::new(frames));
        let RequestBody::Stream(stream) = body.clone() else { panic!("a stream") };
        let left = || stream.due(SECOND, SECOND).0.saturating_duration_since(Instant::now());
        let mut cx = Context::from_waker(Waker::noop());
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(left(), Duration::ZERO);
        assert!(Pin::new(&mut body).poll_frame(&mut cx).is_pending());
        assert_eq!(left(), SECOND);
        // Asking once more gives it no more.
        tokio::time::advance(SECOND / 2).await;
        assert!(Pin::new(&mut body).poll_frame(&mut cx).is_pending());
        assert_eq!(left(), SECOND / 2);
    }
}
