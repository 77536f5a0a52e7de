//! Which server gets a request, and what it is told.

use std::sync::Arc;
use std::time::Duration;

use escala_examples::load;
use serde_json::Value;
use testkit::Nginx;
use tokio::sync::Semaphore;

use super::{Gateway, Origin, Reply, Upstream};

/// What the upstream got, as it says.
fn seen(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("JSON")
}

fn header<'a>(seen: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = seen["headers"].as_array().expect("headers");
    let named = headers.iter().filter(|header| header[0] == name);
    named.map(|header| header[1].as_str().expect("text")).collect()
}

#[tokio::test]
async fn a_server_sees_who_asks_and_nothing_of_the_clients_connection() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start(&format!(
        r#"
        [upstreams.app]
        servers = [{{ address = "{}" }}]
        proxy = {{ forwarded = true, via = "gate", explain = "x-escala-node" }}
        [[routes]]
        path = "/"
        upstream = "app"
        "#,
        upstream.address
    ))
    .await;
    let headers = [
        ("Connection", "close, x-private"),
        ("X-Private", "1"),
        ("Keep-Alive", "timeout=1"),
        ("TE", "trailers"),
        ("Upgrade", "h2c"),
        ("X-Forwarded-For", "198.51.100.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Real-IP", "198.51.100.1"),
        ("Host", "shop.example"),
    ];
    let answer = gateway.client().await.get("/a%20b?c=d", &headers).await;
    assert_eq!(answer.status, 200);
    let seen = seen(&answer.body);
    assert_eq!(seen["target"], "/a%20b?c=d");
    for (name, values) in [
        ("connection", &[][..]),
        ("x-private", &[]),
        ("keep-alive", &[]),
        ("te", &[]),
        ("upgrade", &[]),
        ("x-real-ip", &[]),
        ("host", &["shop.example"]),
        ("x-forwarded-for", &["127.0.0.1"]),
        ("x-forwarded-host", &["shop.example"]),
        ("x-forwarded-proto", &["http"]),
        ("forwarded", &["for=127.0.0.1;host=\"shop.example\";proto=http"]),
        ("via", &["1.1 gate"]),
    ] {
        assert_eq!(header(&seen, name), values, "{name}: {seen:#}");
    }
    let node = format!("{}; reason=only_node", upstream.address);
    assert_eq!(answer.header("x-escala-node"), Some(node));
    assert_eq!(answer.header("via").as_deref(), Some("1.1 gate"));
    assert_eq!(answer.header("x-content-type-options").as_deref(), Some("nosniff"));
    assert_eq!(answer.header("x-frame-options").as_deref(), Some("SAMEORIGIN"));
}

#[tokio::test]
async fn a_known_proxy_is_believed_and_the_host_can_be_the_servers_own() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start_with(
        "trusted_proxies = [\"127.0.0.0/8\"]",
        "",
        &format!(
            r#"
            [upstreams.app]
            servers = [{{ address = "{}" }}]
            proxy = {{ host = "upstream" }}
            [[routes]]
            path = "/"
            upstream = "app"
            "#,
            upstream.address
        ),
    )
    .await;
    let headers = [("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-Proto", "https")];
    let answer = gateway.client().await.get("/", &headers).await;
    let seen = seen(&answer.body);
    assert_eq!(header(&seen, "x-forwarded-for"), ["198.51.100.1, 127.0.0.1"]);
    assert_eq!(header(&seen, "x-forwarded-proto"), ["https"]);
    assert_eq!(header(&seen, "x-forwarded-host"), ["origin.test"]);
    assert_eq!(header(&seen, "host"), [upstream.address.to_string()]);
}

#[tokio::test]
async fn least_conn_counts_a_request_until_the_end_of_its_body() {
    let (slow, quick) = (Origin::start().await, Upstream::start("quick").await);
    let gateway = Gateway::start(&format!(
        r#"
        [upstreams.app]
        strategy = "least_conn"
        servers = [{{ address = "{}" }}, {{ address = "{}" }}]
        [[routes]]
        path = "/"
        upstream = "app"
        "#,
        slow.address, quick.address
    ))
    .await;
    let go = Arc::new(Semaphore::new(0));
    let head = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
    slow.script("/a", [head.wait(&go).bytes("def")]);
    let mut waiting = gateway.client().await;
    // Some first request goes to the slow one; its head comes at once, its body does not.
    loop {
        waiting.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = waiting.head().await;
        if head.header("content-length").as_deref() == Some("6") {
            break;
        }
        let length = head.header("content-length").expect("length").parse().expect("number");
        let _body = waiting.exactly(length).await;
    }
    assert_eq!(waiting.exactly(3).await, b"abc");
    let mut client = gateway.client().await;
    let before = quick.requests();
    for _ in 0..20 {
        assert_eq!(client.get("/a", &[]).await.status, 200);
    }
    assert_eq!(quick.requests() - before, 20, "the slow one has a request in flight");
    go.add_permits(1);
    assert_eq!(waiting.exactly(3).await, b"def");
    let idle = |stats: &Value| {
        let servers = stats["upstreams"]["app"]["servers"]["nodes"].as_array().expect("nodes");
        servers.iter().all(|server| server["in_flight"] == 0)
    };
    gateway.stats_when(idle).await;
}

