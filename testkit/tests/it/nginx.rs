//! nginx: with directives of one's own, killed, restarted, frozen, refused.

use std::net::SocketAddr;

use testkit::Nginx;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

async fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

async fn start() -> Nginx {
    Nginx::builder()
        .http("map $uri $word { default other; /a first; }")
        .server("location / { return 200 $word; }")
        .start()
        .await
        .expect("nginx starts")
}

#[tokio::test]
async fn it_serves_what_its_directives_say_and_comes_back_on_the_same_port() {
    let nginx = start().await;
    let addr = nginx.addr();
    assert!(get(addr, "/a").await.ends_with("first"));
    nginx.kill().unwrap();
    TcpStream::connect(addr).await.unwrap_err();
    nginx.restart().await.unwrap();
    assert_eq!(nginx.addr(), addr);
    assert!(get(addr, "/b").await.ends_with("other"));
}

#[tokio::test]
async fn a_cache_in_its_own_folder_works() {
    let origin = start().await;
    let cache = Nginx::builder()
        .http("proxy_cache_path store keys_zone=store:1m;")
        .server(format!(
            "location / {{ proxy_pass {}; proxy_cache store; proxy_cache_valid 1h;
             add_header x-cache $upstream_cache_status; }}",
            origin.url()
        ))
        .start()
        .await
        .expect("nginx starts");
    assert!(get(cache.addr(), "/a").await.contains("x-cache: MISS"));
    origin.kill().unwrap();
    let answer = get(cache.addr(), "/a").await;
    assert!(answer.contains("x-cache: HIT") && answer.ends_with("first"), "{answer}");
}

#[tokio::test]
async fn a_frozen_server_answers_after_it_is_thawed() {
    let nginx = start().await;
    let addr = nginx.addr();
    nginx.freeze().unwrap();
    let mut asking = tokio::spawn(async move { get(addr, "/a").await });
    assert!(timeout(Duration::from_millis(100), &mut asking).await.is_err());
    nginx.thaw().unwrap();
    assert!(asking.await.unwrap().ends_with("first"));
}

#[tokio::test]
async fn a_refused_directive_is_in_the_error() {
    let error = Nginx::builder().server("no_such_directive;").start().await.unwrap_err();
    assert!(error.to_string().contains("no_such_directive"), "{error}");
}
