//! Requests that two readers could read differently: none reaches a server as it was sent.

use super::{Gateway, Origin, Reply};

async fn start(origin: &Origin) -> Gateway {
    Gateway::start(&format!(
        r#"
        [upstreams.app]
        servers = [{{ address = "{}" }}]
        [[routes]]
        path = "/"
        upstream = "app"
        "#,
        origin.address
    ))
    .await
}

#[tokio::test]
async fn an_ambiguous_request_is_refused_and_its_connection_ends() {
    let origin = Origin::start().await;
    let gateway = start(&origin).await;
    let chunked = "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for (name, head) in [
        ("lengths that differ", "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned()),
        ("a list of lengths", "Content-Length: 1, 2\r\n\r\nab".to_owned()),
        ("a list of equal lengths", "Content-Length: 1, 1\r\n\r\na".to_owned()),
        ("a signed length", "Content-Length: +1\r\n\r\na".to_owned()),
        ("a negative length", "Content-Length: -1\r\n\r\na".to_owned()),
        ("a length that is none", "Content-Length: 1a\r\n\r\na".to_owned()),
        (
            "a length past the limit of 64 bits",
            format!("Content-Length: {}\r\n\r\n", "9".repeat(30)),
        ),
        ("a folded line", "X-A: 1\r\n Transfer-Encoding: chunked\r\n\r\n".to_owned()),
        ("a folded coding", format!("Transfer-Encoding:\r\n chunked\r\n{chunked}")),
        ("a space before the colon", "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n".to_owned()),
        ("a tab before the colon", "Content-Length\t: 1\r\n\r\na".to_owned()),
        ("another coding", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n".to_owned()),
        (
            "a coding after chunked",
            "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n".to_owned(),
        ),
        ("a coding before chunked", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned()),
        ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n".to_owned()),
        ("two codings", format!("Transfer-Encoding: identity\r\n{chunked}")),
        ("a quoted coding", "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n".to_owned()),
        ("a carriage return alone", "X-A: 1\rTransfer-Encoding: chunked\r\n\r\n".to_owned()),
        ("a zero byte", "X-A: 1\0\r\n\r\n".to_owned()),
        ("both lengths", format!("Content-Length: 5\r\n{chunked}")),
        (
            "both lengths, the other way",
            "Transfer-Encoding: chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n".to_owned(),
        ),
        (
            "both lengths, one of them hidden",
            format!("Content-Length: 0\r\nConnection: content-length\r\n{chunked}"),
        ),
        ("a second host", "Host: other\r\n\r\n".to_owned()),
    ] {
        let mut client = gateway.client().await;
        client.send(format!("POST /bad HTTP/1.1\r\nHost: a\r\n{head}")).await;
        client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.answer(false).await;
        assert_eq!(answer.status, 400, "{name}");
        assert!(client.rest().await.unwrap_or_default().is_empty(), "{name}: more than one answer");
    }
    assert!(origin.seen("/bad").is_empty() && origin.seen("/smuggled").is_empty());
}

#[tokio::test]
async fn a_bad_first_line_is_refused() {
    let origin = Origin::start().await;
    let gateway = start(&origin).await;
    for (name, bytes, status) in [
        ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
        ("no host in 1.1, absolute", "GET http://a/ HTTP/1.1\r\n\r\n", 400),
        ("a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a version that is none", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
        ("a coding in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("a tunnel", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
        ("an echo", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("a user in the target", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a way up", "GET /x/../pdf/1 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a way up in codes", "GET /x/%2e%2e/pdf/1 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a slash in codes", "GET /x%2fpdf/1 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ] {
        let mut client = gateway.client().await;
        client.send(bytes).await;
        assert_eq!(client.answer(false).await.status, status, "{name}");
        assert!(client.rest().await.unwrap_or_default().is_empty(), "{name}");
    }
    assert!(origin.seen("/").is_empty());
}

#[tokio::test]
async fn bad_chunks_never_make_a_request_of_their_own() {
    let origin = Origin::start().await;
    let gateway = start(&origin).await;
    for (name, body) in [
        ("no number", "x\r\nabc\r\n0\r\n\r\n"),
        ("a sign", "+3\r\nabc\r\n0\r\n\r\n"),
        ("a prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("a number past 64 bits", "ffffffffffffffff1\r\nabc\r\n0\r\n\r\n"),
        ("a chunk that is longer", "2\r\nabc\r\n0\r\n\r\n"),
        ("a line feed alone", "3\nabc\n0\n\n"),
        ("nothing", "\r\n"),
    ] {
        // Whatever of a body has come, its end has not.
        origin.script("/up", [Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]);
        let mut client = gateway.client().await;
        client.send("POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let _ = client.try_send(body).await;
        let _ = client.try_send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.answer(false).await;
        assert_eq!(answer.status, 400, "{name}");
        assert!(client.rest().await.unwrap_or_default().is_empty(), "{name}: more than one answer");
    }
    assert!(origin.seen("/smuggled").is_empty());
    assert!(origin.seen("/up").is_empty(), "a whole request was made of a broken one");
}

/// Read in one way only, and passed on in that way only.
#[tokio::test]
async fn what_can_be_read_in_one_way_is_passed_on_in_one_form() {
    let origin = Origin::start().await;
    let gateway = start(&origin).await;
    let ok = || Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    origin.script("/up", [ok(), ok()]);
    origin.script("/get", [ok(), ok(), ok()]);
    let mut client = gateway.client().await;
    let chunks = "Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n";
    client.send(format!("POST /up HTTP/1.1\r\nHost: a\r\n{chunks}")).await;
    assert_eq!(client.answer(false).await.status, 200);
    // A body without a length is passed on with any method.
    for method in ["GET", "HEAD", "DELETE"] {
        origin.script("/up", [ok()]);
        client.send(format!("{method} /up HTTP/1.1\r\nHost: a\r\n{chunks}")).await;
        assert_eq!(client.answer(method == "HEAD").await.status, 200, "{method}");
    }
    assert_eq!(origin.seen("/up").len(), 4);
    for seen in origin.seen("/up") {
        assert_eq!(seen.header("content-length"), None);
        assert_eq!(seen.header("transfer-encoding").as_deref(), Some("chunked"));
        assert_eq!(seen.body, b"3\r\nabc\r\n0\r\n\r\n");
    }
    for (bytes, host) in [
        ("GET http://b/get HTTP/1.1\r\nHost: a\r\n\r\n", "b"),
        ("GET /get HTTP/1.1\nHost: a\n\n", "a"),
        ("GET /get HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", "a"),
    ] {
        let mut client = gateway.client().await;
        client.send(bytes).await;
        assert_eq!(client.answer(false).await.status, 200, "{bytes}");
        let seen = origin.seen("/get").pop().expect("seen");
        assert_eq!(seen.header("host").as_deref(), Some(host), "{bytes}");
        let lengths = seen.headers.iter().filter(|(name, _)| name == "content-length").count();
        assert!(lengths <= 1, "{seen:?}");
    }
}
