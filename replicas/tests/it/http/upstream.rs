//! One upstream as a tower service and as a node, without the proxy.

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;

use super::*;

#[tokio::test]
async fn it_is_a_service_that_sends_to_its_own_address() {
    let server = Server::start("a").await;
    let request = Request::get("http://elsewhere.example/path").body(Full::<Bytes>::default());
    let response = upstream(&server).oneshot(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "a");
}

#[tokio::test]
async fn a_request_for_two_hosts_or_for_a_tunnel_goes_nowhere() {
    let server = Server::start("a").await;
    let proxy = proxy(&[&server], ProxyConfig::default());
    let two = Request::get("/").header("host", "a").header("host", "b");
    let error = proxy.forward(two.body(Full::<Bytes>::default()).unwrap(), None).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    let tunnel = Request::connect("a:80").body(Full::<Bytes>::default()).unwrap();
    let error = proxy.forward(tunnel, None).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::NOT_IMPLEMENTED);
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_probe_wants_a_success() {
    let server = Server::start("a").await;
    let upstream = upstream(&server);
    upstream.probe("/health").await.unwrap();
    server.answers(Answer::Status(500));
    let error = upstream.probe("/health").await.unwrap_err();
    assert!(error.to_string().contains("500"), "{error}");
    drop(server);
    assert!(upstream.probe("/health").await.is_err());
}

#[tokio::test]
async fn connections_are_kept() {
    let server = Server::start("a").await;
    let proxy = proxy(&[&server], ProxyConfig::default());
    for _ in 0..20 {
        assert_eq!(answer(&proxy, &Method::GET).await.0, 200);
    }
    assert_eq!(server.connections(), 1);
}

/// A kept connection is driven by the runtime that opened it, and would be dead with it.
#[test]
fn a_runtime_that_ends_takes_only_its_own_connections_with_it() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let servers =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let servers = servers.unwrap();
    let server = servers.block_on(Server::start("a"));
    let proxy = proxy(&[&server], ProxyConfig::default().attempts(1));
    for _ in 0..3 {
        let runtime = runtime();
        for _ in 0..3 {
            assert_eq!(runtime.block_on(answer(&proxy, &Method::GET)).0, 200);
        }
    }
    assert_eq!(server.connections(), 3);
    assert_eq!(node(proxy.replicas(), "a").failed_total, 0);
}

#[test]
fn outside_of_a_runtime_it_is_an_error() {
    let upstream = Upstream::new("127.0.0.1:1", UpstreamConfig::default()).unwrap();
    let request = Request::get("/").body(Full::<Bytes>::default()).unwrap();
    let mut call = tokio_test::task::spawn(upstream.oneshot(request));
    let error = match call.poll() {
        std::task::Poll::Ready(result) => result.unwrap_err(),
        std::task::Poll::Pending => panic!("it waits for nothing"),
    };
    assert!(error.is_unsent(), "{error}");
}
