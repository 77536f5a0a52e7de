//! An origin that is away, silent or wrong; settings that cannot be; a stop.

use std::process::Stdio;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;

use super::process::command;
use super::{Answer, Origin, Proxy, Reply};
use crate::process::output;

/// A problem document with the error of RFC 9209 that nobody stores.
fn check(answer: &Answer, status: u16, error: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"));
    assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
    let error = format!("cache-proxy; error={error}");
    assert_eq!(answer.header("proxy-status"), Some(error));
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(problem["status"], status);
    assert!(problem["detail"].is_string(), "{problem}");
}

#[tokio::test]
async fn an_origin_that_cannot_answer_is_a_502_and_a_silent_one_a_504() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.address, "--origin-timeout 2s").await;
    origin.script("/closes", [Reply::raw("").close()]);
    origin.script("/half", [Reply::raw("HTTP/1.1 200 OK\r\nContent-").close()]);
    origin.script("/nonsense", [Reply::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n").close()]);
    origin.script("/header", [Reply::raw("HTTP/1.1 200 OK\r\nno colon\r\n\r\n").close()]);
    origin.script("/silent", [Reply::raw("").silence()]);
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    origin.script("/switches", [Reply::raw(switch).close()]);
    let mut client = proxy.client().await;
    // All on one connection: an error page does not end it.
    for (path, status, error) in [
        ("/closes", 502, "connection_terminated"),
        ("/half", 502, "connection_terminated"),
        ("/nonsense", 502, "http_protocol_error"),
        ("/header", 502, "http_protocol_error"),
        ("/switches", 502, "http_protocol_error"),
        ("/silent", 504, "http_response_timeout"),
    ] {
        check(&client.get(path, &[]).await, status, error);
        assert_eq!(origin.seen(path).len(), 1, "{path} was asked again");
    }

    // Bound, so that it is nobody else's, and not listening.
    let socket = TcpSocket::new_v4().expect("socket");
    socket.bind("127.0.0.1:0".parse().expect("address")).expect("bind");
    let nobody = socket.local_addr().expect("address");
    let proxy = Proxy::start(nobody, "").await;
    let mut client = proxy.client().await;
    check(&client.get("/", &[]).await, 502, "connection_refused");
    check(&client.request("POST", "/", &[], "body").await, 502, "connection_refused");
    let answer = client.request("HEAD", "/", &[], "").await;
    assert_eq!((answer.status, answer.body.len()), (502, 0));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_ended_as_if_it_were_whole() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.address, "--origin-timeout 2s").await;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc";
    for (path, reply) in [
        ("/chunked", Reply::raw(chunked).close()),
        ("/length", Reply::raw(length).close()),
        ("/chunked-silent", Reply::raw(chunked).silence()),
        ("/length-silent", Reply::raw(length).silence()),
    ] {
        origin.script(path, [reply]);
        let mut client = proxy.client().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = client.head().await;
        assert_eq!(answer.status, 200, "{path}");
        let rest = client.rest().await.unwrap_or_default();
        match answer.header("content-length") {
            Some(_) => assert!(rest.len() < 6, "{path}: {rest:?}"),
            None => assert!(!rest.ends_with(b"0\r\n\r\n"), "{path}: {rest:?}"),
        }
    }
}

#[tokio::test]
async fn a_client_that_stops_in_its_own_body_is_told_so() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.address, "--origin-timeout 300ms").await;
    let mut client = proxy.client().await;
    client.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    let answer = client.answer(false).await;
    check(&answer, 408, "http_request_error");
    assert_eq!(answer.header("connection").as_deref(), Some("close"));
    assert!(client.rest().await.unwrap_or_default().is_empty());
}

#[tokio::test]
async fn a_stop_lets_the_open_request_finish() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.address, "--threads 2").await;
    let go = Arc::new(Semaphore::new(0));
    let head = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
    origin.script("/slow", [head.wait(&go).bytes("def")]);
    let mut client = proxy.client().await;
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.exactly(3).await, b"abc");
    proxy.terminate();
    // It takes no new ones once it stops.
    while tokio::net::TcpStream::connect(proxy.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    go.add_permits(1);
    assert_eq!(client.exactly(3).await, b"def");
    assert!(client.rest().await.unwrap_or_default().is_empty());
    assert!(proxy.ended().await.success());
}

#[tokio::test]
async fn an_operator_stops_it_by_a_request() {
    let origin = Origin::start().await;
    let mut proxy = Proxy::start(origin.address, "--threads 2 --admin 127.0.0.1:0").await;
    let (status, plan) = crate::draining::drain(proxy.admin().await, "").await;
    assert_eq!((status, plan["draining"].as_u64()), (202, Some(1)), "{plan}");
    assert!(proxy.ended().await.success());
}

#[tokio::test]
async fn settings_that_cannot_be_are_named_and_secrets_are_not() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = taken.local_addr().expect("address");
    let port = address.to_string();
    for (options, told) in [
        (&["--profile", "lax"][..], &["--profile", "lax", "safe", "rfc"][..]),
        (&["--origin-timeout", "soon"], &["--origin-timeout", "soon"]),
        (&["--memory-bytes", "0"], &["--memory-bytes", "0"]),
        (&["--listen", &port, "--purge-token", "hunter2"], &["--listen", &port]),
        (&["--purge-token", "hunter2"], &["--purge-token", "16"]),
        (&["--redis", "redis://:hunter2@127.0.0.1:1/"], &["--redis", "refused"]),
        (&["--redis", "postgres://:hunter2@127.0.0.1:1/"], &["--redis"]),
    ] {
        let mut command = command(address, options);
        command.stderr(Stdio::piped());
        let (status, out, err) = output(command).await;
        assert!(!status.success() && out.is_empty(), "{options:?}: {out}");
        for told in told {
            assert!(err.contains(told), "{options:?}: {told} is not in: {err}");
        }
        assert!(!err.contains("hunter2"), "{err}");
    }
}
