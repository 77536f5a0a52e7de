//! What does not end by itself: WebSockets and SSE streams are told before they are cut, and what
//! goes on beside them ends in its own time.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use escala_cluster::{CutKind, Drain, DrainEnd, serve};
use futures_util::{Stream, StreamExt};
use tokio::net::TcpListener;

use crate::client::{Client, config, soon};

/// A text frame from a client, masked with zeros.
const HELLO: &[u8] = b"\x81\x85\0\0\0\0hello";

async fn socket(State(drain): State<Drain>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| echo(socket, drain))
}

/// Echoes; a second message after the drain has begun ends it, so that the test sees it alive then.
async fn echo(mut socket: WebSocket, drain: Drain) {
    let mut closing = pin!(drain.closing());
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(message)) => socket.send(message).await.expect("sent"),
                _ => return,
            },
            () = &mut closing => break,
        }
    }
    while let Some(Ok(message)) = socket.recv().await {
        socket.send(message).await.expect("sent");
        let reason = CloseFrame { code: close_code::AWAY, reason: "restart".into() };
        socket.send(Message::Close(Some(reason))).await.expect("sent");
    }
}

async fn deaf(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async |mut socket| while let Some(Ok(_)) = socket.recv().await {})
}

async fn ticks(State(drain): State<Drain>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = futures_util::stream::once(async { Ok(Event::default().data("tick")) });
    Sse::new(events.chain(futures_util::stream::pending()).take_until(drain.closing()))
}

fn router(drain: &Drain) -> Router {
    Router::new()
        .route("/socket", get(socket))
        .route("/deaf", get(deaf))
        .route("/ticks", get(ticks))
        .with_state(drain.clone())
}

async fn websocket(address: std::net::SocketAddr, path: &str) -> Client {
    let mut client = Client::connect(address).await;
    let upgrade = "host: test\r\nconnection: upgrade\r\nupgrade: websocket";
    let key = "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    client.send(&format!("GET {path} HTTP/1.1\r\n{upgrade}\r\n{key}\r\n\r\n")).await;
    assert_eq!(client.answer().await.status(), "101");
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_and_an_sse_stream_are_told_and_a_long_job_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let drain = Drain::new(config());
    let running = tokio::spawn(serve(listener, router(&drain), drain.clone()));
    let mut socket = websocket(address, "/socket").await;
    socket.send_bytes(HELLO).await;
    assert_eq!(socket.bytes(7).await, b"\x81\x05hello");
    let mut ticks = Client::connect(address).await;
    ticks.ask("/ticks").await;
    assert_eq!(ticks.answer().await.status(), "200");
    let job = drain.job("long");
    let job = tokio::spawn(job.run(tokio::time::sleep(job_time())));

    drain.begin();
    // The stream ends in good order: by its last chunk.
    assert!(ticks.reads("C\r\ndata: tick\n\n\r\n0\r\n\r\n").await);
    ticks.closed().await;
    // The socket is still served, and ends by its handler's word.
    socket.send_bytes(HELLO).await;
    assert_eq!(socket.bytes(7).await, b"\x81\x05hello");
    assert_eq!(socket.bytes(11).await, b"\x88\x09\x03\xe9restart");
    socket.send_bytes(b"\x88\x82\0\0\0\0\x03\xe9").await;
    socket.closed().await;
    drop(socket);
    assert_eq!(soon("the job", job).await.expect("no panic"), Ok(()));
    let report = soon("the end", running).await.expect("no panic").expect("served");
    assert_eq!((report.end, report.jobs_ended), (DrainEnd::Finished, 1), "{report}");
    assert!(report.is_clean());
}

/// 30 s by hand (`ESCALA_JOB_SECONDS=30`), less in the suite.
fn job_time() -> Duration {
    let seconds = std::env::var("ESCALA_JOB_SECONDS").ok().and_then(|text| text.parse().ok());
    seconds.map_or(Duration::from_millis(300), Duration::from_secs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_that_does_not_listen_is_cut_and_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let drain = Drain::new(config().deadline(Duration::from_millis(100)));
    let running = tokio::spawn(serve(listener, router(&drain), drain.clone()));
    let mut socket = websocket(address, "/deaf").await;
    drain.begin();
    socket.closed().await;
    let report = soon("the end", running).await.expect("no panic").expect("served");
    assert_eq!((report.end, report.connections_cut), (DrainEnd::Deadline, 1), "{report}");
    let [cut] = &report.cut[..] else { panic!("{report:?}") };
    assert_eq!((cut.kind, cut.name.as_str()), (CutKind::Upgraded, "GET /deaf"));
}
