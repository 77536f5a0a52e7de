//! The streams of an HTTP/2 connection: how many there are, and which of them wait for the client.

#[cfg(not(feature = "http2"))]
pub(super) use self::none::{Part, Stream, StreamRef, WeakStream, parts, weak};
#[cfg(feature = "http2")]
pub(super) use self::some::{Part, Preface, Stream, StreamRef, Streams, WeakStream, parts, weak};

#[cfg(not(feature = "http2"))]
mod none {
    use std::sync::Arc;

    use bytes::Bytes;
    use http::Request;

    use crate::drain::conn::Conn;
    use crate::drain::label::Asked;

    /// There is none in HTTP/1, and what may hold one takes no space.
    #[derive(Clone)]
    pub(in crate::drain) enum Stream {}

    pub(in crate::drain) type StreamRef = Stream;
    pub(in crate::drain) type WeakStream = Stream;
    pub(in crate::drain) type Part = Bytes;

    pub(in crate::drain) fn weak(stream: &Stream) -> Stream {
        match *stream {}
    }

    /// They are what they are: to move them would cost as much as all else that is done for them.
    #[inline]
    pub(in crate::drain) fn parts<A>(answer: A, _: Option<&Stream>) -> A {
        answer
    }

    impl Stream {
        #[inline]
        pub(in crate::drain) fn on<B>(_: &Arc<Conn>, _: &Request<B>) -> Option<Self> {
            None
        }

        pub(in crate::drain) fn upgrade(&self) -> Option<Self> {
            match *self {}
        }

        pub(in crate::drain) fn asked(&self) -> &Asked {
            match *self {}
        }

        pub(in crate::drain) fn asks(&self) {
            match *self {}
        }

        pub(in crate::drain) fn uploads(&self, _: bool) {
            match *self {}
        }

        pub(in crate::drain) fn is_uploading(&self) -> bool {
            match *self {}
        }
    }
}

