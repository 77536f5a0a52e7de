//! Every request is counted out once, whoever ends it.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;

use super::*;

#[tokio::test]
async fn a_server_is_in_use_until_the_end_of_the_body() {
    let server = Server::start("a").await;
    let proxy = proxy(&[&server], ProxyConfig::default());
    let response = send(&proxy, &Method::GET, "").await.unwrap();
    assert_eq!(in_flight(proxy.replicas()), 1);
    let _body = response.into_body().collect().await.unwrap();
    assert_eq!(in_flight(proxy.replicas()), 0);
    assert_eq!(node(proxy.replicas(), "a").succeeded_total, 1);
    // A body that nobody reads is cancelled, and no failure.
    drop(send(&proxy, &Method::GET, "").await.unwrap());
    let stats = node(proxy.replicas(), "a");
    assert_eq!((stats.in_flight, stats.cancelled_total, stats.failed_total), (0, 1, 0));
    // There is none to read in an answer to HEAD.
    let _head = send(&proxy, &Method::HEAD, "").await.unwrap();
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
