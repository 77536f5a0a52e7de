//! The bodies of a request and of its response, watched.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http::header::CONTENT_LENGTH;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::conn::{Conn, ConnectionEnd};
use super::request::InFlight;
use super::stats::count_start;
use super::streams::{Part, WeakStream, parts, weak};
use crate::BoxError;

/// Bytes that give a second of patience back: Apache's `RequestReadTimeout body=20,MinRate=500`.
const BYTES_PER_SECOND: u32 = 500;

/// The handler's read of a request body failed, because the client sent too little for too long. Of
/// a kind that others can tell without knowing this crate.
fn too_slow() -> BoxError {
    Box::new(io::Error::new(io::ErrorKind::TimedOut, "the request's body came too slowly"))
}

pin_project! {
    /// A request's body, which is known to be under way until it has been read or dropped, and for
    /// which its reader waits only so long.
    pub(super) struct Upload {
        body: Incoming,
        conn: Arc<Conn>,
        // Weak, because it may be kept for longer than the response takes.
        stream: Option<WeakStream>,
        ended: bool,
        // Time for which it may still be waited for.
        patience: Duration,
        // Since when it is waited for.
        waits: Option<Instant>,
        #[pin]
        timer: Option<Sleep>,
    }

    impl PinnedDrop for Upload {
        fn drop(this: Pin<&mut Self>) {
            this.end();
        }
    }
}

impl Upload {
    pub(super) fn body(body: Incoming, conn: &Arc<Conn>, in_flight: &InFlight) -> Body {
        if body.is_end_stream() {
            // Takes no box, as the other one does.
            return Body::empty();
        }
        let conn = Arc::clone(conn);
        let stream = in_flight.stream().map(weak);
        let patience = conn.server().config().body_read_timeout;
        let upload = Self { body, conn, stream, ended: false, patience, waits: None, timer: None };
        upload.uploads(true);
        Body::new(upload)
    }

    fn uploads(&self, uploading: bool) {
        match &self.stream {
            None => self.conn.uploads(uploading),
            Some(stream) => {
                stream.upgrade().inspect(|stream| stream.uploads(uploading));
            }
        }
    }

    fn poll_patience(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if this.waits.is_none() {
            let now = Instant::now();
            *this.waits = Some(now);
            let end = now + *this.patience;
            match this.timer.as_mut().as_pin_mut() {
                Some(timer) => timer.reset(end),
                None => this.timer.set(Some(sleep_until(end))),
            }
        }
        this.timer.as_pin_mut().map_or(Poll::Pending, |timer| timer.poll(cx))
    }

    fn arrived(self: Pin<&mut Self>, bytes: usize) {
        let this = self.project();
        let waited = this.waits.take().map(|since| since.elapsed()).unwrap_or_default();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(1) * bytes / BYTES_PER_SECOND;
        let most = this.conn.server().config().body_read_timeout;
        *this.patience = (this.patience.saturating_sub(waited) + earned).min(most);
    }

    fn end(self: Pin<&mut Self>) {
        if !self.ended {
            self.uploads(false);
            *self.project().ended = true;
        }
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match Pin::new(self.as_mut().project().body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.as_mut().poll_patience(cx));
                count_start(&self.conn.server().counters().bodies_timed_out);
                // HTTP/1 cannot go on after a body that nobody reads to its end.
                if !self.conn.is_h2() {
                    self.conn.ends_as(ConnectionEnd::TimedOut);
                }
                self.end();
                return Poll::Ready(Some(Err(too_slow())));
            }
        };
        if let Some(Ok(frame)) = &frame {
            self.as_mut().arrived(frame.data_ref().map_or(0, Bytes::len));
        }
        if frame.is_none() || self.body.is_end_stream() {
            self.end();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body that ends its request when the last of it has been handed over.
pub(super) struct CountedBody {
    pub(super) body: Body,
    pub(super) in_flight: InFlight,
}

/// Bytes of a body still to come: hyper drops it after the last of them, without asking for its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Unknown,
    /// The head says so.
    Stated(u64),
    /// The body itself says so. Then it is asked once, and hyper's own questions are answered from
    /// here: part of what this layer costs is paid back.
    Exact(u64),
}

