//! The proxy's faults, in front of a server that sends back what it gets.

use std::io::ErrorKind;
use std::net::SocketAddr;

use testkit::FaultProxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Duration, Instant, timeout};

/// Starts a server that echoes, and ends its side when the client ends.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    addr
}

async fn proxied() -> (FaultProxy, TcpStream) {
    let proxy = FaultProxy::start(echo().await).await.expect("a proxy");
    let client = TcpStream::connect(proxy.addr()).await.expect("a connection");
    (proxy, client)
}

async fn round_trip(client: &mut TcpStream) {
    client.write_all(b"hello").await.expect("a write");
    let mut answer = [0; 5];
    client.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"hello");
}

async fn read_error(client: &mut TcpStream) -> ErrorKind {
    client.read(&mut [0; 8]).await.expect_err("a reset").kind()
}

#[tokio::test]
async fn bytes_pass_and_both_ends_close() {
    let (proxy, mut client) = proxied().await;
    round_trip(&mut client).await;
    assert_eq!(proxy.accepted(), 1);
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn large_transfers_arrive_whole() {
    let (_proxy, client) = proxied().await;
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| i.to_le_bytes()[0] ^ 0x5a).collect();
    let (mut from, mut to) = client.into_split();
    let copy = sent.clone();
    let writing = tokio::spawn(async move {
        to.write_all(&copy).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    from.read_to_end(&mut received).await.unwrap();
    writing.await.unwrap();
    assert!(received == sent);
}

#[tokio::test]
async fn a_cut_resets_and_refuses_until_it_is_healed() {
    let (proxy, mut client) = proxied().await;
    round_trip(&mut client).await;
    for _ in 0..3 {
        proxy.cut();
        // Cutting twice is no different.
        proxy.cut();
        assert_eq!(read_error(&mut client).await, ErrorKind::ConnectionReset);
        let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        proxy.heal();
        client = TcpStream::connect(proxy.addr()).await.unwrap();
        round_trip(&mut client).await;
    }
    assert_eq!(proxy.accepted(), 4);
}

#[tokio::test]
async fn a_blackhole_swallows_and_healing_it_resets_who_lost_bytes() {
    let (proxy, mut victim) = proxied().await;
    round_trip(&mut victim).await;
    let mut idle = TcpStream::connect(proxy.addr()).await.unwrap();
    round_trip(&mut idle).await;

    proxy.blackhole(true);
    victim.write_all(b"lost").await.unwrap();
    assert!(timeout(Duration::from_millis(100), victim.read(&mut [0; 8])).await.is_err());
    // Other faults do not end it early.
    proxy.delay(Duration::ZERO);
    assert!(timeout(Duration::from_millis(100), victim.read(&mut [0; 8])).await.is_err());

    proxy.blackhole(false);
    assert_eq!(read_error(&mut victim).await, ErrorKind::ConnectionReset);
    round_trip(&mut idle).await;
}

#[tokio::test]
async fn a_delay_holds_back_both_directions() {
    let (proxy, mut client) = proxied().await;
    round_trip(&mut client).await;
    let delay = Duration::from_millis(60);
    proxy.delay(delay);
    let begun = Instant::now();
    round_trip(&mut client).await;
    // A lower bound only: the delay is there, however busy the machine is.
    assert!(begun.elapsed() >= 2 * delay);
}

#[tokio::test]
async fn a_half_close_ends_only_the_servers_side() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::start(listener.local_addr().unwrap()).await.unwrap();
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();

    proxy.half_close();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    client.write_all(b"still").await.unwrap();
    let mut heard = [0; 5];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still");

    // A connection made later is whole.
    let mut later = TcpStream::connect(proxy.addr()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    later.read_exact(&mut answer).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_down_resets_the_client() {
    // Bound, so that it is nobody else's, and not listening.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gone = socket.local_addr().unwrap();
    let proxy = FaultProxy::start(gone).await.unwrap();
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(read_error(&mut client).await, ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn dropping_the_proxy_resets_and_refuses() {
    let (proxy, mut client) = proxied().await;
    round_trip(&mut client).await;
    let addr = proxy.addr();
    drop(proxy);
    assert_eq!(read_error(&mut client).await, ErrorKind::ConnectionReset);
    assert!(TcpStream::connect(addr).await.is_err());
}
