//! A raw HTTP/1 client and a server to talk to: sockets as they are, so that a test sees every
//! byte and every close.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{any, get};
use escala_cluster::{Drain, DrainConfig, DrainReport, DrainStats, ServeError, serve};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower::Service;

/// Longer than anything here takes, however busy the machine is; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a response in one piece, of which a client's window takes only some at a time.
pub(crate) const LARGE: usize = 500_000;

/// Waits for what must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("it never came: {what}"))
}

pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn status(&self) -> &str {
        self.head.split(' ').nth(1).expect("a status line")
    }

    pub(crate) fn closes(&self) -> bool {
        self.head.to_ascii_lowercase().contains("connection: close")
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await.expect("connected");
        Self { stream, received: Vec::new() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.stream.local_addr().expect("bound")
    }

    pub(crate) async fn send(&mut self, text: &str) {
        assert!(self.try_send(text).await, "the connection has ended");
    }

    /// False if the connection has ended.
    pub(crate) async fn try_send(&mut self, text: &str) -> bool {
        self.stream.write_all(text.as_bytes()).await.is_ok()
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("sent");
    }

    /// The next so many bytes, or fewer if the connection ends first.
    pub(crate) async fn bytes(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length && soon("bytes", self.receive()).await {}
        let rest = self.received.split_off(length.min(self.received.len()));
        std::mem::replace(&mut self.received, rest)
    }

    pub(crate) async fn ask(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).await;
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.ask(path).await;
        self.answer().await
    }

    pub(crate) async fn post(&mut self, path: &str) -> Answer {
        self.send(&format!("POST {path} HTTP/1.1\r\nhost: test\r\n\r\n")).await;
        self.answer().await
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("an answer before the end")
    }

    /// The next head, of an answer without a body.
    pub(crate) async fn head(&mut self) -> String {
        soon("a head", self.receive_head()).await.expect("a head before the end")
    }

    async fn receive_head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                return Some(self.take(end + 4));
            }
            if !self.receive().await {
                return None;
            }
        }
    }

    /// `None` if the connection ends first.
    pub(crate) async fn try_answer(&mut self) -> Option<Answer> {
        soon("an answer", async {
            let head = self.receive_head().await?;
            let length = head.to_ascii_lowercase().lines().find_map(|line| {
                line.strip_prefix("content-length:").map(|length| length.trim().parse())
            });
            let length: usize = length.map_or(0, |length| length.expect("a number"));
            while self.received.len() < length {
                if !self.receive().await {
                    return None;
                }
            }
            Some(Answer { head, body: self.take(length) })
        })
        .await
    }

    /// Whether exactly this text arrives next.
    pub(crate) async fn reads(&mut self, text: &str) -> bool {
        while self.received.len() < text.len() {
            if !soon("bytes", self.receive()).await {
                return false;
            }
        }
        self.take(text.len()) == text
    }

    /// Waits for the server to close, and nothing to come before.
    pub(crate) async fn closed(&mut self) {
        while soon("the end of the connection", self.receive()).await {}
        assert_eq!(self.received, b"", "something came before the end");
    }

    async fn receive(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.received).await, Ok(1..))
    }

    fn take(&mut self, length: usize) -> String {
        let rest = self.received.split_off(length);
        let taken = std::mem::replace(&mut self.received, rest);
        String::from_utf8(taken).expect("text")
    }
}

/// A server under test, and what its handlers wait for.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) drain: Drain,
    /// A permit lets one request of `/gate` end.
    pub(crate) gate: Arc<Semaphore>,
    pub(crate) running: JoinHandle<Result<DrainReport, ServeError>>,
}

/// Development times, with a deadline that no test waits for.
pub(crate) fn config() -> DrainConfig {
    DrainConfig::default().lame_duck(Duration::ZERO).deadline(Duration::from_secs(600))
}

/// What can be served.
pub(crate) trait Answers:
    Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Answers for S
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send>,
    S: Clone + Send + 'static,
{
}

impl Server {
    pub(crate) async fn start(config: DrainConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::on(listener, Drain::new(config))
    }

    pub(crate) fn on(listener: TcpListener, drain: Drain) -> Self {
        let gate = Arc::new(Semaphore::new(0));
        let router = router(&gate);
        Self { gate, ..Self::run(router, listener, drain) }
    }

    /// Serves this instead of the usual paths.
    pub(crate) async fn serving(service: impl Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::run(service, listener, Drain::new(config()))
    }

