//! Servers that die, clients that stall, and the end of the gateway itself.

use std::sync::Arc;

use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use super::{Gateway, Origin, Reply, Upstream};

async fn start(server: &str, origin: &Origin) -> Gateway {
    start_with(server, origin, ("2s", "2s")).await
}

/// With the patience for servers, and that for clients.
async fn start_with(server: &str, origin: &Origin, (upstream, client): (&str, &str)) -> Gateway {
    let rest = format!(
        r#"
        [upstreams.app]
        servers = [{{ address = "{}" }}]
        max_fails = 0
        connection = {{ response_timeout = "{upstream}", body_idle_timeout = "{upstream}" }}
        proxy = {{ request_idle_timeout = "{client}", attempts = 1 }}
        [[routes]]
        path = "/"
        upstream = "app"
        "#,
        origin.address
    );
    Gateway::start_with("", server, &rest).await
}

fn node(stats: &Value) -> &Value {
    &stats["upstreams"]["app"]["servers"]["nodes"][0]
}

/// The account of the one server, once nothing is in flight.
async fn account(gateway: &Gateway) -> (u64, u64, u64) {
    let stats = gateway.stats_when(|stats| node(stats)["in_flight"] == 0).await;
    let figure = |name: &str| node(&stats)[name].as_u64().expect("a figure");
    assert_eq!(
        figure("started_total"),
        figure("succeeded_total") + figure("failed_total") + figure("cancelled_total")
    );
    (figure("succeeded_total"), figure("failed_total"), figure("cancelled_total"))
}