#[cfg(feature = "http2")]
mod some {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Weak};
    use std::task::Poll;
    use std::time::Duration;

    use bytes::{Buf, Bytes};
    use http::Request;
    use http_body::Frame;
    use parking_lot::Mutex;
    use tokio::time::Instant;

    use crate::drain::conn::Conn;
    use crate::drain::label::Asked;

    /// Streams of one connection. Its requests take this lock twice, its responses three times for each
    /// frame of their bodies; nobody else does.
    #[derive(Debug, Default)]
    pub(in crate::drain) struct Streams(Mutex<Live>);

    #[derive(Debug, Default)]
    struct Live {
        next: u64,
        /// Since when a frame of the response has been handed over, and nothing more of it taken and no
        /// further one asked for.
        handed: BTreeMap<u64, Option<Instant>>,
    }

    impl Streams {
        pub(in crate::drain) fn is_empty(&self) -> bool {
            self.0.lock().handed.is_empty()
        }

        /// Whether a frame of some stream has been left lying for this long, while those of others may
        /// have been taken.
        pub(in crate::drain) fn has_stalled_for(&self, time: Duration) -> bool {
            let now = Instant::now();
            let live = self.0.lock();
            live.handed.values().flatten().any(|since| now.duration_since(*since) >= time)
        }
    }

    /// One stream, until its response is written or it is given up: what hyper has been handed holds it
    /// too, however long the client's window keeps it back.
    pub(in crate::drain) struct Stream {
        conn: Arc<Conn>,
        number: u64,
        asked: Asked,
        uploading: AtomicBool,
    }

    pub(in crate::drain) type StreamRef = Arc<Stream>;
    pub(in crate::drain) type WeakStream = Weak<Stream>;

    pub(in crate::drain) fn weak(stream: &StreamRef) -> WeakStream {
        Arc::downgrade(stream)
    }

    /// Bytes of a response that hyper has been handed. HTTP/2 may hold them for long: hyper drops the body
    /// with the last of them, and what the client's window keeps back is known by these alone.
    pub(in crate::drain) struct Part {
        bytes: Bytes,
        stream: Option<StreamRef>,
    }

    /// What a body has given, as hyper is handed it.
    #[inline]
    pub(in crate::drain) fn parts<E>(
        answer: Poll<Option<Result<Frame<Bytes>, E>>>,
        stream: Option<&StreamRef>,
    ) -> Poll<Option<Result<Frame<Part>, E>>> {
        stream.inspect(|stream| stream.is_handed());
        let frame = match answer {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        match frame.into_data() {
            Ok(bytes) => {
                let stream = stream.map(Arc::clone);
                Poll::Ready(Some(Ok(Frame::data(Part { bytes, stream }))))
            }
            Err(frame) => trailers(frame),
        }
    }

    #[cold]
    #[inline(never)]
    fn trailers<E>(frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Part>, E>>> {
        Poll::Ready(Some(Ok(frame.map_data(|bytes| Part { bytes, stream: None }))))
    }

    impl Buf for Part {
        fn remaining(&self) -> usize {
            self.bytes.len()
        }

        fn chunk(&self) -> &[u8] {
            &self.bytes
        }

        fn advance(&mut self, count: usize) {
            self.bytes.advance(count);
            if let Some(stream) = &self.stream
                && count > 0
            {
                stream.is_taken();
            }
        }
    }

    impl Stream {
        /// `None` on a connection that speaks HTTP/1.
        #[inline]
        pub(in crate::drain) fn on<B>(conn: &Arc<Conn>, request: &Request<B>) -> Option<StreamRef> {
            conn.is_h2().then(|| {
                let asked = Asked::default();
                asked.begin(request);
                let mut live = conn.streams().0.lock();
                let number = live.next;
                live.next += 1;
                live.handed.insert(number, None);
                drop(live);
                let uploading = AtomicBool::new(false);
                Arc::new(Self { conn: Arc::clone(conn), number, asked, uploading })
            })
        }

        pub(in crate::drain) fn asked(&self) -> &Asked {
            &self.asked
        }

        /// The response's next frame is asked for: the client has room.
        pub(in crate::drain) fn asks(&self) {
            self.set(None);
        }

        /// A frame has been handed over.
        fn is_handed(&self) {
            self.set(Some(Instant::now()));
        }

        /// Some of that frame has been written. Changes nothing once a further one has been asked for: then
        /// it is the handler that is waited for.
        fn is_taken(&self) {
            let mut live = self.conn.streams().0.lock();
            if let Some(Some(since)) = live.handed.get_mut(&self.number) {
                *since = Instant::now();
            }
        }

        /// Whether the request's body has not been read to its end.
        pub(in crate::drain) fn uploads(&self, uploading: bool) {
            self.uploading.store(uploading, Ordering::Relaxed);
        }

        pub(in crate::drain) fn is_uploading(&self) -> bool {
            self.uploading.load(Ordering::Relaxed)
        }

        fn set(&self, handed: Option<Instant>) {
            self.conn.streams().0.lock().handed.insert(self.number, handed);
        }
    }

    impl Drop for Stream {
        fn drop(&mut self) {
            self.conn.streams().0.lock().handed.remove(&self.number);
        }
    }

    /// Looks whether a connection begins as one of HTTP/2 does.
    #[derive(Debug)]
    pub(in crate::drain) struct Preface {
        /// What is still to come; empty once something else has.
        rest: &'static [u8],
    }

    impl Default for Preface {
        fn default() -> Self {
            Self { rest: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" }
        }
    }

    impl Preface {
        /// True once, when the last byte of it has come.
        pub(in crate::drain) fn ends_in(&mut self, bytes: &[u8]) -> bool {
            if self.rest.is_empty() {
                return false;
            }
            let here = bytes.len().min(self.rest.len());
            let (expected, rest) = self.rest.split_at(here);
            let matches = expected == &bytes[..here];
            self.rest = if matches { rest } else { &[] };
            matches && rest.is_empty()
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_preface_is_seen_whole_or_in_parts_and_only_at_the_begin() {
            let text: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
            let seen = |parts: &[&[u8]]| {
                let mut preface = Preface::default();
                parts.iter().map(|part| preface.ends_in(part)).collect::<Vec<_>>()
            };
            assert_eq!(seen(&[text]), [true]);
            let parts = [&text[..3], &text[3..20], &text[20..], b"more"];
            assert_eq!(seen(&parts), [false, false, true, false]);
            assert_eq!(seen(&[b"PRI * HTTP/1.1\r\n", text]), [false, false]);
            assert_eq!(seen(&[b"GET / HTTP/1.1\r\n", text]), [false, false]);
        }
    }
}
