//! What goes over the connection to an upstream, byte by byte: the other side is a bare socket.

use std::net::SocketAddr;

use escala_replicas::http::UpstreamError;
use futures_util::stream;
use http::StatusCode;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower::Service as _;

use super::*;

const SOON: Duration = Duration::from_secs(20);

/// The upstream's side.
pub(super) struct Wire(TcpListener);

impl Wire {
    pub(super) async fn listen() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub(super) fn upstream(&self, config: UpstreamConfig) -> Upstream {
        Upstream::new(&self.address().to_string(), config).unwrap()
    }

    pub(super) async fn accept(&self) -> Peer {
        let (stream, _) = timeout(SOON, self.0.accept()).await.unwrap().unwrap();
        Peer(stream)
    }
}

pub(super) struct Peer(TcpStream);

impl Peer {
    /// Reads until there is `end`, and returns all that came.
    async fn hears(&mut self, end: &str) -> String {
        let mut heard = Vec::new();
        while !heard.ends_with(end.as_bytes()) {
            let read = timeout(SOON, self.0.read_buf(&mut heard)).await.unwrap().unwrap();
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&heard));
        }
        String::from_utf8(heard).unwrap()
    }

    pub(super) async fn hears_a_request(&mut self) -> String {
        self.hears("\r\n\r\n").await
    }

    pub(super) async fn says(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// What is still sent until the other side closes.
    async fn hears_the_rest(mut self) -> String {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _end = timeout(SOON, self.0.read_to_end(&mut rest)).await.unwrap();
        String::from_utf8(rest).unwrap()
    }

    /// Whether the other side closes, after whatever it has still sent.
    pub(super) async fn sees_the_end(mut self) -> bool {
        let mut rest = Vec::new();
        match timeout(SOON, self.0.read_to_end(&mut rest)).await.unwrap() {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

fn get() -> Request<Full<Bytes>> {
    request(&Method::GET, "")
}

/// Until what was said or closed has come to whoever waits for it, of which nothing tells: the kernel
/// takes a moment, and the runtime some turns.
pub(super) async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

type Sent = JoinHandle<Result<Response<ResponseBody>, UpstreamError>>;

/// A request on a connection of its own, at its upstream.
async fn asked(wire: &Wire, upstream: &mut Upstream) -> (Sent, Peer) {
    let sent = tokio::spawn(upstream.call(get()));
    let mut peer = wire.accept().await;
    let _request = peer.hears_a_request().await;
    (sent, peer)
}

async fn body(response: Response<ResponseBody>) -> Result<String, UpstreamError> {
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

/// A request's body that comes part by part from a channel.
type Parts = mpsc::Sender<Result<Frame<Bytes>, &'static str>>;

fn upload() -> (Parts, Request<impl hyper::body::Body<Data = Bytes, Error = &'static str> + Send>) {
    let (sender, parts) = mpsc::channel(8);
    let parts = stream::unfold(parts, async |mut parts: mpsc::Receiver<_>| {
        parts.recv().await.map(|part| (part, parts))
    });
    (sender, Request::post("/up").body(StreamBody::new(Box::pin(parts))).unwrap())
}

fn part(text: &'static str) -> Result<Frame<Bytes>, &'static str> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

#[tokio::test]
async fn a_request_is_written_as_an_upstream_wants_it() {
    let wire = Wire::listen().await;
    let mut upstream = wire.upstream(UpstreamConfig::default());
    let request = Request::put("http://other.example/a?b=c")
        .header("x-one", "1")
        .header("connection", "x-two")
        .header("x-two", "2")
        .header("transfer-encoding", "gzip");
    let sent = tokio::spawn(upstream.call(request.body(Full::<Bytes>::from("hello")).unwrap()));
    let mut peer = wire.accept().await;
    let heard = peer.hears("hello").await;
    let host = wire.address();
    let expected = format!(
        "PUT /a?b=c HTTP/1.1\r\nx-one: 1\r\nhost: {host}\r\ncontent-length: 5\r\n\r\nhello"
    );
    assert_eq!(heard, expected);
    peer.says("HTTP/1.1 201 Made\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(sent.await.unwrap().unwrap().status(), StatusCode::CREATED);
}

/// A server has to refuse a request without `Host`, and clients of HTTP/1.0 send none.
#[tokio::test]
async fn a_request_without_a_host_gets_the_upstreams() {
    let wire = Wire::listen().await;
    let set = Replicas::without_primary().replica("a", 1, wire.upstream(UpstreamConfig::default()));
    let proxy = ReverseProxy::new(set.build().unwrap(), ProxyConfig::default()).unwrap();
    let _sent = tokio::spawn(proxy.forward(get(), None));
    let heard = wire.accept().await.hears_a_request().await;
    assert!(heard.contains(&format!("\r\nhost: {}\r\n", wire.address())), "{heard}");
}

#[tokio::test]
async fn a_connection_is_used_again_where_nothing_sees_the_end_on_it() {
    for (answer, kept) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
        ("HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
        ("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", true),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", false),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok!", false),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n!", false),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n\
             2\r\nok\r\n0\r\n\r\n",
            false,
        ),
    ] {
        let wire = Wire::listen().await;
        let mut upstream = wire.upstream(UpstreamConfig::default());
        let (first, mut peer) = asked(&wire, &mut upstream).await;
        peer.says(answer).await;
        assert_eq!(body(first.await.unwrap().unwrap()).await.unwrap(), "ok", "{answer}");
        let second = tokio::spawn(upstream.call(get()));
        if kept {
            let _request = peer.hears_a_request().await;
        } else {
            assert!(peer.sees_the_end().await, "{answer}");
            peer = wire.accept().await;
            let _request = peer.hears_a_request().await;
        }
        peer.says("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond").await;
        assert_eq!(body(second.await.unwrap().unwrap()).await.unwrap(), "second", "{answer}");
    }
}

/// It would be taken for the answer to whatever is asked next, perhaps by somebody else.
#[tokio::test]
async fn what_comes_unasked_answers_nothing() {
    let wire = Wire::listen().await;
    let mut upstream = wire.upstream(UpstreamConfig::default());
    let (first, mut peer) = asked(&wire, &mut upstream).await;
    peer.says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(body(first.await.unwrap().unwrap()).await.unwrap(), "ok");
    peer.says("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await;
    // Its own socket says that it has come: the same loop reads both.
    settle().await;
    let second = tokio::spawn(upstream.call(get()));
    let mut other = wire.accept().await;
    let _request = other.hears_a_request().await;
    other.says("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood").await;
    assert_eq!(body(second.await.unwrap().unwrap()).await.unwrap(), "good");
    assert!(peer.sees_the_end().await);
}

#[tokio::test]
async fn a_post_finds_another_connection_when_the_kept_one_was_closed() {
    let wire = Wire::listen().await;
    let mut upstream = wire.upstream(UpstreamConfig::default());
    let (first, mut peer) = asked(&wire, &mut upstream).await;
    peer.says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(body(first.await.unwrap().unwrap()).await.unwrap(), "ok");
    drop(peer);
    settle().await;
    let (parts, request) = upload();
    let post = tokio::spawn(upstream.call(request));
    parts.send(part("all of it")).await.unwrap();
    drop(parts);
    let mut peer = wire.accept().await;
    assert!(peer.hears("9\r\nall of it\r\n0\r\n\r\n").await.starts_with("POST /up "));
    peer.says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(body(post.await.unwrap().unwrap()).await.unwrap(), "ok");
}

/// Begins an upload whose answer begins before it has ended.
async fn overlap(
    wire: &Wire,
    upstream: &mut Upstream,
    answer: &str,
) -> (Parts, Response<ResponseBody>, Peer) {
    let (parts, request) = upload();
    let sent = tokio::spawn(upstream.call(request));
    parts.send(part("one")).await.unwrap();
    let mut peer = wire.accept().await;
    let begin = peer.hears("3\r\none\r\n").await;
    assert!(begin.contains("\r\ntransfer-encoding: chunked\r\n"), "{begin}");
    peer.says(answer).await;
    (parts, sent.await.unwrap().unwrap(), peer)
}

#[tokio::test]
async fn a_request_goes_on_while_it_is_answered() {
    let wire = Wire::listen().await;
    let mut upstream = wire.upstream(UpstreamConfig::default());
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n1 \r\n";
    let (parts, mut response, mut peer) = overlap(&wire, &mut upstream, answer).await;
    let first = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "1 ");
    let rest = tokio::spawn(body(response));
    parts.send(part("two")).await.unwrap();
    assert_eq!(peer.hears("two\r\n").await, "3\r\ntwo\r\n");
    drop(parts);
    assert_eq!(peer.hears("0\r\n\r\n").await, "0\r\n\r\n");
    peer.says("1\r\n2\r\n0\r\nx-sum: 3\r\n\r\n").await;
    assert_eq!(rest.await.unwrap().unwrap(), "2");
    // Both are over, so the connection is free.
    let next = tokio::spawn(upstream.call(get()));
    let _request = peer.hears_a_request().await;
    peer.says("HTTP/1.1 204 None\r\n\r\n").await;
    assert_eq!(next.await.unwrap().unwrap().status(), StatusCode::NO_CONTENT);
}

/// A client may read only once it has sent all.
#[tokio::test]
async fn a_request_goes_on_though_nobody_takes_its_answer() {
    let wire = Wire::listen().await;
    let mut upstream = wire.upstream(UpstreamConfig::default());
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc";
    let (parts, response, mut peer) = overlap(&wire, &mut upstream, answer).await;
    for _ in 0..20 {
        parts.send(part("more")).await.unwrap();
        assert_eq!(peer.hears("more\r\n").await, "4\r\nmore\r\n");
    }
    drop(parts);
    assert_eq!(peer.hears("0\r\n\r\n").await, "0\r\n\r\n");
    peer.says("def").await;
    assert_eq!(body(response).await.unwrap(), "abcdef");
    let next = tokio::spawn(upstream.call(get()));
    let _request = peer.hears_a_request().await;
    peer.says("HTTP/1.1 204 None\r\n\r\n").await;
    assert!(next.await.unwrap().is_ok());
}

/// A server may say that it has understood, and want to hear the rest.
#[tokio::test]
async fn a_request_goes_on_after_its_answer() {
    for answer in [
        "HTTP/1.1 202 Fine\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 202 Fine\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n",
    ] {
        let wire = Wire::listen().await;
        let mut upstream = wire.upstream(UpstreamConfig::default());
        let (parts, response, mut peer) = overlap(&wire, &mut upstream, answer).await;
        assert_eq!(body(response).await.unwrap(), "ok", "{answer}");
        parts.send(part("two")).await.unwrap();
        drop(parts);
        assert_eq!(peer.hears("0\r\n\r\n").await, "3\r\ntwo\r\n0\r\n\r\n");
        // Both are over, so the connection is free.
        let next = tokio::spawn(upstream.call(get()));
        let _request = peer.hears_a_request().await;
        next.abort();
    }
}

/// The upstream would take what it has got for the whole.
#[tokio::test]
async fn an_upload_that_breaks_off_has_no_end() {
    for (answer, rest, whole) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc", "", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc", "def", true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "", false),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "3\r\ndef\r\n0\r\n\r\n",
            false,
        ),
    ] {
        let wire = Wire::listen().await;
        let mut upstream = wire.upstream(UpstreamConfig::default());
        let (parts, response, mut peer) = overlap(&wire, &mut upstream, answer).await;
        peer.says(rest).await;
        // Until the rest waits behind the first part.
        settle().await;
        parts.send(Err("the client is gone")).await.unwrap();
        drop(parts);
        settle().await;
        let read = body(response).await;
        assert_eq!(read.is_ok(), whole, "{answer} {rest}: {read:?}");
        assert_eq!(peer.hears_the_rest().await, "", "{answer} {rest}");
    }
}

/// A server drops a body behind its last part, and so behind its trailers.
#[tokio::test]
async fn a_request_goes_on_when_its_answer_is_dropped_at_its_end() {
    for (answer, frames) in [
        ("HTTP/1.1 202 Fine\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n", 2),
        ("HTTP/1.1 202 Fine\r\ncontent-length: 2\r\n\r\nok", 1),
    ] {
        let wire = Wire::listen().await;
        let (head, rest) = answer.split_at(answer.len() - 1);
        let mut upstream = wire.upstream(UpstreamConfig::default());
        let (parts, mut response, mut peer) = overlap(&wire, &mut upstream, head).await;
        peer.says(rest).await;
        // One part of the data came before.
        for _ in 0..frames + usize::from(frames == 1) {
            response.body_mut().frame().await.unwrap().unwrap();
        }
        drop(response);
        parts.send(part("two")).await.unwrap();
        drop(parts);
        assert_eq!(peer.hears("0\r\n\r\n").await, "3\r\ntwo\r\n0\r\n\r\n", "{answer}");
    }
}

#[tokio::test]
async fn an_upload_ends_with_whoever_gives_its_answer_up_and_with_silence() {
    let wire = Wire::listen().await;
    let begun = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc";
    let mut upstream = wire.upstream(UpstreamConfig::default());
    let (_parts, response, peer) = overlap(&wire, &mut upstream, begun).await;
    drop(response);
    assert!(peer.sees_the_end().await);
    let config = UpstreamConfig::default().body_idle_timeout(Duration::from_millis(50));
    let whole = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
    let (_parts, response, peer) = overlap(&wire, &mut wire.upstream(config), whole).await;
    assert_eq!(body(response).await.unwrap(), "abc");
    assert!(peer.sees_the_end().await);
}

#[tokio::test]
async fn an_upload_that_never_waits_lets_the_answer_through() {
    let wire = Wire::listen().await;
    let mut upstream = wire.upstream(UpstreamConfig::default());
    let endless = stream::repeat_with(|| part("again and again"));
    let request = Request::post("/up").body(StreamBody::new(endless)).unwrap();
    let sent = tokio::spawn(upstream.call(request));
    let mut peer = wire.accept().await;
    peer.says("HTTP/1.1 413 Too Large\r\ncontent-length: 6\r\n\r\nenough").await;
    let drains = tokio::spawn(peer.sees_the_end());
    let response = timeout(SOON, sent).await.unwrap().unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    drop(upstream);
    drains.abort();
}

/// More than the sockets hold.
fn long_part() -> Result<Frame<Bytes>, &'static str> {
    Ok(Frame::data(Bytes::from(vec![b'x'; 32 * 1024 * 1024])))
}