#[tokio::test]
async fn what_a_server_does_wrong_is_told_and_counted_as_its_failure() {
    let origin = Origin::start().await;
    let gateway = start("", &origin).await;
    origin.script("/closes", [Reply::raw("").close()]);
    origin.script("/half", [Reply::raw("HTTP/1.1 200 OK\r\nContent-").close()]);
    origin.script("/nonsense", [Reply::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n").close()]);
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    origin.script("/switches", [Reply::raw(switch).close()]);
    origin.script("/silent", [Reply::raw("").silence()]);
    let mut client = gateway.client().await;
    for (path, status) in
        [("/closes", 502), ("/half", 502), ("/nonsense", 502), ("/switches", 502), ("/silent", 504)]
    {
        let answer = client.get(path, &[]).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"));
        let problem: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(problem["status"], status);
    }
    assert_eq!(account(&gateway).await, (0, 5, 0));
}

#[tokio::test]
async fn a_server_killed_within_a_body_leaves_no_body_that_looks_whole() {
    let origin = Origin::start().await;
    let gateway = start("", &origin).await;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc";
    for (path, reply) in [
        ("/chunked", Reply::raw(chunked).close()),
        ("/length", Reply::raw(length).close()),
        ("/chunked-silent", Reply::raw(chunked).silence()),
        ("/length-silent", Reply::raw(length).silence()),
    ] {
        origin.script(path, [reply]);
        let mut client = gateway.client().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = client.head().await;
        assert_eq!(answer.status, 200, "{path}");
        let rest = client.rest().await.unwrap_or_default();
        match answer.header("content-length") {
            Some(_) => assert!(rest.len() < 6, "{path}: {rest:?}"),
            None => assert!(!rest.ends_with(b"0\r\n\r\n"), "{path}: {rest:?}"),
        }
    }
    // Silence may be what a stream has to say; that it ended says nothing of the server.
    assert_eq!(account(&gateway).await, (2, 2, 0));
}

#[tokio::test]
async fn a_client_that_leaves_or_stalls_is_no_failure_of_the_server() {
    let origin = Origin::start().await;
    let gateway = start_with("", &origin, ("1h", "500ms")).await;
    origin.script("/silent", [Reply::raw("").silence()]);
    let mut leaves = gateway.client().await;
    leaves.send("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n").await;
    gateway.stats_when(|stats| node(stats)["in_flight"] == 1).await;
    drop(leaves);
    assert_eq!(account(&gateway).await, (0, 0, 1));
    let mut stalls = gateway.client().await;
    stalls.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    let answer = stalls.answer(false).await;
    assert_eq!((answer.status, answer.header("connection").as_deref()), (408, Some("close")));
    assert_eq!(account(&gateway).await, (0, 0, 2));
}

/// Whoever has the least patience with it: the proxy, or the server that reads it.
#[tokio::test]
async fn a_client_that_stalls_has_its_own_time_and_is_told_so() {
    let origin = Origin::start().await;
    for (server, proxy) in [("", "300ms"), ("body_read_timeout = \"300ms\"", "1h")] {
        let gateway = start_with(server, &origin, ("1h", proxy)).await;
        let mut stalls = gateway.client().await;
        stalls.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
        let answer = stalls.answer(false).await;
        assert_eq!((answer.status, answer.header("connection").as_deref()), (408, Some("close")));
        assert_eq!(account(&gateway).await, (0, 0, 1));
    }
}

#[tokio::test]
async fn a_slow_loris_is_shown_out_while_others_are_served() {
    let upstream = Upstream::start("a").await;
    let rest = format!(
        r#"
        [upstreams.app]
        servers = [{{ address = "{}" }}]
        [[routes]]
        path = "/"
        upstream = "app"
        "#,
        upstream.address
    );
    let gateway = Gateway::start_with("", "header_read_timeout = \"500ms\"", &rest).await;
    let mut lorises = Vec::new();
    for _ in 0..50 {
        let mut loris = gateway.client().await;
        loris.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
        lorises.push(loris);
    }
    let mut client = gateway.client().await;
    for step in 0..5 {
        assert_eq!(client.get("/", &[]).await.status, 200);
        for loris in &mut lorises {
            // A byte now and then does not buy time.
            let _ = loris.try_send(format!("X-{step}: 1\r\n")).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for loris in lorises {
        let mut loris = loris;
        assert!(loris.rest().await.unwrap_or_default().is_empty(), "no answer, but the end");
    }
    assert_eq!(upstream.requests(), 5);
    assert_eq!(client.get("/", &[]).await.status, 200);
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let origin = Origin::start().await;
    let gateway = start("", &origin).await;
    let long = "a".repeat(40 * 1024);
    let answer = gateway.client().await.get("/", &[("X-Long", &long)]).await;
    assert_eq!(answer.status, 431);
    let many: Vec<String> = (0..101).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(gateway.client().await.get("/", &many).await.status, 431);
    assert!(origin.seen("/").is_empty());
}

#[tokio::test]
async fn a_request_that_was_not_sent_goes_elsewhere_whatever_it_is() {
    // Bound, so that it is nobody else's, and not listening.
    let socket = TcpSocket::new_v4().expect("socket");
    socket.bind("127.0.0.1:0".parse().expect("address")).expect("bind");
    let nobody = socket.local_addr().expect("address");
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start(&format!(
        r#"
        [upstreams.app]
        strategy = "round_robin"
        max_fails = 0
        servers = [{{ address = "{nobody}" }}, {{ address = "{}" }}]
        [upstreams.gone]
        servers = [{{ address = "{nobody}" }}]
        [[routes]]
        path = "/"
        upstream = "app"
        [[routes]]
        path = "/gone"
        upstream = "gone"
        "#,
        upstream.address
    ))
    .await;
    let mut client = gateway.client().await;
    for round in 0..10 {
        let answer = client.request("POST", "/", &[], "the body").await;
        assert_eq!(answer.status, 200, "{round}");
        let seen: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(seen["body"], "the body");
    }
    assert_eq!(upstream.requests(), 10);
    assert_eq!(client.get("/gone", &[]).await.status, 502);
    assert_eq!(client.get("/none", &[]).await.status, 200);
}

#[tokio::test]
async fn a_post_that_was_sent_is_not_sent_again() {
    let (one, two) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start(&format!(
        r#"
        [upstreams.app]
        strategy = "round_robin"
        servers = [{{ address = "{}" }}, {{ address = "{}" }}]
        [[routes]]
        path = "/"
        upstream = "app"
        "#,
        one.address, two.address
    ))
    .await;
    for origin in [&one, &two] {
        origin.script("/pay", [Reply::raw("").close()]);
        origin.script("/put", [Reply::raw("").close()]);
    }
    let mut client = gateway.client().await;
    assert_eq!(client.request("POST", "/pay", &[], "10").await.status, 502);
    assert_eq!(one.seen("/pay").len() + two.seen("/pay").len(), 1);
    // A PUT is: to the other one, and no further than there are scripts for.
    one.script("/put", [Reply::raw("HTTP/1.1 204 No Content\r\n\r\n")]);
    two.script("/put", [Reply::raw("HTTP/1.1 204 No Content\r\n\r\n")]);
    assert_eq!(client.request("PUT", "/put", &[], "10").await.status, 204);
    let bodies: Vec<Vec<u8>> =
        one.seen("/put").into_iter().chain(two.seen("/put")).map(|seen| seen.body).collect();
    assert_eq!(bodies, [b"10", b"10", b"10"]);
}

#[tokio::test]
async fn a_stop_lets_the_open_request_finish() {
    let origin = Origin::start().await;
    // The stop may take a while on a busy machine, in which the body is silent.
    let gateway = start_with("", &origin, ("30s", "30s")).await;
    let go = Arc::new(Semaphore::new(0));
    let head = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
    origin.script("/slow", [head.wait(&go).bytes("def")]);
    let mut client = gateway.client().await;
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.exactly(3).await, b"abc");
    let address = gateway.address;
    let ended = tokio::spawn(gateway.terminate());
    // It takes no new ones once it stops.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    go.add_permits(1);
    assert_eq!(client.exactly(3).await, b"def");
    assert!(client.rest().await.unwrap_or_default().is_empty());
    assert!(ended.await.expect("joined").success());
}

#[tokio::test]
async fn an_operator_stops_it_by_a_request() {
    let origin = Origin::start().await;
    let gateway = start("", &origin).await;
    let (status, plan) = crate::draining::drain(gateway.management, "").await;
    assert_eq!((status, plan["draining"].as_u64()), (202, Some(1)), "{plan}");
    assert!(gateway.ended().await.success());
}
