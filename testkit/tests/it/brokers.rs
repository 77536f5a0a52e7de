//! NATS and RabbitMQ: they greet, they come back, they leave nothing behind.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use testkit::{Nats, RabbitMq};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

async fn connect(addr: SocketAddr) -> TcpStream {
    TcpStream::connect(addr).await.expect("a connection")
}

async fn is_refused(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).await.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// The server's first line, the answer to a request to JetStream, and to a PING.
async fn stream_request(addr: SocketAddr, verb: &str, request: &str) -> (String, String) {
    let mut stream = BufReader::new(connect(addr).await);
    let mut info = String::new();
    stream.read_line(&mut info).await.expect("the greeting");
    let ask = format!(
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB $JS.API.STREAM.{verb}.s answer {}\r\n\
         {request}\r\n",
        request.len()
    );
    stream.write_all(ask.as_bytes()).await.expect("a write");
    let mut answer = String::new();
    // The message has a line of its own before it.
    stream.read_line(&mut answer).await.expect("an answer");
    answer.clear();
    stream.read_line(&mut answer).await.expect("an answer");
    (info, answer)
}

#[tokio::test]
async fn nats_keeps_its_streams_over_a_restart() {
    let nats = Nats::start().await.unwrap();
    let url = nats.url();
    let stream = r#"{"name":"s","subjects":["subject"],"storage":"file"}"#;
    let (info, created) = stream_request(nats.addr(), "CREATE", stream).await;
    assert!(info.starts_with("INFO {") && info.contains(r#""jetstream":true"#), "{info}");
    assert!(created.contains(r#""did_create":true"#), "{created}");

    nats.kill().unwrap();
    assert!(is_refused(nats.addr()).await);
    nats.restart().await.unwrap();
    assert_eq!(nats.url(), url);
    let (_, found) = stream_request(nats.addr(), "INFO", "").await;
    assert!(found.contains(r#""subjects":["subject"]"#), "{found}");

    let addr = nats.addr();
    drop(nats);
    assert!(is_refused(addr).await);
}

#[tokio::test]
async fn rabbitmq_greets_before_and_after_a_restart_and_leaves_nothing() {
    let rabbit = RabbitMq::start().await.unwrap();
    let addr = rabbit.addr();
    assert_eq!(rabbit.url(), format!("amqp://guest:guest@{addr}/%2f"));
    greet(addr).await;

    let folder = folder_of(addr.port());
    // The broker, its helpers, and the port mapper.
    assert!(living_in(&folder) >= 3);
    rabbit.kill().unwrap();
    assert!(is_refused(addr).await);
    rabbit.restart().await.unwrap();
    greet(addr).await;

    drop(rabbit);
    assert!(is_refused(addr).await);
    assert_eq!(living_in(&folder), 0);
    assert!(!folder.exists());
}

/// The working folder of the broker that was told to listen on this port.
fn folder_of(port: u16) -> PathBuf {
    let wanted = format!("RABBITMQ_NODE_PORT={port}\0");
    let broker = processes().find(|process| {
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&wanted)
    });
    std::fs::read_link(broker.expect("a broker").join("cwd")).expect("its working folder")
}

/// How many processes work in this folder. A zombie works nowhere.
fn living_in(folder: &Path) -> usize {
    processes()
        .filter(|process| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == folder))
        .count()
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir("/proc").expect("a list of processes");
    entries.flatten().map(|entry| entry.path())
}

/// The answer to the protocol header is `connection.start`, which names the product.
async fn greet(addr: SocketAddr) {
    let mut stream = connect(addr).await;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.expect("a write");
    let mut answer = [0; 512];
    let count = stream.read(&mut answer).await.expect("an answer");
    let text = String::from_utf8_lossy(&answer[..count]);
    assert!(text.contains("RabbitMQ"), "{text}");
}
