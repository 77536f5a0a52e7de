//! Large bodies, both ways, in little memory.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Gateway, Origin, Reply, Upstream};

const SIZE: u64 = 1 << 30;
/// A body held back would be as large as itself; buffers of two connections are not.
const MEMORY: u64 = 16 << 20;

async fn start(address: SocketAddr, most: u64) -> Gateway {
    Gateway::start(&format!(
        r#"
        [upstreams.app]
        servers = [{{ address = "{address}" }}]
        [[routes]]
        path = "/"
        upstream = "app"
        max_body_bytes = {most}
        "#
    ))
    .await
}

/// The rest of a response, head included; its length, and the last of it.
async fn drain(stream: &mut TcpStream) -> (u64, String) {
    let mut buffer = vec![0; 1 << 20];
    let (mut length, mut kept) = (0, 0);
    loop {
        let read = stream.read(&mut buffer).await.expect("read");
        if read == 0 {
            return (length, String::from_utf8_lossy(&buffer[..kept]).into_owned());
        }
        (length, kept) = (length + read as u64, read);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_streams_in_little_memory() {
    let upstream = Upstream::start("a").await;
    let gateway = start(upstream.address, 0).await;
    assert_eq!(gateway.client().await.get("/", &[]).await.status, 200);
    let before = gateway.peak_memory();
    let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
    let head = format!("GET /zeros/{SIZE} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("send");
    let (length, _) = drain(&mut stream).await;
    assert!(length > SIZE, "{length}");
    let grown = gateway.peak_memory() - before;
    assert!(grown < MEMORY, "{grown} bytes for {SIZE}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_streams_in_little_memory() {
    let upstream = Upstream::start("a").await;
    let gateway = start(upstream.address, SIZE).await;
    assert_eq!(gateway.client().await.get("/", &[]).await.status, 200);
    let before = gateway.peak_memory();
    let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
    let head = format!(
        "POST /count HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("send");
    let chunk = vec![0; 1 << 20];
    for _ in 0..SIZE >> 20 {
        stream.write_all(&chunk).await.expect("send");
    }
    let (_, last) = drain(&mut stream).await;
    assert!(last.ends_with(&SIZE.to_string()), "{last}");
    let grown = gateway.peak_memory() - before;
    assert!(grown < MEMORY, "{grown} bytes for {SIZE}");
}

/// Nothing is read ahead of a client that does not read: the upstream is held back, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_the_upstream_back() {
    let upstream = Upstream::start("a").await;
    let gateway = start(upstream.address, 0).await;
    assert_eq!(gateway.client().await.get("/", &[]).await.status, 200);
    let before = gateway.peak_memory();
    let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
    let head = format!("GET /zeros/{SIZE} HTTP/1.1\r\nHost: a\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("send");
    let mut first = [0; 1024];
    stream.read_exact(&mut first).await.expect("read");
    // Other requests go on meanwhile; enough of them for a reader ahead to have run away.
    let mut client = gateway.client().await;
    for _ in 0..500 {
        assert_eq!(client.get("/", &[]).await.status, 200);
    }
    let grown = gateway.peak_memory() - before;
    assert!(grown < MEMORY, "{grown} bytes");
    drop(stream);
    let cancelled = |stats: &serde_json::Value| {
        stats["upstreams"]["app"]["servers"]["nodes"][0]["cancelled_total"] == 1
    };
    gateway.stats_when(cancelled).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_or_while_it_is_sent() {
    let upstream = Upstream::start("a").await;
    let gateway = start(upstream.address, 10).await;
    let answer = gateway.client().await.request("POST", "/", &[], "0123456789").await;
    assert_eq!(answer.status, 200);
    let answer = gateway.client().await.request("POST", "/", &[], "0123456789a").await;
    assert_eq!(answer.status, 413);
    assert_eq!(upstream.requests(), 1, "it was not even begun");
    let mut client = gateway.client().await;
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{chunked}8\r\n01234567\r\n8\r\n01234567\r\n0\r\n\r\n")).await;
    assert_eq!(client.answer(false).await.status, 413);
}

#[tokio::test]
async fn where_no_body_is_allowed_one_that_comes_late_is_not_taken_for_none() {
    let origin = Origin::start().await;
    let gateway = start(origin.address, 0).await;
    origin.script("/late", [Reply::raw("").silence()]);
    let mut client = gateway.client().await;
    client.send("POST /late HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let pending = |stats: &serde_json::Value| {
        stats["upstreams"]["app"]["servers"]["nodes"][0]["in_flight"] == 1
    };
    gateway.stats_when(pending).await;
    client.send("3\r\nabc\r\n0\r\n\r\n").await;
    assert_eq!(client.answer(false).await.status, 413);
    assert!(origin.seen("/late").is_empty(), "a request that it could take for a whole one");
}
