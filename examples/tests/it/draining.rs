//! `POST /drain` ends each server as a signal does.

use std::net::SocketAddr;
use std::process::ExitStatus;

use escala_examples::load::wait_until_ready;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::{Enterprise, command};

const TOKEN: &str = "0123456789abcdef";

/// Status and body.
pub(crate) async fn drain(address: SocketAddr, token: &str) -> (u16, serde_json::Value) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let head = format!(
        "POST /drain HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {token}\r\n\
         content-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let status = answer.split(' ').nth(1).expect("a status line").parse().expect("a number");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// Begins and ends by itself.
async fn drained(server: Enterprise) -> ExitStatus {
    let (status, plan) = drain(server.address, TOKEN).await;
    assert_eq!((status, plan["draining"].as_u64()), (202, Some(1)), "{plan}");
    server.ended().await
}

#[tokio::test]
async fn an_administrator_drains_enterprise_and_nobody_else_does() {
    let folder = tempfile::tempdir().expect("folder");
    let mut command = command(folder.path());
    command.env("ADMIN_TOKEN", TOKEN);
    let server = Enterprise::start(command).await;
    wait_until_ready(server.address).await.expect("ready");
    for wrong in ["", "0123456789abcdeF"] {
        assert_eq!(drain(server.address, wrong).await.0, 401);
    }
    assert_eq!(server.get("/readyz").await.0, 200);
    assert!(drained(server).await.success());
}

#[tokio::test]
async fn without_administrators_nobody_drains_enterprise() {
    let folder = tempfile::tempdir().expect("folder");
    let server = Enterprise::start(command(folder.path())).await;
    assert_eq!(drain(server.address, "").await.0, 401);
    assert_eq!(drain(server.address, TOKEN).await.0, 401);
    assert!(server.terminate().await.success());
}
