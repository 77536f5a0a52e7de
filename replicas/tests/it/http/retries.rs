//! What is sent again, where, and how often.

use std::time::Duration;

use escala_replicas::http::{ProxyConfig, UpstreamError};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;

use super::wire::Wire;
use super::*;

#[tokio::test]
async fn an_idempotent_request_goes_to_the_next_server_and_a_post_does_not() {
    let (bad, good) = (Server::start("bad").await, Server::start("good").await);
    bad.answers(Answer::Close);
    let proxy = proxy(&[&bad, &good], ProxyConfig::default());
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
        for _ in 0..2 {
            let response = send(&proxy, &method, "").await.unwrap();
            assert_eq!(response.status(), 200, "{method}");
            let _body = response.into_body().collect().await.unwrap();
        }
    }
    let (before, mut failed) = (good.requests(), 0);
    for _ in 0..4 {
        if let Err(error) = send(&proxy, &Method::POST, "once").await {
            assert_eq!(error.status(), StatusCode::BAD_GATEWAY);
            failed += 1;
        }
    }
    assert_eq!((failed, good.requests() - before), (2, 2));
    assert_eq!(in_flight(proxy.replicas()), 0);
}

#[tokio::test]
async fn a_short_body_is_sent_whole_each_time() {
    let (bad, good) = (Server::start("bad").await, Server::start("good").await);
    bad.answers(Answer::Close);
    let proxy = proxy(&[&bad, &good], ProxyConfig::default());
    for _ in 0..2 {
        assert_eq!(send(&proxy, &Method::PUT, "all of it").await.unwrap().status(), 200);
    }
    assert_eq!(bad.bodies(), ["all of it"]);
    assert_eq!(good.bodies(), ["all of it", "all of it"]);
    // One that is too long to be held is sent once.
    let config = ProxyConfig::default().replay_bytes(4);
    let proxy = super::proxy(&[&bad, &bad], config);
    assert!(send(&proxy, &Method::PUT, "all of it").await.is_err());
    assert_eq!(proxy.stats().retries_total, 0);
}

#[tokio::test]
async fn a_status_is_tried_again_only_where_it_is_listed() {
    let (bad, good) = (Server::start("bad").await, Server::start("good").await);
    bad.answers(Answer::Status(503));
    let plain = proxy(&[&bad, &good], ProxyConfig::default());
    let mut statuses = [answer(&plain, &Method::GET).await.0, answer(&plain, &Method::GET).await.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
    assert_eq!(node(plain.replicas(), "a").failed_total, 0, "saturation is no failure");

    let config = ProxyConfig::default().retry_statuses([503]).failure_statuses([503]);
    let proxy = proxy(&[&bad, &good], config);
    for _ in 0..2 {
        assert_eq!(answer(&proxy, &Method::GET).await, (200, "good".to_owned()));
    }
    assert_eq!(node(proxy.replicas(), "a").failed_total, 1);
    // With nobody left to ask, the last answer is the answer.
    good.answers(Answer::Status(503));
    assert_eq!(answer(&proxy, &Method::GET).await.0, 503);
    assert_eq!(in_flight(proxy.replicas()), 0);
}

#[tokio::test]
async fn an_answer_that_is_not_used_holds_no_connection() {
    let (one, two) = (Wire::listen().await, Wire::listen().await);
    let upstream = |wire: &Wire| wire.upstream(UpstreamConfig::default());
    let set = Replicas::without_primary();
    let set = set.replica("a", 1, upstream(&one)).replica("b", 1, upstream(&two)).build().unwrap();
    let proxy = ReverseProxy::new(set, ProxyConfig::default().retry_statuses([503])).unwrap();
    let sent = tokio::spawn(async move { send(&proxy, &Method::GET, "").await });
    let (mut first, other) = tokio::select! {
        peer = one.accept() => (peer, &two),
        peer = two.accept() => (peer, &one),
    };
    let _request = first.hears_a_request().await;
    first.says("HTTP/1.1 503 Later\r\ncontent-length: 9\r\n\r\nbeg").await;
    let mut second = other.accept().await;
    let _request = second.hears_a_request().await;
    // While the second has not answered.
    assert!(first.sees_the_end().await);
    second.says("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(sent.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn retries_end_with_their_budget() {
    let bad = Server::start("bad").await;
    bad.answers(Answer::Close);
    let config = ProxyConfig::default().retry_budget(0.2, 0);
    let proxy = proxy(&[&bad, &bad, &bad], config);
    for _ in 0..100 {
        let error = send(&proxy, &Method::GET, "").await.unwrap_err();
        assert_eq!(error.status(), StatusCode::BAD_GATEWAY);
    }
    let stats = proxy.stats();
    // At most a fifth of the requests of the window, which a slow machine may outlast.
    assert!((10..=20).contains(&stats.retries_total), "{stats:?}");
    assert_eq!(bad.requests(), 100 + stats.retries_total);
    assert!(stats.retries_refused_total >= 80, "{stats:?}");
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_nobody_anything() {
    let server = Server::start("a").await;
    let proxy = proxy(&[&server], ProxyConfig::default());
    assert_eq!(answer(&proxy, &Method::GET).await.0, 200);
    // The retry opens another one, to the only server there is.
    server.answers(Answer::CloseOnce);
    assert_eq!(answer(&proxy, &Method::GET).await.0, 200);
    assert_eq!((server.requests(), server.connections()), (3, 2));
}

#[tokio::test]
async fn a_server_that_is_silent_is_a_504_and_its_failure() {
    let server = Server::start("a").await;
    let never = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    server.answers(Answer::Wait(never));
    let config = UpstreamConfig::default().response_timeout(Duration::from_millis(100));
    let upstream = Upstream::new(&server.address.to_string(), config).unwrap();
    let replicas = Replicas::without_primary().replica("a", 1, upstream).build().unwrap();
    let proxy = ReverseProxy::new(replicas, ProxyConfig::default()).unwrap();
    let error = send(&proxy, &Method::GET, "").await.unwrap_err();
    assert!(
        matches!(&error, ProxyError::Upstream { node, error: UpstreamError::Timeout } if node == "a")
    );
    let response = error.response();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(node(proxy.replicas(), "a").failed_total, 1);
}

#[tokio::test]
async fn full_servers_are_a_503_that_says_when_to_come_back() {
    let server = Server::start("a").await;
    let go = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    server.answers(Answer::Wait(std::sync::Arc::clone(&go)));
    let member = escala_replicas::Member::replica("a", upstream(&server)).max_in_flight(1);
    let replicas = Replicas::without_primary().member(member).build().unwrap();
    let proxy = ReverseProxy::new(replicas, ProxyConfig::default()).unwrap();
    let first = tokio::spawn({
        let proxy = proxy.clone();
        async move { answer(&proxy, &Method::GET).await }
    });
    eventually("the first request", || server.requests() == 1).await;
    let response = proxy.clone().answering().oneshot(request(&Method::GET, "")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    go.add_permits(1);
    assert_eq!(first.await.unwrap().0, 200);
    assert_eq!(node(proxy.replicas(), "a").failed_total, 0);
}
