//! One request: passed on, counted from its head to the end of its response.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

use super::application::{Answer, Application};
use super::body::{CountedBody, Left, Upload};
use super::conn::Conn;
use super::label::Asked;
use super::report::{Cut, CutKind};
use super::server::Mode;
use super::streams::{Stream, StreamRef};
use super::tally::Way;
use crate::problem::{refusal, unavailable};

/// What a client is told whose request has taken too long: the next one may be faster.
const RETRY: Duration = Duration::from_secs(1);

/// The application as one connection sees it.
pub(super) struct RequestService<A> {
    pub(super) application: A,
    pub(super) peer: SocketAddr,
    pub(super) conn: Arc<Conn>,
}

impl<A: Application> hyper::service::Service<Request<Incoming>> for RequestService<A> {
    type Response = Response<CountedBody>;
    type Error = Infallible;
    type Future = RequestFuture<Answer<A>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = InFlight::begin(Arc::clone(&self.conn), &request);
        let asks = Asks::of(request.method());
        if let Some(refusal) = self.refusal(&request) {
            return RequestFuture::refused(refusal, in_flight, asks);
        }
        let mut request = request.map(|body| Upload::body(body, &self.conn, &in_flight));
        request.extensions_mut().insert(ConnectInfo(self.peer));
        let answer = if self.conn.is_h2() {
            Answer::later(request, self.application.clone())
        } else {
            Answer::to(request, &self.application)
        };
        RequestFuture::passed_on(answer, in_flight, asks)
    }
}

impl<A> RequestService<A> {
    fn refusal(&self, request: &Request<Incoming>) -> Option<Refusal> {
        let coded = || request.headers().contains_key(TRANSFER_ENCODING);
        if self.conn.is_ambiguous(self.conn.requests()) && coded() {
            return Some(Refusal::TwoLengths);
        }
        (self.conn.is_h2() && request.method() == Method::CONNECT).then_some(Refusal::Tunnel)
    }
}

/// What a request's method says of its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Usual,
    /// For the head alone.
    Head,
    /// For a tunnel.
    Connect,
}

impl Asks {
    #[inline]
    fn of(method: &Method) -> Self {
        match *method {
            Method::HEAD => Self::Head,
            Method::CONNECT => Self::Connect,
            _ => Self::Usual,
        }
    }

