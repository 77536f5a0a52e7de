//! HTTP/2 by prior knowledge: the same bounds, and GOAWAY instead of `Connection: close`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode, Version};
use escala_cluster::{CutKind, DrainEnd};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::client::{LARGE, Server, config, soon};

struct Client {
    sender: SendRequest<Body>,
    /// Ends with the connection.
    connection: JoinHandle<()>,
}

impl Client {
    async fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).await.expect("connected");
        let mut http = Builder::new(TokioExecutor::new());
        // That of RFC 9113, and what phones and small clients keep to.
        http.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
        let (sender, connection) = http.handshake(TokioIo::new(stream)).await.expect("HTTP/2");
        let connection = tokio::spawn(async { drop(connection.await) });
        Self { sender, connection }
    }

    async fn ask(&mut self, path: &str) -> JoinHandle<hyper::Result<(StatusCode, String)>> {
        let request = Request::builder().uri(format!("http://test{path}"));
        self.send(request.body(Body::empty()).expect("valid")).await
    }

    async fn send(
        &mut self,
        request: Request<Body>,
    ) -> JoinHandle<hyper::Result<(StatusCode, String)>> {
        self.sender.ready().await.expect("open");
        let answer = self.sender.send_request(request);
        tokio::spawn(async {
            let answer = answer.await?;
            assert_eq!(answer.version(), Version::HTTP_2);
            assert!(!answer.headers().contains_key("connection"));
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            Ok((status, String::from_utf8(body.to_vec()).expect("text")))
        })
    }

    async fn get(&mut self, path: &str) -> (StatusCode, String) {
        let answer = self.ask(path).await;
        soon("an answer", answer).await.expect("no panic").expect("an answer")
    }

    /// The head has come, and nothing of the body has been read.
    async fn head(&mut self, path: &str) -> Incoming {
        self.sender.ready().await.expect("open");
        let request = Request::builder().uri(format!("http://test{path}")).body(Body::empty());
        let answer = self.sender.send_request(request.expect("valid"));
        soon("a head", answer).await.expect("a head").into_body()
    }

    async fn closed(self) {
        soon("the end of the connection", self.connection).await.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_are_served_on_one_listener() {
    let server = Server::start(config()).await;
    let mut client = Client::connect(&server).await;
    assert_eq!(client.get("/").await, (StatusCode::OK, "hello".to_owned()));
    assert_eq!(client.get("/stream").await.1, "one.");
    assert_eq!(server.idle().await.get("/").await.body, "hello");
    let request = Request::builder().method(Method::POST).uri("http://test/upload");
    let upload = client.send(request.body(Body::from("x".repeat(100_000))).expect("valid")).await;
    let answer = soon("an answer", upload).await.expect("no panic").expect("an answer");
    assert_eq!(answer.1, "100000");
    server.until("they finish", |stats| stats.requests_finished_total == 5).await;
    server.drain.begin();
    client.closed().await;
    assert!(server.ended().await.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_not_sent_where_there_may_be_none() {
    let five = |request: Request<Body>| {
        let status = request.uri().path()[1..].parse::<u16>().expect("a status");
        let mut response = Response::builder().status(status);
        // Where it is said for no body, or not said for one.
        if status != 200 {
            response = response.header("content-length", "5");
        }
        std::future::ready(Ok(response.body(Body::from("five!")).expect("valid")))
    };
    let server = Server::serving(tower::service_fn(five)).await;
    let mut client = Client::connect(&server).await;
    let asks = [(Method::HEAD, 200), (Method::GET, 204), (Method::HEAD, 204), (Method::GET, 304)];
    for (method, status) in asks {
        let request = Request::builder().method(&method).uri(format!("http://test/{status}"));
        client.sender.ready().await.expect("open");
        let answer = client.sender.send_request(request.body(Body::empty()).expect("valid"));
        let answer = soon("an answer", answer).await.expect("an answer");
        assert_eq!(answer.status(), status, "{method}");
        assert_eq!(answer.headers().contains_key("content-length"), status != 204, "{method}");
        let body = answer.into_body().collect().await.expect("whole").to_bytes();
        assert_eq!(body, "", "{method} {status}");
    }
    assert_eq!(client.get("/200").await.1, "five!");
    server.until("all finish", |stats| stats.requests_finished_total == 5).await;
    assert_eq!(server.drain.stats().requests_cancelled_total, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_panics_ends_its_stream_alone() {
    let gate = Arc::new(Semaphore::new(0));
    let through = Arc::clone(&gate);
    let service = tower::service_fn(move |request: Request<Body>| {
        assert_ne!(request.uri().path(), "/panic", "a bug in call itself");
        let gate = Arc::clone(&through);
        async move {
            gate.acquire().await.expect("never closed").forget();
            Ok::<_, Infallible>(Response::new(Body::from("through")))
        }
    });
    let server = Server::serving(service).await;
    let mut client = Client::connect(&server).await;
    let open = client.ask("/").await;
    server.until("it is handled", |stats| stats.requests_in_flight == 1).await;
    let broken = client.ask("/panic").await;
    assert!(soon("the end of the stream", broken).await.expect("no panic here").is_err());
    gate.add_permits(1);
    let answer = soon("an answer", open).await.expect("no panic").expect("an answer");
    assert_eq!(answer, (StatusCode::OK, "through".to_owned()));
    server
        .until("both have ended", |stats| {
            (stats.requests_finished_total, stats.requests_panicked_total) == (1, 1)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_says_goaway_and_finishes_what_is_open() {
    let server = Server::start(config()).await;
    let mut client = Client::connect(&server).await;
    let open = [client.ask("/gate").await, client.ask("/gate").await];
    server.until("both are handled", |stats| stats.requests_in_flight == 2).await;
    server.drain.begin();
    server.refuses().await;
    // Its client learns that it must go elsewhere while both are still open.
    soon("the client to be told", async { while let Ok(Ok(_)) = client.ask("/").await.await {} })
        .await;
    assert!(!server.running.is_finished());
    server.gate.add_permits(2);
    for answer in open {
        let answer = soon("an answer", answer).await.expect("no panic").expect("an answer");
        assert_eq!(answer, (StatusCode::OK, "through".to_owned()));
    }
    client.closed().await;
    let report = server.ended().await;
    assert_eq!(report.end, DrainEnd::Finished);
    assert!(report.is_clean() && report.requests_finished >= 2, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_cut_are_named() {
    let server = Server::start(config().deadline(Duration::from_millis(100))).await;
    let mut client = Client::connect(&server).await;
    let open = [client.ask("/gate?secret").await, client.ask("/hold").await];
    server.until("one is handled", |stats| stats.requests_in_flight >= 1).await;
    server.drain.begin();
    client.closed().await;
    let report = server.ended().await;
    assert_eq!((report.end, report.connections_cut), (DrainEnd::Deadline, 1), "{report}");
    let gate = report.cut.iter().find(|cut| cut.name == "GET /gate").expect("it is named");
    assert_eq!(gate.kind, CutKind::Request);
    assert!(
        soon("the end", open.into_iter().next().expect("two")).await.expect("no panic").is_err()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_client_takes_nothing_ends_its_connection() {
    let times = Duration::from_secs(1);
    let server =
        Server::start(config().idle_timeout(times).header_read_timeout(times).write_timeout(times))
            .await;
    let mut client = Client::connect(&server).await;
    // The head comes, and of the body nothing is asked for; other streams go on.
    let stuck = client.head("/endless").await;
    soon("the end", async {
        while let Ok(Ok(_)) = client.ask("/").await.await {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if client.sender.is_closed() {
                break;
            }
        }
    })
    .await;
    server.until("it is counted", |stats| stats.connections_timed_out_total == 1).await;
    drop(stuck);
    client.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_takes_too_long_costs_only_its_stream() {
    let server = Server::start(config().request_timeout(Duration::from_millis(100))).await;
    let mut client = Client::connect(&server).await;
    let slow = client.ask("/gate").await;
    assert_eq!(client.get("/").await.0, StatusCode::OK);
    let answer = soon("an answer", slow).await.expect("no panic").expect("an answer");
    assert_eq!(answer.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(client.get("/").await.0, StatusCode::OK);
    assert_eq!(server.drain.stats().requests_timed_out_total, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed_and_a_tunnel_refused() {
    let server = Server::start(
        config()
            .idle_timeout(Duration::from_millis(100))
            .header_read_timeout(Duration::from_secs(1)),
    )
    .await;
    let mut client = Client::connect(&server).await;
    let request = Request::builder().method(Method::CONNECT).uri("internal:5432");
    let tunnel = client.send(request.body(Body::empty()).expect("valid")).await;
    let answer = soon("an answer", tunnel).await.expect("no panic").expect("an answer");
    assert_eq!(answer.0, StatusCode::NOT_IMPLEMENTED);
    client.closed().await;
    server.until("it is counted", |stats| stats.connections_finished_total == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preface_that_does_not_end_is_cut_like_a_head() {
    let timeout = Duration::from_secs(1);
    let server = Server::start(config().header_read_timeout(timeout)).await;
    let mut slow = server.connect().await;
    slow.send("PRI * HTTP/2.0\r\n").await;
    slow.closed().await;
    server.until("it is counted", |stats| stats.connections_timed_out_total == 1).await;
    // A connection that has begun well and asks nothing is only idle.
    let client = Client::connect(&server).await;
    tokio::time::sleep(timeout * 2).await;
    assert!(!client.connection.is_finished());
}

/// Reads a large response steadily, for longer than a connection without a request is kept.
async fn read_slowly(mut body: Incoming) -> usize {
    let mut length = 0;
    while let Some(frame) = soon("a frame", body.frame()).await {
        length += frame.expect("the rest of the body").data_ref().map_or(0, |data| data.len());
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    length
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_what_a_window_keeps_back() {
    let server = Server::start(config()).await;
    let mut client = Client::connect(&server).await;
    let body = client.head("/large").await;
    let mut paused = Client::connect(&server).await;
    let later = paused.head("/large").await;
    // hyper has handed both over, and lets go of their bodies.
    server.until("they are handed over", |stats| stats.requests_finished_total == 2).await;
    server.drain.begin();
    assert_eq!(read_slowly(body).await, LARGE);
    client.closed().await;
    // This one has taken nothing all the while.
    assert_eq!(later.collect().await.expect("a body").to_bytes().len(), LARGE);
    paused.closed().await;
    let report = server.ended().await;
    assert!(report.is_clean() && report.connections_finished == 2, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_a_window_keeps_back_is_not_idle() {
    let times = Duration::from_millis(200);
    let server = Server::start(
        config()
            .max_connections(1)
            .idle_timeout(times)
            .header_read_timeout(times)
            .write_timeout(times * 5),
    )
    .await;
    let mut client = Client::connect(&server).await;
    let body = client.head("/large").await;
    // Somebody wants its place as well.
    let mut other = server.connect().await;
    other.ask("/").await;
    assert_eq!(read_slowly(body).await, LARGE);
    assert_eq!(other.answer().await.body, "hello");
    client.closed().await;
    assert_eq!(server.drain.stats().connections_timed_out_total, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_of_a_large_response_times_out() {
    let times = Duration::from_secs(1);
    let server =
        Server::start(config().idle_timeout(times).header_read_timeout(times).write_timeout(times))
            .await;
    let mut client = Client::connect(&server).await;
    let stuck = client.head("/large").await;
    server.until("it is counted", |stats| stats.connections_timed_out_total == 1).await;
    drop(stuck);
    client.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_window_keeps_back_at_the_deadline_is_cut() {
    let server = Server::start(config().deadline(Duration::from_millis(100))).await;
    let mut client = Client::connect(&server).await;
    let stuck = client.head("/large").await;
    server.until("it is handed over", |stats| stats.requests_finished_total == 1).await;
    server.drain.begin();
    let report = server.ended().await;
    assert_eq!((report.end, report.connections_cut), (DrainEnd::Deadline, 1), "{report}");
    drop(stuck);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_takes_too_long_is_the_client_s_doing() {
    let server = Server::start(config().request_timeout(Duration::from_millis(100))).await;
    let mut client = Client::connect(&server).await;
    let never = futures_util::stream::pending::<Result<String, std::convert::Infallible>>();
    let request = Request::builder().method(Method::POST).uri("http://test/upload");
    let request = request.body(Body::from_stream(never)).expect("valid");
    let upload = client.send(request).await;
    let answer = soon("an answer", upload).await.expect("no panic").expect("an answer");
    assert_eq!(answer.0, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(client.get("/").await.0, StatusCode::OK);
}