/// A server that has heard enough says so and closes; the answer is what counts.
#[tokio::test]
async fn an_answer_is_read_though_the_request_is_not_taken() {
    let wire = Wire::listen().await;
    let mut upstream = wire.upstream(UpstreamConfig::default());
    let (parts, request) = upload();
    let sent = tokio::spawn(upstream.call(request));
    parts.send(long_part()).await.unwrap();
    let mut peer = wire.accept().await;
    peer.says("HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 6\r\n\r\nenough")
        .await;
    // With all that it has not read.
    drop(peer);
    let response = sent.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(body(response).await.unwrap(), "enough");
}

/// Whoever asks first is told of the reset, be it the write.
#[tokio::test]
async fn a_reset_is_not_the_end_that_a_body_without_a_length_may_have() {
    let wire = Wire::listen().await;
    let mut upstream = wire.upstream(UpstreamConfig::default());
    let (parts, request) = upload();
    let sent = tokio::spawn(upstream.call(request));
    parts.send(long_part()).await.unwrap();
    let mut peer = wire.accept().await;
    peer.says("HTTP/1.1 200 OK\r\n\r\nabc").await;
    let response = sent.await.unwrap().unwrap();
    drop(peer);
    let error = body(response).await.unwrap_err();
    assert!(matches!(error, UpstreamError::ResponseBody(_)), "{error:?}");
}