    fn run(service: impl Answers, listener: TcpListener, drain: Drain) -> Self {
        let address = listener.local_addr().expect("bound");
        let running = tokio::spawn(serve(listener, service, drain.clone()));
        Self { address, drain, gate: Arc::new(Semaphore::new(0)), running }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    /// A connection with a request that is being handled.
    pub(crate) async fn busy(&self) -> Client {
        let before = self.drain.stats().requests_in_flight;
        let mut client = self.connect().await;
        client.ask("/gate").await;
        self.until("the request is handled", |stats| stats.requests_in_flight > before).await;
        client
    }

    /// A connection whose request has been answered.
    pub(crate) async fn idle(&self) -> Client {
        let mut client = self.connect().await;
        assert_eq!(client.get("/").await.body, "hello");
        client
    }

    /// A connection that echoes what it is sent.
    pub(crate) async fn upgraded(&self) -> Client {
        let mut client = self.switched("/echo").await;
        client.send("ping").await;
        assert!(client.reads("ping").await);
        client
    }

    /// A connection that speaks another protocol from now on.
    pub(crate) async fn switched(&self, path: &str) -> Client {
        let mut client = self.connect().await;
        let upgrade = "host: test\r\nconnection: upgrade\r\nupgrade: echo";
        client.send(&format!("GET {path} HTTP/1.1\r\n{upgrade}\r\n\r\n")).await;
        assert_eq!(client.answer().await.status(), "101");
        client
    }

    /// Waits for the listener to be closed: from then on every connection has been told.
    pub(crate) async fn refuses(&self) {
        soon("the listener to close", async {
            while TcpStream::connect(self.address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    pub(crate) async fn until(&self, what: &str, true_of: impl Fn(&DrainStats) -> bool) {
        let end = tokio::time::Instant::now() + PATIENCE;
        while !true_of(&self.drain.stats()) {
            let stats = self.drain.stats();
            assert!(tokio::time::Instant::now() < end, "it never came: {what}, {stats:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The report, after a check that everything is accounted for.
    pub(crate) async fn ended(self) -> DrainReport {
        let report = soon("the end", self.running).await.expect("no panic").expect("served");
        let stats = self.drain.stats();
        let connections = stats.connections_finished_total
            + stats.connections_timed_out_total
            + stats.connections_cut_total;
        assert_eq!((stats.accepted_total, stats.connections_open), (connections, 0), "{stats:?}");
        let requests = stats.requests_finished_total
            + stats.requests_timed_out_total
            + stats.requests_cancelled_total
            + stats.requests_panicked_total
            + stats.requests_cut_total;
        let started = (stats.requests_started_total, stats.requests_in_flight);
        assert_eq!(started, (requests, 0), "{stats:?}");
        report
    }
}

fn router(gate: &Arc<Semaphore>) -> Router {
    let gate = Arc::clone(gate);
    let gated = async move || {
        gate.acquire().await.expect("never closed").forget();
        "through"
    };
    let peer = async |axum::extract::ConnectInfo(peer): axum::extract::ConnectInfo<SocketAddr>| {
        peer.to_string()
    };
    Router::new()
        .route("/", get(async || "hello"))
        .route("/gate", get(gated))
        .route("/peer", get(peer))
        .route("/panic", get(async || -> &'static str { std::panic::resume_unwind(Box::new(())) }))
        .route("/stream", get(stream))
        .route("/endless", get(endless))
        .route("/large", get(async || "x".repeat(LARGE)))
        .route("/early", any(early))
        .route("/upload", any(upload))
        .route("/echo", any(async |request| switch(request, echo).await))
        .route("/hold", any(async |request| switch(request, hold).await))
}

/// A body that says its length in the head only, and comes in two parts.
async fn stream() -> axum::response::Response {
    let parts = futures_util::stream::iter(["on", "e."].map(Ok::<_, std::convert::Infallible>));
    axum::response::Response::builder()
        .header("content-length", "4")
        .body(axum::body::Body::from_stream(parts))
        .expect("valid")
}

/// Reads the body and says how long it is, or that it broke off.
async fn upload(body: axum::body::Body) -> String {
    match axum::body::to_bytes(body, usize::MAX).await {
        Ok(body) => body.len().to_string(),
        Err(error) => error.to_string(),
    }
}

/// More than any socket holds.
async fn endless() -> axum::body::Body {
    let part = axum::body::Bytes::from_static(&[0; 64 * 1024]);
    let parts =
        futures_util::stream::repeat_with(move || Ok::<_, std::convert::Infallible>(part.clone()));
    axum::body::Body::from_stream(parts)
}

/// Answers at once, and reads the request's body afterwards.
async fn early(request: axum::extract::Request) -> &'static str {
    tokio::spawn(axum::body::to_bytes(request.into_body(), usize::MAX));
    "early"
}

async fn switch<F>(
    mut request: axum::extract::Request,
    talk: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
) -> axum::response::Response
where
    F: Future<Output = ()> + Send,
{
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move { talk(TokioIo::new(upgrade.await.expect("upgraded"))).await });
    axum::response::Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", "echo")
        .body(axum::body::Body::empty())
        .expect("valid")
}

async fn echo(io: TokioIo<Upgraded>) {
    let (mut reader, mut writer) = tokio::io::split(io);
    // Its error is that the connection was cut.
    drop(tokio::io::copy(&mut reader, &mut writer).await);
}

/// Neither reads nor writes nor lets go.
async fn hold(io: TokioIo<Upgraded>) {
    std::future::pending::<()>().await;
    drop(io);
}
