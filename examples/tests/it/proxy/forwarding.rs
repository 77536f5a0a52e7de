//! What reaches the origin and what comes back, field by field.

use super::{Client, Origin, Proxy, Reply};

#[tokio::test]
async fn what_is_meant_for_one_connection_ends_at_the_proxy_both_ways() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.address, "").await;
    let reply = Reply::new(200)
        .header("Connection", "x-hop, keep-alive")
        .header("X-Hop", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("TE", "trailers")
        .header("Upgrade", "h2c")
        .header("X-End", "1")
        .body("fine");
    origin.script("/a?b=c", [reply]);

    let sent = [
        ("Host", "shop.example:81"),
        ("Connection", "X-Hop, close, Host"),
        ("Connection", "keep-alive"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers, gzip"),
        ("Upgrade", "websocket"),
        ("X-End", "1"),
        ("Via", "1.0 front"),
        ("X-Forwarded-For", "192.0.2.9"),
        ("X-Forwarded-Host", "evil.example"),
        ("Forwarded", "for=192.0.2.9"),
    ];
    let answer = proxy.client().await.get("/a?b=c", &sent).await;

    let seen = &origin.seen("/a?b=c")[0];
    for (name, value) in [
        ("host", Some("shop.example:81")),
        ("connection", None),
        ("x-hop", None),
        ("keep-alive", None),
        ("proxy-connection", None),
        ("te", None),
        ("upgrade", None),
        ("x-end", Some("1")),
        ("via", Some("1.0 front, 1.1 cache-proxy")),
        ("x-forwarded-for", Some("192.0.2.9, 127.0.0.1")),
        ("x-forwarded-host", Some("shop.example:81")),
        ("x-forwarded-proto", Some("http")),
        ("forwarded", Some("for=192.0.2.9")),
    ] {
        assert_eq!(seen.header(name).as_deref(), value, "{name}");
    }
    assert_eq!((answer.status, answer.text()), (200, "fine"));
    // The client has asked for the close.
    for (name, value) in [
        ("connection", Some("close")),
        ("x-hop", None),
        ("keep-alive", None),
        ("proxy-connection", None),
        ("te", None),
        ("upgrade", None),
        ("x-end", Some("1")),
        ("via", Some("1.1 cache-proxy")),
        ("content-length", Some("4")),
    ] {
        assert_eq!(answer.header(name).as_deref(), value, "{name}");
    }
}

#[tokio::test]
async fn both_sides_keep_their_connections() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.address, "").await;
    let reply = || Reply::new(200).header("Cache-Control", "no-store").body("x");
    origin.script("/", std::iter::repeat_with(reply).take(20));
    let mut client = proxy.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/", &[]).await.status, 200);
    }
    let seen = origin.seen("/");
    assert_eq!(seen.len(), 20);
    // A few at the most: a connection may not be back in the pool when the next request comes.
    let connections = seen.iter().map(|seen| seen.connection).max().expect("seen") + 1;
    assert!(connections < 5, "{connections} connections for 20 requests");
}

#[tokio::test]
async fn a_request_has_one_target_or_goes_no_further() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.address, "").await;
    let ok = || Reply::new(200).body("x");
    origin.script("/p?q", [ok()]);
    origin.script("*", [ok()]);
    let mut client = proxy.client().await;
    client.send("GET http://other.example/p?q HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer(false).await.status, 200);
    assert_eq!(origin.seen("/p?q")[0].header("host").as_deref(), Some("other.example"));
    assert_eq!(client.request("OPTIONS", "*", &[], "").await.status, 200);
    let hop = client.request("OPTIONS", "*", &[("Max-Forwards", "0")], "").await;
    assert_eq!((hop.status, origin.seen("*").len()), (204, 1));

    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
    ] {
        let mut client = proxy.client().await;
        client.send(request).await;
        let answer = client.answer(false).await;
        assert_eq!(answer.status, status, "{request}");
        if answer.status == 501 {
            let problem = answer.header("content-type");
            assert_eq!(problem.as_deref(), Some("application/problem+json"));
            assert_eq!(answer.header("proxy-status").as_deref(), Some("cache-proxy"));
        }
    }
    assert!(origin.seen("/").is_empty());
}

