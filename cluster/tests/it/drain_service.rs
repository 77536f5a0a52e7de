//! Services that are no router: called once they are ready, and their bodies sent where there may be one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tower::{ServiceBuilder, service_fn};

use crate::client::Server;

/// Answers with the status that the path names, and always with a body that has a length.
async fn with_body(request: Request) -> Result<Response, Infallible> {
    let named = request.uri().path().get(1..).and_then(|status| status.parse().ok());
    let status = StatusCode::from_u16(named.unwrap_or(200)).expect("a status");
    Ok((status, [("content-length", "5")], "five!").into_response())
}

#[tokio::test]
async fn a_service_sees_its_peer() {
    let peer = async |request: Request| {
        let ConnectInfo(peer): &ConnectInfo<SocketAddr> =
            request.extensions().get().expect("who asks");
        Ok(peer.to_string().into_response())
    };
    let server = Server::serving(service_fn(peer)).await;
    let mut client = server.connect().await;
    assert_eq!(client.get("/").await.body, client.address().to_string());
}

#[tokio::test]
async fn a_body_is_not_sent_where_there_may_be_none() {
    let server = Server::serving(service_fn(with_body)).await;
    let mut client = server.connect().await;
    for (method, status, length) in [
        ("HEAD", 200, "content-length: 5\r\n"),
        ("HEAD", 404, "content-length: 5\r\n"),
        ("GET", 204, ""),
        ("HEAD", 204, ""),
        // What it would be long, if it had changed.
        ("GET", 304, "content-length: 5\r\n"),
    ] {
        client.send(&format!("{method} /{status} HTTP/1.1\r\nhost: test\r\n\r\n")).await;
        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {status}: {head}");
        let has_length = head.contains("content-length");
        assert_eq!((has_length, head.contains(length)), (!length.is_empty(), true), "{head}");
    }
    // Whatever was sent of a body would come before this.
    assert_eq!(client.get("/200").await.body, "five!");
    server.until("all finish", |stats| stats.requests_finished_total == 6).await;
    client.send("CONNECT test:1 HTTP/1.1\r\nhost: test:1\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("content-length"), "{head}");
    server.until("all finish", |stats| stats.requests_finished_total == 7).await;
    assert_eq!(server.drain.stats().requests_cancelled_total, 0);
}

#[tokio::test]
async fn a_service_that_is_not_ready_is_waited_for() {
    let gate = Arc::new(Semaphore::new(0));
    let through = Arc::clone(&gate);
    let gated = service_fn(move |_: Request| {
        let gate = Arc::clone(&through);
        async move {
            gate.acquire().await.expect("never closed").forget();
            Ok::<_, Infallible>(Response::new(Body::from("through")))
        }
    });
    let server = Server::serving(ServiceBuilder::new().concurrency_limit(1).service(gated)).await;
    let mut clients = Vec::new();
    for busy in 1..=3 {
        let mut client = server.connect().await;
        client.ask("/").await;
        server.until("it has come", |stats| stats.requests_in_flight == busy).await;
        clients.push(client);
    }
    // One that waits is given up, and holds no place of those behind it.
    drop(clients.remove(1));
    server.until("it is given up", |stats| stats.requests_cancelled_total == 1).await;
    server.drain.begin();
    server.refuses().await;
    for mut client in clients {
        gate.add_permits(1);
        let answer = client.answer().await;
        assert_eq!((answer.body.as_str(), answer.closes()), ("through", true));
    }
    assert_eq!(server.ended().await.requests_finished, 2);
}
