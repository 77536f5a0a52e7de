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
use super::streams::Stream;
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
        let refusal = self.refusal(&request);
        let inner = refusal.is_none().then(|| {
            let mut request = request.map(|body| Upload::body(body, &self.conn));
            request.extensions_mut().insert(ConnectInfo(self.peer));
            // A router is always ready, and its clone is one count up.
            self.router.clone().call(request)
        });
        let stream = Stream::on(&self.conn);
        let in_flight = Some(in_flight);
        RequestFuture { inner, refusal, in_flight, stream, connect, timer: None }
    }
}

impl RequestService {
    fn refusal(&self, request: &Request<Incoming>) -> Option<Refusal> {
        let coded = || request.headers().contains_key(TRANSFER_ENCODING);
        if self.conn.is_ambiguous(self.conn.requests()) && coded() {
            return Some(Refusal::TwoLengths);
        }
        (self.conn.is_h2() && request.method() == Method::CONNECT).then_some(Refusal::Tunnel)
    }
}

/// Why a request is not passed on.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    /// RFC 9112, section 6.1: a message with both lengths may be an attempt at smuggling. hyper reads
    /// it by its coding and drops the length; somebody in front may have read it by the length.
    TwoLengths,
    /// A tunnel inside a stream of HTTP/2 is no connection that could be waited for or cut.
    Tunnel,
}

impl Refusal {
    fn response(self) -> Response<Body> {
        let (status, text) = match self {
            Self::TwoLengths => {
                (StatusCode::BAD_REQUEST, "Content-Length beside Transfer-Encoding\n")
            }
            Self::Tunnel => (StatusCode::NOT_IMPLEMENTED, "no tunnels over HTTP/2\n"),
        };
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        if let Self::TwoLengths = self {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

pin_project! {
    pub(super) struct RequestFuture {
        // `None` for a request that is refused.
        #[pin]
        inner: Option<RouteFuture<Infallible>>,
        refusal: Option<Refusal>,
        // `Some` until the response has come.
        in_flight: Option<InFlight>,
        stream: Option<Stream>,
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
        } else if in_flight.conn.server().mode() >= Mode::Closing && !in_flight.conn.is_h2() {
            // For the response that is ready at once: hyper would only be told after it.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let (head, body) = response.into_parts();
        let length = head.headers.get(CONTENT_LENGTH);
        let body = CountedBody::new(body, in_flight, this.stream.take(), length);
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
            None => self.refusal.unwrap_or(Refusal::TwoLengths).response(),
        };
        Poll::Ready(Ok(self.respond(response)))
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::server::Server;
    use crate::{Drain, DrainConfig};

    /// What is done for one request and its response besides routing.
    fn track(conn: &Arc<Conn>, request: &Request<()>) {
        let in_flight = InFlight::begin(Arc::clone(conn), request);
        let mut future = std::pin::pin!(RequestFuture {
            inner: None,
            refusal: None,
            in_flight: Some(in_flight),
            stream: None,
            connect: false,
            timer: None,
        });
        drop(future.as_mut().respond(Response::new(Body::empty())));
    }

    #[test]
    fn keeping_track_of_a_request_allocates_nothing() {
        let drain = Drain::new(DrainConfig::default());
        let conn = Conn::accepted(&Server::new(&drain));
        let request = Request::builder().uri("/trading/quotes/BTC").body(()).expect("valid");
        let allocated = allocation_counter::measure(|| {
            for _ in 0..100 {
                track(&conn, &request);
            }
        });
        // An empty `Body` is a box of axum's, of a type without size: no memory.
        assert_eq!(allocated.count_total, 0);
        let stats = drain.stats();
        assert_eq!((stats.requests_started_total, stats.requests_finished_total), (100, 100));
    }

    #[test]
    fn zz_measure() {
        let drain = Drain::new(DrainConfig::default());
        let conn = Conn::accepted(&Server::new(&drain));
        let request = Request::builder().uri("/trading/quotes/BTC").body(()).expect("valid");
        let n = 200_000;
        let mut best = [f64::MAX; 6];
        for _ in 0..60 {
            let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            let ns = |a: rustix::time::Timespec, b: rustix::time::Timespec| {
                (b.tv_sec - a.tv_sec) as f64 * 1e9 + (b.tv_nsec - a.tv_nsec) as f64
            };
            for _ in 0..n {
                std::hint::black_box(Response::new(Body::empty()));
            }
            let u = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            for _ in 0..n {
                track(std::hint::black_box(&conn), std::hint::black_box(&request));
            }
            let v = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            for _ in 0..n {
                std::hint::black_box(Label::of(std::hint::black_box(&request)));
            }
            let w = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            for _ in 0..n {
                std::hint::black_box(Arc::clone(std::hint::black_box(&conn)));
            }
            let x = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            for _ in 0..n {
                let mut e = http::Extensions::new();
                e.insert(1u8);
                std::hint::black_box(&mut e);
            }
            let y = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            let addr: SocketAddr = ([127, 0, 0, 1], 80).into();
            for _ in 0..n {
                let mut e = http::Extensions::new();
                e.insert(1u8);
                e.insert(ConnectInfo(addr));
                std::hint::black_box(&mut e);
            }
            let z = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            for (b, d) in
                best.iter_mut().zip([ns(t, u), ns(u, v), ns(v, w), ns(w, x), ns(x, y), ns(y, z)])
            {
                *b = b.min(d / n as f64);
            }
        }
        println!(
            "bare {:.1} track {:.1} label {:.1} arc {:.1} ext {:.1} ext+connect {:.1}; Conn {} RequestFuture {} InFlight {} CountedBody {}",
            best[0],
            best[1],
            best[2],
            best[3],
            best[4],
            best[5],
            size_of::<Conn>(),
            size_of::<RequestFuture>(),
            size_of::<InFlight>(),
            size_of::<CountedBody>()
        );
    }
}
