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
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING,
};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service as _;

use super::body::{CountedBody, Upload};
use super::conn::Conn;
use super::label::Label;
use super::report::{Cut, CutKind};
use super::server::Mode;
use super::tally::Way;

const HANDLER_TIMED_OUT: &str = concat!(
    r#"{"type":"about:blank","title":"Service Unavailable","status":503,"#,
    r#""detail":"the request took longer than the server allows"}"#,
);
const UPLOAD_TIMED_OUT: &str = concat!(
    r#"{"type":"about:blank","title":"Request Timeout","status":408,"#,
    r#""detail":"the request's body took longer than the server allows"}"#,
);

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
        let in_flight = InFlight::begin(Arc::clone(&self.conn), &request);
        let connect = request.method() == Method::CONNECT;
        let ambiguous = self.conn.is_ambiguous(self.conn.requests())
            && request.headers().contains_key(TRANSFER_ENCODING);
        let inner = (!ambiguous).then(|| {
            let mut request = request.map(|body| Upload::body(body, &self.conn));
            request.extensions_mut().insert(ConnectInfo(self.peer));
            // A router is always ready, and its clone is one count up.
            self.router.clone().call(request)
        });
        RequestFuture { inner, in_flight: Some(in_flight), connect, timer: None }
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
        // Set once the handler waits, if there is a timeout.
        #[pin]
        timer: Option<Sleep>,
    }
}

impl RequestFuture {
    /// Ends when the handler, which waits, has taken too long.
    fn poll_timeout(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let in_flight = this.in_flight.as_mut().expect("not polled after it has ended");
        let since = in_flight.waits();
        let Some(time) = in_flight.conn.server().config().request_timeout else {
            return Poll::Pending;
        };
        if this.timer.is_none() {
            this.timer.set(Some(sleep_until(since + time)));
        }
        this.timer.as_pin_mut().map_or(Poll::Pending, |timer| timer.poll(cx))
    }

    fn respond(self: Pin<&mut Self>, mut response: Response<Body>) -> Response<CountedBody> {
        let this = self.project();
        let in_flight = this.in_flight.take().expect("not polled after it has ended");
        let upgrades = response.status() == StatusCode::SWITCHING_PROTOCOLS
            || *this.connect && response.status().is_success();
        if upgrades {
            in_flight.conn.upgrade(&in_flight.label);
        } else if in_flight.conn.server().mode() >= Mode::Closing {
            // For the response that is ready at once: hyper would only be told after it.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let (head, body) = response.into_parts();
        let body = CountedBody::new(body, in_flight, head.headers.get(CONTENT_LENGTH));
        Response::from_parts(head, body)
    }
}

impl Future for RequestFuture {
    type Output = Result<Response<CountedBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = self.as_mut().project().inner.as_pin_mut().map(|inner| inner.poll(cx));
        let response = match inner {
            Some(Poll::Ready(Ok(response))) => response,
            Some(Poll::Pending) => {
                ready!(self.as_mut().poll_timeout(cx));
                let mut this = self.as_mut().project();
                let in_flight = this.in_flight.as_mut().expect("not polled after it has ended");
                in_flight.way = Some(Way::TimedOut);
                let uploading = in_flight.conn.is_uploading();
                // The handler goes before its client hears.
                this.inner.set(None);
                timed_out(uploading)
            }
            None => two_lengths(),
        };
        Poll::Ready(Ok(self.respond(response)))
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

/// The time was the client's if its upload has not ended, and the handler's otherwise.
fn timed_out(uploading: bool) -> Response<Body> {
    let (status, name, value, text) = if uploading {
        (StatusCode::REQUEST_TIMEOUT, CONNECTION, "close", UPLOAD_TIMED_OUT)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, RETRY_AFTER, "1", HANDLER_TIMED_OUT)
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(name, HeaderValue::from_static(value));
    response
}

/// One request under way. Dropped unfinished, it counts by why that was.
pub(super) struct InFlight {
    conn: Arc<Conn>,
    label: Label,
    /// When its handler, or its body, first had to wait. One that never does needs no clock.
    since: Option<Instant>,
    /// How it ends if not otherwise.
    way: Option<Way>,
}

impl InFlight {
    fn begin<B>(conn: Arc<Conn>, request: &Request<B>) -> Self {
        conn.request_begins();
        Self { conn, label: Label::of(request), since: None, way: None }
    }

    /// The moment at which it first had to wait.
    pub(super) fn waits(&mut self) -> Instant {
        *self.since.get_or_insert_with(Instant::now)
    }

    /// The response has been handed over whole.
    pub(super) fn finish(mut self) {
        self.way.get_or_insert(Way::Finished);
    }

    fn way(&self) -> Way {
        match self.way {
            Some(way) => way,
            None if std::thread::panicking() => Way::Panicked,
            None if self.conn.server().mode() == Mode::Cutting => Way::Cut,
            None => Way::Cancelled,
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let way = self.way();
        if way == Way::Cut {
            let age = self.since.map(|since| since.elapsed()).unwrap_or_default();
            let name = self.label.to_string();
            let cut = || Cut { kind: CutKind::Request, name, age };
            self.conn.server().account().open.cut_request(cut);
        }
        self.conn.request_ends(way);
    }
}