impl Left {
    #[inline]
    pub(super) fn of(response: &Response<Body>) -> Self {
        match response.body().size_hint().exact() {
            Some(left) => Self::Exact(left),
            None => stated(response).map_or(Self::Unknown, Self::Stated),
        }
    }

    /// After so many of them.
    #[inline]
    pub(super) fn after(self, length: u64) -> Self {
        match self {
            Self::Unknown => Self::Unknown,
            Self::Stated(left) => Self::Stated(left.saturating_sub(length)),
            Self::Exact(left) => Self::Exact(left.saturating_sub(length)),
        }
    }

    /// As one word. A length of more than 63 bits is none.
    #[inline]
    pub(super) fn to_word(self) -> u64 {
        match self {
            Self::Stated(left) if left < UNKNOWN => left,
            Self::Exact(left) if left < UNKNOWN => EXACT | left,
            Self::Unknown | Self::Stated(_) | Self::Exact(_) => UNKNOWN,
        }
    }

    #[inline]
    pub(super) fn of_word(word: u64) -> Self {
        match word {
            UNKNOWN => Self::Unknown,
            word if word & EXACT == 0 => Self::Stated(word),
            word => Self::Exact(word & !EXACT),
        }
    }

    /// Whether nothing is to come.
    #[inline]
    pub(super) fn is_whole(self, body: &Body) -> bool {
        match self {
            Self::Stated(0) | Self::Exact(0) => true,
            Self::Exact(_) => false,
            Self::Unknown | Self::Stated(_) => body.is_end_stream(),
        }
    }
}

/// Marks a length that the body itself says.
const EXACT: u64 = 1 << 63;
/// Longer than any length that is known.
const UNKNOWN: u64 = EXACT - 1;

/// The length that the head states.
fn stated(response: &Response<Body>) -> Option<u64> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl HttpBody for CountedBody {
    type Data = Part;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Part>, axum::Error>>> {
        let Self { body, in_flight } = &mut *self;
        in_flight.stream().inspect(|stream| stream.asks());
        let answer = Pin::new(&mut *body).poll_frame(cx);
        match &answer {
            Poll::Pending => {
                in_flight.waits();
                return Poll::Pending;
            }
            Poll::Ready(None) => in_flight.finish(),
            Poll::Ready(Some(Ok(frame))) => {
                match frame.data_ref() {
                    Some(data) => in_flight.passes(data.len() as u64, body),
                    // Nothing comes after trailers, and nobody asks for it.
                    None => in_flight.finish(),
                }
            }
            // The request ends as cancelled when hyper drops the body.
            Poll::Ready(Some(Err(_))) => {}
        }
        parts(answer, in_flight.stream())
    }

    fn is_end_stream(&self) -> bool {
        // After the last byte trailers may follow.
        !matches!(self.in_flight.left(), Left::Exact(1..)) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.in_flight.left() {
            Left::Exact(left) => SizeHint::with_exact(left),
            Left::Stated(_) | Left::Unknown => self.body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_fits_into_a_word() {
        for left in [0, 1, 1 << 62, UNKNOWN - 1] {
            for left in [Left::Stated(left), Left::Exact(left), Left::Unknown] {
                assert_eq!(Left::of_word(left.to_word()), left);
            }
        }
        for left in [UNKNOWN, EXACT, u64::MAX] {
            assert_eq!(Left::of_word(Left::Stated(left).to_word()), Left::Unknown);
            assert_eq!(Left::of_word(Left::Exact(left).to_word()), Left::Unknown);
        }
    }

    #[test]
    fn no_more_passes_than_is_left() {
        assert_eq!(Left::Exact(5).after(3), Left::Exact(2));
        assert_eq!(Left::Stated(5).after(6), Left::Stated(0));
        assert_eq!(Left::Unknown.after(3), Left::Unknown);
    }
}
