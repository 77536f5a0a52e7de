//! Whose fault it is when a request ends badly, or does not end.

use std::net::SocketAddr;

use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::released;

/// A server that answers the first part of a request with the first part of an answer, and waits.
async fn half() -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 413 X\r\ncontent-length: 6\r\n\r\nabc").await.unwrap();
        // Until the other side closes.
        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    });
    (address, task)
}

fn over(address: SocketAddr, config: UpstreamConfig) -> ReverseProxy {
    let upstream = Upstream::new(&address.to_string(), config).unwrap();
    let set = Replicas::without_primary().replica("a", 1, upstream).build().unwrap();
    ReverseProxy::new(set, ProxyConfig::default()).unwrap()
}

#[tokio::test]
async fn a_client_that_breaks_its_upload_off_is_no_failure_of_the_server_that_answers_it() {
    let (address, _server) = half().await;
    let proxy = over(address, UpstreamConfig::default());
    let broken = std::sync::Arc::new(());
    let breaks = std::sync::Arc::clone(&broken);
    let (answered, answer) = tokio::sync::oneshot::channel::<()>();
    let parts = futures_util::stream::unfold((0, Some(answer)), move |(at, answer)| {
        let _alive = &breaks;
        async move {
            match (at, answer) {
                (0, answer) => Some((Ok(Frame::data(Bytes::from_static(b"part"))), (1, answer))),
                (1, Some(answer)) => {
                    answer.await.unwrap();
                    Some((Err("the client is gone"), (2, None)))
                }
                _ => None,
            }
        }
    });
    let request = Request::post("/").body(StreamBody::new(parts)).unwrap();
    let response = proxy.forward(request, None).await.unwrap();
    assert_eq!(response.status(), 413);
    answered.send(()).unwrap();
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(in_flight(proxy.replicas()), 0);
    let stats = node(proxy.replicas(), "a");
    assert_eq!((stats.failed_total, stats.cancelled_total), (0, 1));
    released(&broken).await;
}

#[tokio::test]
async fn a_body_that_falls_silent_ends_and_is_no_failure_of_its_server() {
    let (address, _server) = half().await;
    let config = UpstreamConfig::default().body_idle_timeout(Duration::from_millis(50));
    let proxy = over(address, config);
    let response = send(&proxy, &Method::GET, "").await.unwrap();
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(in_flight(proxy.replicas()), 0);
    assert_eq!(node(proxy.replicas(), "a").failed_total, 0);
}

#[tokio::test]
async fn a_stream_of_events_is_a_success_at_its_begin() {
    let servers = [Server::start("a").await, Server::start("b").await];
    let [one, two] = &servers;
    let builder = [("a", one), ("b", two)]
        .into_iter()
        .fold(Replicas::without_primary(), |set, (name, server)| {
            set.replica(name, 1, upstream(server))
        });
    let config = steady().consecutive_failures(3).failure_min_requests(u32::MAX);
    let set = builder.strategy(Strategy::RoundRobin).config(config).build().unwrap();
    let proxy = ReverseProxy::new(set, ProxyConfig::default().attempts(1)).unwrap();
    let mut open = Vec::new();
    for answer in [Answer::Close, Answer::Events, Answer::Close] {
        let events = matches!(answer, Answer::Events);
        servers.iter().for_each(|server| server.answers(answer.clone()));
        for _ in 0..if events { 2 } else { 4 } {
            let result = send(&proxy, &Method::POST, "").await;
            assert_eq!(result.is_ok(), events);
            open.extend(result);
        }
    }
    for name in ["a", "b"] {
        let stats = node(proxy.replicas(), name);
        assert_eq!((stats.failed_total, stats.in_flight, stats.ejections_total), (4, 1, 0));
    }
}