/// A server whose queue is full answers no new connection, but goes on with those it has.
#[tokio::test]
async fn a_connection_that_comes_free_is_used_by_whoever_waits_for_a_new_one() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let wire = Wire(socket.listen(1).unwrap());
    let config = UpstreamConfig::default().connect_timeout(Duration::from_secs(60));
    let mut upstream = wire.upstream(config);
    let (first, mut peer) = asked(&wire, &mut upstream).await;
    // Until the kernel takes no more.
    let mut queued = Vec::new();
    while let Ok(stream) =
        timeout(Duration::from_millis(200), TcpStream::connect(wire.address())).await
    {
        queued.push(stream.unwrap());
        assert!(queued.len() < 10, "the queue has no end");
    }
    let second = tokio::spawn(upstream.call(get()));
    settle().await;
    assert!(!second.is_finished());
    for request in [first, second] {
        peer.says("HTTP/1.1 204 None\r\n\r\n").await;
        assert!(timeout(SOON, request).await.unwrap().unwrap().is_ok());
        if !queued.is_empty() {
            let _request = peer.hears_a_request().await;
            queued.clear();
        }
    }
}

#[test]
fn what_a_runtime_kept_is_closed_when_it_ends() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let servers = runtime();
    let wire = servers.block_on(Wire::listen());
    let config = UpstreamConfig::default().pool_idle_timeout(Duration::from_secs(3600));
    let upstream = wire.upstream(config);
    for _ in 0..3 {
        let mut upstream = upstream.clone();
        let clients = std::thread::spawn(move || {
            runtime().block_on(async move { upstream.call(get()).await.is_ok() })
        });
        servers.block_on(async {
            let mut peer = wire.accept().await;
            let _request = peer.hears_a_request().await;
            peer.says("HTTP/1.1 204 None\r\n\r\n").await;
            assert!(peer.sees_the_end().await);
        });
        assert!(clients.join().unwrap());
    }
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_said_is_the_clients_fault() {
    for (length, parts) in [("3", &["four"][..]), ("5", &["four"][..]), ("5", &["four", "1", "x"])]
    {
        let wire = Wire::listen().await;
        let mut upstream = wire.upstream(UpstreamConfig::default());
        let (sender, mut request) = upload();
        request.headers_mut().insert("content-length", length.parse().unwrap());
        for text in parts {
            sender.send(part(text)).await.unwrap();
        }
        drop(sender);
        let sent = tokio::spawn(upstream.call(request));
        let peer = wire.accept().await;
        if parts.len() > 1 {
            // What came after its length is nobody's business.
            let mut peer = peer;
            assert!(peer.hears("four1").await.contains("content-length: 5"));
            peer.says("HTTP/1.1 204 None\r\n\r\n").await;
            assert!(sent.await.unwrap().is_ok());
            continue;
        }
        let error = sent.await.unwrap().unwrap_err();
        assert!(matches!(error, UpstreamError::RequestBody(_)), "{length}: {error:?}");
        assert!(peer.sees_the_end().await);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_taken_for_a_whole_one() {
    for (answer, whole) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", None),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", None),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", None),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\nabc\r\n0\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\n\r\nabc", Some("abc")),
    ] {
        let wire = Wire::listen().await;
        let mut upstream = wire.upstream(UpstreamConfig::default());
        let (sent, mut peer) = asked(&wire, &mut upstream).await;
        peer.says(answer).await;
        drop(peer);
        let read = body(sent.await.unwrap().unwrap()).await;
        match whole {
            Some(text) => assert_eq!(read.unwrap(), text),
            None => assert!(matches!(read, Err(UpstreamError::ResponseBody(_))), "{answer}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_answer_is_told_apart_from_none() {
    for (said, expected) in
        [("", "closed"), ("HTTP/1.1 200 OK\r\n", "closed"), ("SSH-2.0\r\n", "no response")]
    {
        let wire = Wire::listen().await;
        let mut upstream = wire.upstream(UpstreamConfig::default());
        let (sent, mut peer) = asked(&wire, &mut upstream).await;
        peer.says(said).await;
        drop(peer);
        let error = sent.await.unwrap().unwrap_err();
        assert!(error.to_string().contains(expected), "{said:?}: {error}");
    }
}

#[tokio::test]
async fn an_answer_to_head_has_a_length_and_no_body() {
    let wire = Wire::listen().await;
    let mut upstream = wire.upstream(UpstreamConfig::default());
    let mut sent = tokio::spawn(upstream.call(request(&Method::HEAD, "")));
    let mut peer = wire.accept().await;
    for _ in 0..2 {
        assert!(peer.hears_a_request().await.starts_with("HEAD /path "));
        peer.says("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n").await;
        let response = sent.await.unwrap().unwrap();
        assert_eq!(response.headers()["content-length"], "7");
        assert_eq!(body(response).await.unwrap(), "");
        // On the same connection, since nothing was to come.
        sent = tokio::spawn(upstream.call(request(&Method::HEAD, "")));
    }
    assert!(peer.hears_a_request().await.starts_with("HEAD /path "));
    sent.abort();
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed_in_time() {
    let wire = Wire::listen().await;
    let config = UpstreamConfig::default().pool_idle_timeout(Duration::from_millis(50));
    let mut upstream = wire.upstream(config);
    let (sent, mut peer) = asked(&wire, &mut upstream).await;
    peer.says("HTTP/1.1 204 None\r\n\r\n").await;
    assert!(sent.await.unwrap().is_ok());
    assert!(peer.sees_the_end().await);
}

#[tokio::test]
async fn as_many_are_kept_as_may_be_and_all_end_with_their_upstream() {
    let wire = Wire::listen().await;
    let mut upstream = wire.upstream(
        UpstreamConfig::default().pool_max_idle(1).pool_idle_timeout(Duration::from_secs(3600)),
    );
    let (one, two) = (tokio::spawn(upstream.call(get())), tokio::spawn(upstream.call(get())));
    let (mut first, mut second) = (wire.accept().await, wire.accept().await);
    for peer in [&mut first, &mut second] {
        let _request = peer.hears_a_request().await;
        peer.says("HTTP/1.1 204 None\r\n\r\n").await;
    }
    assert!(one.await.unwrap().is_ok() && two.await.unwrap().is_ok());
    let (first, second) = (tokio::spawn(first.sees_the_end()), tokio::spawn(second.sees_the_end()));
    eventually("one is closed", || first.is_finished() != second.is_finished()).await;
    drop(upstream);
    assert!(first.await.unwrap() && second.await.unwrap());
}

#[tokio::test]
async fn whoever_gives_up_closes_the_connection() {
    let wire = Wire::listen().await;
    let mut upstream = wire.upstream(UpstreamConfig::default());
    let (waiting, peer) = asked(&wire, &mut upstream).await;
    waiting.abort();
    assert!(peer.sees_the_end().await);
    let (reading, mut peer) = asked(&wire, &mut upstream).await;
    peer.says("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegin").await;
    drop(reading.await.unwrap().unwrap());
    assert!(peer.sees_the_end().await);
}
