//! Connections that change to WebSocket.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Client, Gateway};

/// The example of RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A WebSocket server that sends every message back.
struct Echo {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                connections.spawn(serve(stream));
            }
        });
        Self { address, task }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends with the connection.
async fn serve(mut stream: tokio::net::TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let asked =
        head.contains("\r\nupgrade: websocket\r\n") && head.contains("\r\nconnection: upgrade");
    assert!(asked && head.contains(&KEY.to_ascii_lowercase()), "{head}");
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.ok()?;
    loop {
        let mut start = [0; 2];
        stream.read_exact(&mut start).await.ok()?;
        let length = usize::from(start[1] & 0x7f);
        assert!(start[1] & 0x80 != 0 && length < 126, "masked and short");
        let mut rest = vec![0; 4 + length];
        stream.read_exact(&mut rest).await.ok()?;
        let (mask, text) = rest.split_at_mut(4);
        text.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        stream.write_all(&[start[0], start[1] & 0x7f]).await.ok()?;
        stream.write_all(text).await.ok()?;
    }
}

/// A text message, masked as a client must.
fn message(text: &str) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).expect("short")];
    frame.extend(mask);
    frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

async fn start(echo: &Echo, proxy: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
        [upstreams.app]
        servers = [{{ address = "{}" }}]
        proxy = {{ {proxy} }}
        [[routes]]
        path = "/"
        upstream = "app"
        "#,
        echo.address
    ))
    .await
}

async fn open(gateway: &Gateway) -> Client {
    let mut client = gateway.client().await;
    let head = format!(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    client.send(head).await;
    let (status, headers) = client.interim().await;
    assert_eq!(status, 101);
    for (name, value) in
        [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", ACCEPT)]
    {
        let found = headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        assert!(found.is_some_and(|(_, found)| found.eq_ignore_ascii_case(value)), "{headers:?}");
    }
    client
}

#[tokio::test]
async fn a_websocket_echoes_and_counts_as_in_flight_until_it_ends() {
    let echo = Echo::start().await;
    let gateway = start(&echo, "").await;
    let mut client = open(&gateway).await;
    for round in 0..100 {
        let text = format!("message {round}");
        client.send(message(&text)).await;
        let answer = client.exactly(2 + text.len()).await;
        assert_eq!((answer[0], &answer[2..]), (0x81, text.as_bytes()));
    }
    let stats = gateway.stats().await;
    let app = &stats["upstreams"]["app"];
    assert_eq!(app["servers"]["nodes"][0]["in_flight"], 1, "{stats:#}");
    assert_eq!(app["proxy"]["tunnels_open"], 1);
    // Nor is it forgotten when what is done with requests changes.
    gateway.edit("proxy = {  }", "proxy = { attempts = 2 }");
    assert!(gateway.reload().await["last_error"].is_null());
    let stats = gateway.stats().await;
    assert_eq!(stats["upstreams"]["app"]["proxy"]["tunnels_open"], 1, "{stats:#}");
    drop(client);
    // Its figures are not read at one moment.
    let node = |stats: &Value| stats["upstreams"]["app"]["servers"]["nodes"][0].clone();
    let ended = |stats: &Value| {
        stats["upstreams"]["app"]["proxy"]["tunnels_open"] == 0 && node(stats)["in_flight"] == 0
    };
    assert_eq!(node(&gateway.stats_when(ended).await)["succeeded_total"], 1);
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_is_closed() {
    let echo = Echo::start().await;
    let gateway = start(&echo, "tunnel_idle_timeout = \"2s\"").await;
    let mut client = open(&gateway).await;
    client.send(message("a")).await;
    assert_eq!(client.exactly(3).await.len(), 3);
    assert!(client.rest().await.unwrap_or_default().is_empty());
}

#[tokio::test]
async fn a_drain_waits_for_a_tunnel() {
    let echo = Echo::start().await;
    let gateway = start(&echo, "").await;
    let mut client = open(&gateway).await;
    let address = gateway.address;
    let ended = tokio::spawn(gateway.terminate());
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    client.send(message("still here")).await;
    assert_eq!(client.exactly(12).await[2..], *b"still here");
    drop(client);
    assert!(ended.await.expect("joined").success());
}
