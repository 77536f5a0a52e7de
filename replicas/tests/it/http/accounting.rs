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
    dropped_at_any_moment(ProxyConfig::default(), Duration::ZERO).await;
    // And from the moment on at which there are two.
    let hedge = Duration::from_millis(1);
    dropped_at_any_moment(ProxyConfig::default().hedge_after(hedge), hedge).await;
}

async fn dropped_at_any_moment(config: ProxyConfig, after: Duration) {
    let (one, two) = (Server::start("a").await, Server::start("b").await);
    let proxy = proxy(&[&one, &two], config);
    for round in 0..400_u64 {
        // Twice each: the servers take turns.
        one.answers(match round / 2 % 4 {
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
        tokio::select! {
            biased;
            () = read => {}
            () = moment(after, round / 8 % 16) => {}
        }
        assert_eq!(in_flight(proxy.replicas()), 0, "round {round}");
    }
    let (a, b) = (node(proxy.replicas(), "a"), node(proxy.replicas(), "b"));
    for node in [&a, &b] {
        let ended = node.succeeded_total + node.failed_total + node.cancelled_total;
        assert_eq!(node.started_total, ended);
    }
    assert!(a.cancelled_total >= 10 && b.succeeded_total >= 10, "{a:?}, {b:?}");
}

/// So many turns of all tasks, in each of which what has come over the wire is read.
async fn moment(after: Duration, turns: u64) {
    if !after.is_zero() {
        tokio::time::sleep(after).await;
    }
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}