#[tokio::test]
async fn weights_are_kept_and_a_backup_waits_for_the_last_to_fail() {
    let (heavy, light) = (Upstream::start("heavy").await, Upstream::start("light").await);
    let backup = Upstream::start("backup").await;
    let gateway = Gateway::start(&format!(
        r#"
        [upstreams.app]
        strategy = "round_robin"
        max_fails = 1
        servers = [
            {{ address = "{}", weight = 3 }}, {{ address = "{}" }},
            {{ address = "{}", backup = true }},
        ]
        [[routes]]
        path = "/"
        upstream = "app"
        "#,
        heavy.address, light.address, backup.address
    ))
    .await;
    let mut client = gateway.client().await;
    for _ in 0..40 {
        assert_eq!(client.get("/", &[]).await.status, 200);
    }
    assert_eq!((heavy.requests(), light.requests(), backup.requests()), (30, 10, 0));
    drop((heavy, light));
    for _ in 0..20 {
        assert_eq!(client.get("/", &[]).await.status, 200);
    }
    assert_eq!(backup.requests(), 20);
}

#[tokio::test]
async fn a_server_that_fails_is_out_for_its_time_and_then_tried_again() {
    let (dead, alive) = (Origin::start().await, Upstream::start("alive").await);
    let gateway = Gateway::start(&format!(
        r#"
        [upstreams.app]
        strategy = "round_robin"
        max_fails = 2
        fail_timeout = "4s"
        servers = [{{ address = "{}" }}, {{ address = "{}" }}]
        [[routes]]
        path = "/"
        upstream = "app"
        "#,
        dead.address, alive.address
    ))
    .await;
    dead.script("/", (0..3).map(|_| Reply::raw("").close()));
    let mut client = gateway.client().await;
    let healthy = |stats: &Value| {
        let servers = stats["upstreams"]["app"]["servers"]["nodes"].as_array().expect("nodes");
        servers.iter().filter(|server| server["healthy"] == true).count()
    };
    for _ in 0..20 {
        assert_eq!(client.get("/", &[]).await.status, 200, "the other one answers");
    }
    assert_eq!(dead.seen("/").len(), 2, "two failures took it out");
    let stats = gateway.stats().await;
    assert_eq!(healthy(&stats), 1, "{stats:#}");
    assert_eq!(stats["upstreams"]["app"]["proxy"]["retries_total"], 2);
    // One request tries it when its time is up, fails, and is answered by the other one all the same.
    let pause = std::time::Duration::from_millis(5);
    while dead.seen("/").len() < 3 {
        assert_eq!(client.get("/", &[]).await.status, 200);
        tokio::time::sleep(pause).await;
    }
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    dead.script("/", (0..100_000).map(|_| Reply::raw(ok)));
    while healthy(&gateway.stats().await) < 2 {
        assert_eq!(client.get("/", &[]).await.status, 200);
        tokio::time::sleep(pause).await;
    }
}

#[tokio::test]
async fn no_idempotent_request_fails_while_a_server_is_killed_and_started_again() {
    let server = || {
        Nginx::builder().http("keepalive_requests 1000000;").server("location / { return 200 ok; }")
    };
    let (one, two) =
        (server().start().await.expect("nginx"), server().start().await.expect("nginx"));
    let gateway = Gateway::start(&format!(
        r#"
        [upstreams.app]
        fail_timeout = "100ms"
        servers = [{{ address = "{}" }}, {{ address = "{}" }}]
        [[routes]]
        path = "/"
        upstream = "app"
        "#,
        one.addr(),
        two.addr()
    ))
    .await;
    let load = tokio::spawn(load::closed_loop(gateway.address, "/", 32, Duration::from_secs(3)));
    let restarts = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            one.kill().expect("killed");
            tokio::time::sleep(Duration::from_millis(300)).await;
            one.restart().await.expect("restarted");
        }
    };
    restarts.await;
    // The load fails on the first answer that is no success.
    let answers = load.await.expect("joined").expect("no request failed").count;
    let stats = gateway.stats().await;
    let proxy = &stats["upstreams"]["app"]["proxy"];
    assert!(answers > 500, "{answers}");
    assert!(proxy["retries_total"].as_u64() > Some(0), "no request was in the way: {stats:#}");
}