#[tokio::test]
async fn nothing_is_smuggled_in_a_body_with_two_ends() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.address, "").await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let refused = [
        format!(
            "POST /r HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello{smuggled}"
        ),
        format!("POST /r HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello{smuggled}"),
        format!("POST /r HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n{smuggled}"),
        format!(
            "POST /r HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n{smuggled}"
        ),
        format!(
            "POST /r HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!(
            "POST /r HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!("POST /r HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello{smuggled}"),
    ];
    for request in &refused {
        let mut client = proxy.client().await;
        client.send(request).await;
        assert_eq!(client.answer(false).await.status, 400, "{request}");
        assert!(client.rest().await.unwrap_or_default().is_empty(), "{request}");
    }

    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
    ] {
        let mut client = proxy.client().await;
        let body = "0\r\n\r\n";
        client
            .send(format!("POST /r HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}{smuggled}"))
            .await;
        assert_eq!(client.answer(false).await.status, 400, "{framing}");
        assert!(client.rest().await.unwrap_or_default().is_empty(), "{framing}");
    }
    assert!(origin.seen("/r").is_empty());
    assert!(origin.seen("/smuggled").is_empty());
}

#[tokio::test]
async fn a_response_with_two_ends_has_one_behind_the_proxy() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.address, "").await;
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let lengths = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab";
    origin.script("/both", [Reply::raw(both)]);
    origin.script("/lengths", [Reply::raw(lengths).close()]);
    // The client checks that there is one framing.
    let answer = proxy.get("/both").await;
    assert_eq!((answer.status, answer.text()), (200, "abc"));
    assert_eq!(proxy.get("/lengths").await.status, 502);
}

#[tokio::test]
async fn a_response_without_a_body_keeps_its_framing() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.address, "").await;
    let raw =
        |head: &str| Reply::raw(&format!("HTTP/1.1 {head}\r\nCache-Control: no-store\r\n\r\n"));
    origin.script("/long", [raw("200 OK\r\nContent-Length: 1000")]);
    origin.script("/chunked", [raw("200 OK\r\nTransfer-Encoding: chunked")]);
    origin.script("/gone", [raw("204 No Content")]);
    origin.script("/same", [raw("304 Not Modified\r\nETag: \"a\"")]);
    origin.script("/after", [Reply::new(200).body("ok")]);
    let mut client = proxy.client().await;

    let answer = client.request("HEAD", "/long", &[], "").await;
    assert_eq!((answer.status, answer.header("content-length").as_deref()), (200, Some("1000")));
    let answer = client.request("HEAD", "/chunked", &[], "").await;
    assert_eq!((answer.status, answer.header("content-length")), (200, None));
    let answer = client.get("/gone", &[]).await;
    assert_eq!((answer.status, answer.header("content-length")), (204, None));
    let answer = client.get("/same", &[("If-None-Match", "\"a\"")]).await;
    assert_eq!((answer.status, answer.header("etag").as_deref()), (304, Some("\"a\"")));
    assert_eq!(answer.header("content-length"), None);
    // On the same connection, so none of them has left anything behind.
    assert_eq!(client.get("/after", &[]).await.text(), "ok");
}

#[tokio::test]
async fn an_old_client_gets_what_it_understands() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.address, "").await;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    origin.script("/old", [Reply::raw(chunked)]);
    let mut client = Client::connect(proxy.address).await;
    client.send("GET /old HTTP/1.0\r\n\r\n").await;
    let answer = client.answer(false).await;
    assert_eq!((answer.status, answer.text()), (200, "abc"));
    let seen = &origin.seen("/old")[0];
    assert_eq!(seen.header("via").as_deref(), Some("1.0 cache-proxy"));
    assert_eq!(seen.header("host"), Some(origin.address.to_string()));
}