    /// Whether a response ends with its head (RFC 9112, section 6.3).
    #[inline]
    fn has_no_body(self, status: StatusCode) -> bool {
        let never = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let tunnel = self == Self::Connect && status.is_success();
        never || tunnel || self == Self::Head || status.is_informational()
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
    pub(super) struct RequestFuture<F> {
        // `None` for a request that is refused.
        #[pin]
        inner: Option<F>,
        refusal: Option<Refusal>,
        // `Some` until the response has come.
        in_flight: Option<InFlight>,
        asks: Asks,
        // Set once the handler waits, if there is a timeout. Boxed, for those without one.
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<F> RequestFuture<F> {
    #[inline]
    fn passed_on(inner: F, in_flight: InFlight, asks: Asks) -> Self {
        let in_flight = Some(in_flight);
        Self { inner: Some(inner), refusal: None, in_flight, asks, timer: None }
    }

    fn refused(refusal: Refusal, in_flight: InFlight, asks: Asks) -> Self {
        let (refusal, in_flight) = (Some(refusal), Some(in_flight));
        Self { inner: None, refusal, in_flight, asks, timer: None }
    }

    /// What is answered for the handler: at once if it was not asked, else once it has taken too long.
    #[inline(never)]
    fn poll_instead(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<CountedBody>, Infallible>> {
        let mut this = self.project();
        let (conn, asked) = this.in_flight.as_ref().and_then(InFlight::parts).expect(NOT_AGAIN);
        let mut response = match this.refusal.take() {
            Some(refusal) => refusal.response(),
            None => {
                ready!(poll_timeout(conn, asked, this.timer, cx));
                asked.times_out();
                let in_flight = this.in_flight.as_ref().expect(NOT_AGAIN);
                let (uploading, h2) = (in_flight.is_uploading(), conn.is_h2());
                // The handler goes before its client hears.
                this.inner.set(None);
                timed_out(uploading, h2)
            }
        };
        let mut in_flight = this.in_flight.take().expect(NOT_AGAIN);
        settle(&mut response, &mut in_flight, *this.asks);
        Poll::Ready(Ok(response.map(|body| CountedBody { body, in_flight })))
    }
}

const NOT_AGAIN: &str = "not polled after it has ended";

/// The handler waits: ends once it has done so for too long.
fn poll_timeout(
    conn: &Conn,
    asked: &Asked,
    timer: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let since = asked.waits(conn);
    let Some(time) = conn.server().config().request_timeout else {
        return Poll::Pending;
    };
    timer.get_or_insert_with(|| Box::pin(sleep_until(since + time))).as_mut().poll(cx)
}

/// What the response means for its connection and its request.
#[expect(clippy::inline_always, reason = "a call costs a part of what all of this may")]
#[inline(always)]
fn settle(response: &mut Response<Body>, in_flight: &mut InFlight, asks: Asks) {
    let (conn, asked) = in_flight.parts().expect(NOT_AGAIN);
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS || asks == Asks::Connect && status.is_success() {
        conn.upgrade();
    } else if conn.server().mode() >= Mode::Closing && !conn.is_h2() {
        // For the response that is ready at once: hyper would only be told after it.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if asks.has_no_body(status) {
        strip_body(response, asks, conn.is_h2());
        in_flight.finish();
        return;
    }
    let left = Left::of(response);
    asked.set_left(left);
    in_flight.finish_if_whole(response.body(), left);
}

/// Takes off a body that may not be sent, and what may not be said of its length.
#[cold]
fn strip_body(response: &mut Response<Body>, asks: Asks, h2: bool) {
    let status = response.status();
    if status == StatusCode::NO_CONTENT || status.is_informational() || asks == Asks::Connect {
        // RFC 9110, sections 8.6 and 9.3.6. Clients, and hyper itself for a tunnel, break off.
        response.headers_mut().remove(CONTENT_LENGTH);
        response.headers_mut().remove(TRANSFER_ENCODING);
    } else if !h2 {
        // hyper says how long it would be, and never asks for it. On HTTP/2 it sends it all the same.
        return;
    } else if asks == Asks::Head
        && let Some(length) = response.body().size_hint().exact().filter(|&length| length > 0)
    {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    *response.body_mut() = Body::empty();
}

impl<F: Future<Output = Result<Response<Body>, Infallible>>> Future for RequestFuture<F> {
    type Output = Result<Response<CountedBody>, Infallible>;

    // Not into its caller, and the response is looked at where the handler's future has put it: so it
    // is moved once, to where the caller wants it. Each move costs some nanoseconds.
    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        if let Some(inner) = this.inner.as_pin_mut() {
            let mut answer = inner.poll(cx);
            if let Poll::Ready(Ok(response)) = &mut answer {
                let mut in_flight = this.in_flight.take().expect(NOT_AGAIN);
                settle(response, &mut in_flight, *this.asks);
                let Poll::Ready(Ok(response)) = answer else { unreachable!("it is ready") };
                let counted = |body| CountedBody { body, in_flight };
                return Poll::Ready(Ok(response.map(counted)));
            }
        }
        self.poll_instead(cx)
    }
}

/// The time was the client's if its upload has not ended, and the handler's otherwise.
fn timed_out(uploading: bool, h2: bool) -> Response<Body> {
    if !uploading {
        return unavailable("the request took longer than the server allows", RETRY);
    }
    let detail = "the request's body took longer than the server allows";
    let (status, title) = (StatusCode::REQUEST_TIMEOUT, "Request Timeout");
    let mut response = refusal(status, "about:blank", title, detail, "", None);
    if !h2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// One request under way. Dropped unfinished, it counts by why that was.
///
/// One pointer without HTTP/2, because it is moved from the future to the body: a response is taken up by
/// pairs of words, and two that were written one by one just before would be waited for. What is known of
/// the request lies with the connection, which has one at a time, or with the stream.
pub(super) struct InFlight {
    // `None` once it has ended.
    conn: Option<Arc<Conn>>,
    stream: Option<StreamRef>,
}

impl InFlight {
    #[inline]
    fn begin<B>(conn: Arc<Conn>, request: &Request<B>) -> Self {
        conn.request_begins();
        let stream = Stream::on(&conn, request);
        if stream.is_none() {
            conn.asked().begin(request);
        }
        Self { conn: Some(conn), stream }
    }

    /// Its connection, and what is known of the request, until it has ended.
    #[inline]
    fn parts(&self) -> Option<(&Conn, &Asked)> {
        let conn = self.conn.as_deref()?;
        let asked = match &self.stream {
            Some(stream) => stream.asked(),
            None => conn.asked(),
        };
        Some((conn, asked))
    }

    /// What is still to come of its response; not known any more once it has ended.
    #[inline]
    pub(super) fn left(&self) -> Left {
        self.parts().map_or(Left::Unknown, |(_, asked)| asked.left())
    }

    /// `None` on HTTP/1.
    pub(super) fn stream(&self) -> Option<&StreamRef> {
        self.stream.as_ref()
    }

    fn is_uploading(&self) -> bool {
        match &self.stream {
            Some(stream) => stream.is_uploading(),
            None => self.conn.as_deref().is_some_and(Conn::is_uploading),
        }
    }

    /// The handler has to wait, or the response's body. The first time it is noted when that was: a
    /// request that never waits needs no clock.
    pub(super) fn waits(&self) {
        self.parts().inspect(|(conn, asked)| {
            asked.waits(conn);
        });
    }

    /// So many bytes of its response's body have been handed over.
    #[inline]
    pub(super) fn passes(&mut self, length: u64, body: &Body) {
        if let Some((_, asked)) = self.parts() {
            let left = asked.left().after(length);
            asked.set_left(left);
            self.finish_if_whole(body, left);
        }
    }

    /// Ends it if nothing is to come of its response's body.
    #[inline]
    fn finish_if_whole(&mut self, body: &Body, left: Left) {
        if left.is_whole(body) {
            self.finish();
        }
    }

    /// The response has been handed over whole.
    #[inline]
    pub(super) fn finish(&mut self) {
        if let Some((conn, asked)) = self.parts() {
            conn.request_ends(if asked.has_timed_out() { Way::TimedOut } else { Way::Finished });
            self.conn = None;
        }
    }
}

/// The request was given up before its end.
#[cold]
#[inline(never)]
fn give_up(conn: &Conn, asked: &Asked) {
    let way = if asked.has_timed_out() {
        Way::TimedOut
    } else if std::thread::panicking() {
        Way::Panicked
    } else if conn.server().mode() == Mode::Cutting {
        Way::Cut
    } else {
        Way::Cancelled
    };
    if way == Way::Cut {
        let (name, age) = (asked.label().to_string(), asked.age(conn));
        let cut = || Cut { kind: CutKind::Request, name, age };
        conn.server().account().open.cut_request(cut);
    }
    conn.request_ends(way);
}

impl Drop for InFlight {
    #[inline]
    fn drop(&mut self) {
        if let Some((conn, asked)) = self.parts() {
            // Not by its own address, for which it would have to stay in memory wherever it is moved.
            give_up(conn, asked);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use http_body::Body as HttpBody;
    use tokio::time::Instant;

    use super::*;
    use crate::drain::server::Server;
    use crate::{Drain, DrainConfig};

    /// What is done for one request and its response besides routing, and for the body what hyper
    /// does.
    fn track(conn: &Arc<Conn>, request: &Request<()>, response: Response<Body>) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let in_flight = InFlight::begin(Arc::clone(conn), request);
        let future =
            RequestFuture::passed_on(std::future::ready(Ok(response)), in_flight, Asks::Usual);
        let Poll::Ready(Ok(mut response)) = std::pin::pin!(future).poll(&mut cx) else {
            panic!("it is ready");
        };
        assert!(Pin::new(response.body_mut()).poll_frame(&mut cx).is_ready());
    }

    #[test]
    fn keeping_track_of_a_request_allocates_nothing() {
        let drain = Drain::new(DrainConfig::default());
        let conn = Conn::accepted(&Server::new(&drain));
        let request = Request::builder().uri("/trading/quotes/BTC").body(()).expect("valid");
        let mut responses: Vec<_> = (0..100).map(|_| Response::new(Body::from("hello"))).collect();
        let allocated = allocation_counter::measure(|| {
            for response in responses.drain(..) {
                track(&conn, &request, response);
            }
        });
        assert_eq!(allocated.count_total, 0);
        let stats = drain.stats();
        assert_eq!((stats.requests_started_total, stats.requests_finished_total), (100, 100));
        assert_eq!(conn.asked().label().to_string(), "GET /trading/quotes/BTC");
    }

    /// One that does not say that it is at its end, as streams of frames do not.
    struct WithTrailers(Vec<http_body::Frame<bytes::Bytes>>);

    impl HttpBody for WithTrailers {
        type Data = bytes::Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop().map(Ok))
        }
    }

    #[test]
    fn a_request_ends_with_its_trailers() {
        let drain = Drain::new(DrainConfig::default());
        let conn = Conn::accepted(&Server::new(&drain));
        let request = Request::builder().uri("/").body(()).expect("valid");
        let data = http_body::Frame::data(bytes::Bytes::from("hello"));
        let trailers = http_body::Frame::trailers(http::HeaderMap::new());
        let in_flight = InFlight::begin(Arc::clone(&conn), &request);
        conn.asked().set_left(Left::Unknown);
        let body = Body::new(WithTrailers(vec![trailers, data]));
        let mut body = CountedBody { body, in_flight };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut body).poll_frame(&mut cx).is_ready());
        assert_eq!(drain.stats().requests_in_flight, 1);
        assert!(Pin::new(&mut body).poll_frame(&mut cx).is_ready());
        // hyper asks for no more.
        drop(body);
        let stats = drain.stats();
        assert_eq!((stats.requests_finished_total, stats.requests_cancelled_total), (1, 0));
    }

    /// Makes its response when it is polled, as handlers do.
    struct Handler(&'static str);

    impl Future for Handler {
        type Output = Result<Response<Body>, Infallible>;

        #[inline(never)]
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Ready(Ok(Response::new(Body::from(self.0))))
        }
    }

    /// What hyper does with a request's future: polled in its place, taken apart, the body read.
    #[inline(never)]
    fn drive<F, B>(place: &mut Pin<Box<Option<F>>>)
    where
        F: Future<Output = Result<Response<B>, Infallible>>,
        B: HttpBody + Unpin,
    {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let polled = place.as_mut().as_pin_mut().expect("it is there").poll(&mut cx);
        let Poll::Ready(Ok(response)) = polled else { panic!("it is ready") };
        place.set(None);
        let (head, mut body) = response.into_parts();
        black_box(&head);
        black_box(body.size_hint());
        assert!(!body.is_end_stream());
        assert!(Pin::new(&mut body).poll_frame(&mut cx).is_ready());
        assert!(body.is_end_stream());
    }

    /// Nanoseconds for each: the lower tenth of many rounds; of few where they say nothing anyway.
    fn cost(mut once: impl FnMut()) -> f64 {
        const CALLS: u32 = 500;
        const ROUNDS: usize = if cfg!(debug_assertions) { 10 } else { 4_000 };
        let mut rounds: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let start = Instant::now();
                (0..CALLS).for_each(|_| once());
                start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
            })
            .collect();
        rounds.sort_by(f64::total_cmp);
        rounds[rounds.len() / 10]
    }

    #[test]
    fn what_keeping_track_of_a_request_costs() {
        let drain = Drain::new(DrainConfig::default());
        let conn = Conn::accepted(&Server::new(&drain));
        let request = Request::builder().uri("/trading/quotes/BTC").body(()).expect("valid");
        let (mut bare, mut tracked) = (Box::pin(None), Box::pin(None));
        for _ in 0..3 {
            let without = cost(|| {
                bare.set(Some(Handler(black_box("hello"))));
                drive(&mut bare);
            });
            let with = cost(|| {
                let in_flight = InFlight::begin(Arc::clone(&conn), &request);
                let handler = Handler(black_box("hello"));
                tracked.set(Some(RequestFuture::passed_on(handler, in_flight, Asks::Usual)));
                drive(&mut tracked);
            });
            println!("{without:.1} ns without, {with:.1} ns with: {:.1} ns", with - without);
        }
        let stats = drain.stats();
        assert_eq!(stats.requests_started_total, stats.requests_finished_total);
    }
}
