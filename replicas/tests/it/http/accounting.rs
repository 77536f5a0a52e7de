//! Every request is counted out once, whoever ends it.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;

use super::wire::Wire;
use super::*;

#[tokio::test]
async fn a_server_is_in_use_until_its_answer_has_come() {
    let wire = Wire::listen().await;
    // Each request on a connection of its own.
    let config = UpstreamConfig::default().pool_max_idle(0);
    let set = Replicas::without_primary().replica("a", 1, wire.upstream(config));
    let proxy = ReverseProxy::new(set.build().unwrap(), ProxyConfig::default()).unwrap();
    let begun = async |method: Method| {
        let proxy = proxy.clone();
        let sent = tokio::spawn(async move { send(&proxy, &method, "").await.unwrap() });
        let mut peer = wire.accept().await;
        let _request = peer.hears_a_request().await;
        peer.says("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha").await;
        (sent.await.unwrap(), peer)
    };
    let (response, mut peer) = begun(Method::GET).await;
    assert_eq!(in_flight(proxy.replicas()), 1);
    peer.says("lf").await;
    let _body = response.into_body().collect().await.unwrap();
    assert_eq!(in_flight(proxy.replicas()), 0);
    assert_eq!(node(proxy.replicas(), "a").succeeded_total, 1);
    // A body that nobody reads is cancelled, and no failure.
    drop(begun(Method::GET).await);
    let stats = node(proxy.replicas(), "a");
    assert_eq!((stats.in_flight, stats.cancelled_total, stats.failed_total), (0, 1, 0));
    // There is none to read in an answer to HEAD.
    let _head = begun(Method::HEAD).await;
    assert_eq!(node(proxy.replicas(), "a").succeeded_total, 2);
}

#[tokio::test]
async fn requests_dropped_at_any_moment_are_counted_out() {
    let (one, two) = (Server::start("a").await, Server::start("b").await);
    let config = ProxyConfig::default().hedge_after(Duration::from_millis(1));
    let proxy = proxy(&[&one, &two], config);
    for round in 0..400_u64 {
        one.answers(match round % 4 {
            0 => Answer::Close,
            1 => Answer::Wait(Arc::new(Semaphore::new(0))),
            2 => Answer::Status(503),
            _ => Answer::Status(200),
        });
        let read = async {
            if let Ok(response) = send(&proxy, &Method::GET, "").await {
                let _body = response.into_body().collect().await;
            }
        };
        // An error is the time being up, which is what is wanted.
        let _dropped = tokio::time::timeout(Duration::from_micros(round * 10), read).await;
        assert_eq!(in_flight(proxy.replicas()), 0, "round {round}");
    }
}
