//! The body of a response that passed the cache.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::BoxError;
use crate::http::engine::multipart;
use crate::http::growing::Reader;
use crate::http::respond::slice;

pin_project! {
    /// The body of a response that passed an [`HttpCacheLayer`](crate::http::HttpCacheLayer): bytes
    /// from the store (not copied), ranges of them, the origin's body while it is being stored,
    /// or the inner body as it is.
    ///
    /// # Cancellation
    /// Dropping it stops an inner body that is passed through. A body that is being stored goes
    /// on without it.
    ///
    /// # Errors
    /// The inner body's error as it is, or a [`BodyError`](crate::BodyError) for a body that is
    /// read while it is being stored.
    pub struct Body<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Inner { #[pin] body: B },
        Stored { bytes: Bytes },
        Ranges { ranges: Box<Multipart> },
        Live { reader: Reader },
    }
}

impl<B> Body<B> {
    /// The inner body as it is.
    pub(crate) fn inner(body: B) -> Self {
        Self { kind: Kind::Inner { body } }
    }

    /// Bytes from the store, all or one range of them.
    pub(crate) fn stored(bytes: Bytes) -> Self {
        Self { kind: Kind::Stored { bytes } }
    }

    pub(crate) fn empty() -> Self {
        Self::stored(Bytes::new())
    }

    /// Several ranges of a stored body.
    pub(crate) fn ranges(ranges: Multipart) -> Self {
        Self { kind: Kind::Ranges { ranges: Box::new(ranges) } }
    }

    /// A body that is being stored.
    pub(crate) fn live(reader: Reader) -> Self {
        Self { kind: Kind::Live { reader } }
    }
}

impl<B> http_body::Body for Body<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProj::Inner { body } => {
                body.poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            KindProj::Stored { bytes } => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            KindProj::Ranges { ranges } => {
                Poll::Ready(ranges.next().map(|bytes| Ok(Frame::data(bytes))))
            }
            KindProj::Live { reader } => reader.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Stored { bytes } => bytes.is_empty(),
            Kind::Ranges { ranges } => ranges.left == 0,
            Kind::Live { reader } => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Stored { bytes } => SizeHint::with_exact(bytes.len() as u64),
            Kind::Ranges { ranges } => SizeHint::with_exact(ranges.left),
            Kind::Live { reader } => reader.size_hint(),
        }
    }
}

impl<B> Default for Body<B> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<B> fmt::Debug for Body<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Inner { .. } => "inner",
            Kind::Stored { .. } => "stored",
            Kind::Ranges { .. } => "ranges",
            Kind::Live { .. } => "live",
        };
        f.debug_struct("Body").field("kind", &kind).finish_non_exhaustive()
    }
}

/// Several ranges of a stored body, piece by piece: the body's bytes are not copied.
pub(crate) struct Multipart {
    pieces: std::vec::IntoIter<Bytes>,
    left: u64,
}

impl Multipart {
    /// Cuts the ranges that a plan names from a body.
    pub(crate) fn new(body: &Bytes, plan: multipart::Multipart) -> Self {
        let mut pieces = Vec::with_capacity(plan.parts.len() * 2 + 1);
        for (head, range) in plan.parts {
            pieces.push(head);
            pieces.push(slice(body, range.start, range.end));
        }
        pieces.push(plan.end);
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces: pieces.into_iter(), left }
    }

    fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.find(|piece| !piece.is_empty())?;
        self.left -= piece.len() as u64;
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body::Body as _;
    use http_body_util::{BodyExt, Full};

    use super::*;

    type TestBody = Body<Full<Bytes>>;

    async fn text(body: TestBody) -> String {
        let length = body.size_hint().exact();
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(length, Some(bytes.len() as u64), "the hint is exact");
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn stored_bytes_are_given_as_they_are() {
        let bytes = Bytes::from_static(b"moon");
        let mut body = TestBody::stored(bytes.clone());
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(frame.as_ptr(), bytes.as_ptr(), "not copied");
        assert!(body.is_end_stream());
        assert!(TestBody::empty().is_end_stream());
        assert_eq!(text(TestBody::inner(Full::from("sun"))).await, "sun");
    }

    #[tokio::test]
    async fn several_ranges_are_given_with_what_stands_between_them() {
        let body = Bytes::from_static(b"0123456789");
        let plan = multipart::Multipart {
            parts: vec![(Bytes::from_static(b"<"), 0..2), (Bytes::from_static(b"|"), 8..20)],
            end: Bytes::from_static(b">"),
            len: 7,
        };
        assert_eq!(text(TestBody::ranges(Multipart::new(&body, plan))).await, "<01|89>");
    }

    #[test]
    fn a_body_may_be_sent_between_threads() {
        fn check<T: Send + 'static>() {}
        check::<Body<http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>>>();
    }
}
