//! One request: routed, counted from its head to the end of its response.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tower_service::Service as _;

use super::server::{Conn, Mode};
use super::stats::{count_end, count_start};

/// The router as one connection sees it.
pub(super) struct RequestService {
    pub(super) router: Router,
    pub(super) peer: SocketAddr,
    pub(super) conn: Arc<Conn>,
}

impl hyper::service::Service<Request<Incoming>> for RequestService {
    type Response = Response<CountedBody>;
    type Error = Infallible;
    type Future = RequestFuture;

    fn call(&self, request: Request<Incoming>) -> RequestFuture {
        let in_flight = InFlight::begin(Arc::clone(&self.conn));
        let connect = request.method() == Method::CONNECT;
        let ambiguous = self.conn.is_ambiguous(self.conn.requests())
            && request.headers().contains_key(TRANSFER_ENCODING);
        let inner = (!ambiguous).then(|| {
            let mut request = request.map(|body| Upload::body(body, &self.conn));
            request.extensions_mut().insert(ConnectInfo(self.peer));
            // A router is always ready, and its clone is one count up.
            self.router.clone().call(request)
        });
        RequestFuture { inner, in_flight: Some(in_flight), connect }
    }
}

pin_project! {
    pub(super) struct RequestFuture {
        // `None` for a request that is refused.
        #[pin]
        inner: Option<RouteFuture<Infallible>>,
        // `Some` until the response has come.
        in_flight: Option<InFlight>,
        connect: bool,
    }
}

impl Future for RequestFuture {
    type Output = Result<Response<CountedBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match this.inner.as_pin_mut() {
            Some(inner) => {
                let Ok(response) = ready!(inner.poll(cx));
                response
            }
            None => two_lengths(),
        };
        let in_flight = this.in_flight.take().expect("not polled after it has ended");
        let upgrades = response.status() == StatusCode::SWITCHING_PROTOCOLS
            || *this.connect && response.status().is_success();
        if upgrades {
            in_flight.conn.upgrade();
        } else if in_flight.conn.server().mode() >= Mode::Closing {
            // For the response that is ready at once: hyper would only be told after it.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let (head, body) = response.into_parts();
        let body = CountedBody::new(body, in_flight, head.headers.get(CONTENT_LENGTH));
        Poll::Ready(Ok(Response::from_parts(head, body)))
    }
}

/// RFC 9112, section 6.1: a message with both lengths may be an attempt at smuggling. hyper reads it
/// by its coding and drops the length; somebody in front may have read it by the length.
fn two_lengths() -> Response<Body> {
    let mut response = Response::new(Body::from("Content-Length beside Transfer-Encoding\n"));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A request's body, which is known to be under way until it has been read or dropped.
struct Upload {
    body: Incoming,
    /// `None` once its end has been read.
    conn: Option<Arc<Conn>>,
}

impl Upload {
    fn body(body: Incoming, conn: &Arc<Conn>) -> Body {
        if body.is_end_stream() {
            // Takes no box, as the other one does.
            return Body::empty();
        }
        conn.uploads(true);
        Body::new(Self { body, conn: Some(Arc::clone(conn)) })
    }

    fn end(&mut self) {
        if let Some(conn) = self.conn.take() {
            conn.uploads(false);
        }
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.end();
    }
}

/// A response body that ends its request when the last of it has been handed over.
pub(super) struct CountedBody {
    body: Body,
    /// `None` once the request has ended.
    in_flight: Option<InFlight>,
    /// Bytes still to come, if that is known: hyper drops a body after the last of them, without
    /// asking for its end.
    left: Option<u64>,
}

impl CountedBody {
    fn new(body: Body, in_flight: InFlight, length: Option<&HeaderValue>) -> Self {
        let stated = || length.and_then(|length| length.to_str().ok()?.parse().ok());
        let left = body.size_hint().exact().or_else(stated);
        let mut counted = Self { body, in_flight: Some(in_flight), left };
        counted.finish_if_whole();
        counted
    }

    fn finish_if_whole(&mut self) {
        if self.left == Some(0) || self.body.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.finish();
        }
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.finish(),
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.left = self.left.map(|left| left.saturating_sub(length));
                self.finish_if_whole();
            }
            // The request ends as cancelled when hyper drops the body.
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// One request under way. Dropped unfinished, it counts by why that was.
struct InFlight {
    conn: Arc<Conn>,
    finished: bool,
}

impl InFlight {
    fn begin(conn: Arc<Conn>) -> Self {
        count_start(&conn.server().counters().requests_started);
        conn.request_begins();
        Self { conn, finished: false }
    }

    fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.conn.request_ends();
        let counters = self.conn.server().counters();
        count_end(if self.finished {
            &counters.requests_finished
        } else if std::thread::panicking() {
            &counters.requests_panicked
        } else if self.conn.server().mode() == Mode::Cutting {
            &counters.requests_cut
        } else {
            &counters.requests_cancelled
        });
    }
}
