//! Bodies stream both ways, no faster than they are taken.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::process::PATIENCE;
use super::{Origin, Proxy, Reply};

/// More than all buffers on the way hold.
const LONG: usize = 64 * 1024 * 1024;

#[tokio::test]
async fn a_part_arrives_before_the_next_one_is_sent() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.address, "").await;
    let go = Arc::new(Semaphore::new(0));
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
    let reply = Reply::raw(head).wait(&go).bytes("3\r\none\r\n").wait(&go);
    origin.script("/", [reply.bytes("3\r\ntwo\r\n0\r\nX-Sum: 6\r\n\r\n")]);

    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n").await;
    assert_eq!(client.head().await.status, 200);
    go.add_permits(1);
    assert_eq!(client.chunk().await, Ok(Some(b"one".to_vec())));
    go.add_permits(1);
    assert_eq!(client.chunk().await, Ok(Some(b"two".to_vec())));
    assert_eq!(client.chunk().await, Ok(None));
    assert_eq!(client.fields().await, [("x-sum".to_owned(), "6".to_owned())]);
}

#[tokio::test]
async fn an_upload_arrives_as_it_is_sent_and_waits_for_its_100() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let proxy = Proxy::start(listener.local_addr().expect("address"), "").await;
    let mut client = proxy.client().await;
    let head = "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
    client.send(head).await;
    let (mut stream, _) =
        timeout(PATIENCE, listener.accept()).await.expect("in time").expect("one");
    let mut received = String::new();
    // The client keeps its body until it is told to send it.
    let mut told = client.exactly(b"HTTP/1.1 100 Continue\r\n\r\n".len()).await;
    assert_eq!(told.split_off(9), b"100 Continue\r\n\r\n");
    for part in ["first", "second"] {
        client.send(format!("{:x}\r\n{part}\r\n", part.len())).await;
        while !received.contains(part) {
            let mut bytes = [0; 1024];
            let read = timeout(PATIENCE, stream.read(&mut bytes)).await.expect("in time");
            received.push_str(std::str::from_utf8(&bytes[..read.expect("read")]).expect("utf-8"));
        }
    }
    assert!(received.to_lowercase().contains("transfer-encoding: chunked\r\n"), "{received}");
    assert!(!received.to_lowercase().contains("expect:"), "{received}");
    client.send("0\r\n\r\n").await;
    stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await.expect("reply");
    assert_eq!(client.answer(false).await.status, 201);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_origin() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let proxy = Proxy::start(listener.local_addr().expect("address"), "").await;
    let mut client = proxy.client().await;
    client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut stream, _) =
        timeout(PATIENCE, listener.accept()).await.expect("in time").expect("one");
    received_head(&mut stream).await;
    let head =
        format!("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: {LONG}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("head");
    let block = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    // It takes some, then no more for as long as the client takes nothing.
    while sent < LONG {
        match timeout(Duration::from_millis(500), stream.write(&block)).await {
            Ok(written) => sent += written.expect("write"),
            Err(_) => break,
        }
    }
    assert!(sent < LONG, "the proxy took all of it");
    assert_eq!(client.head().await.status, 200);
    let (body, ()) = tokio::join!(client.exactly(LONG), async {
        while sent < LONG {
            let rest = &block[..block.len().min(LONG - sent)];
            sent += timeout(PATIENCE, stream.write(rest)).await.expect("in time").expect("write");
        }
    });
    assert!(body.iter().all(|&byte| byte == b'x'));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_an_upload_at_the_origin() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let proxy = Proxy::start(listener.local_addr().expect("address"), "").await;
    let mut client = proxy.client().await;
    client.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    let (mut stream, _) =
        timeout(PATIENCE, listener.accept()).await.expect("in time").expect("one");
    let mut received = Vec::new();
    while !received.ends_with(b"half") {
        let read = timeout(PATIENCE, stream.read_buf(&mut received)).await.expect("in time");
        assert_ne!(read.expect("read"), 0);
    }
    drop(client);
    // Not ended as if it were whole: the connection is.
    let rest = timeout(PATIENCE, stream.read_to_end(&mut received)).await.expect("in time");
    assert!(matches!(rest, Ok(0) | Err(_)), "{rest:?}");
}

async fn received_head(stream: &mut TcpStream) {
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\n") {
        let read = timeout(PATIENCE, stream.read_buf(&mut received)).await.expect("in time");
        assert_ne!(read.expect("read"), 0);
    }
}
