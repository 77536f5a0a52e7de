//! Bodies however they are cut, and whole responses beside hyper's reading of the same bytes.

use bytes::{BufMut as _, BytesMut};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::response_head;
use super::*;

/// What came of the bytes: the body, its trailers, and what is left of them.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
    rest: Vec<u8>,
}

/// Feeds the bytes in parts of these lengths, over and over; `None` if the body has not ended.
fn decode(mut decoder: BodyDecoder, bytes: &[u8], cuts: &[usize]) -> Result<Option<Read>, Fault> {
    let (mut received, mut bytes) = (BytesMut::new(), bytes);
    let (mut body, mut trailers) = (Vec::new(), Vec::new());
    let mut cuts = cuts.iter().cycle();
    loop {
        match decoder.next(&mut received)? {
            Part::Data(data) => body.put(data),
            Part::Trailers(fields) => {
                trailers.extend(fields.iter().map(|(name, value)| {
                    (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                }));
            }
            Part::End => {
                received.extend_from_slice(bytes);
                return Ok(Some(Read { body, trailers, rest: received.to_vec() }));
            }
            Part::More if bytes.is_empty() => {
                let whole = decoder.may_close();
                return Ok(whole.then_some(Read { body, trailers, rest: Vec::new() }));
            }
            Part::More => {
                let length = cuts.next().map_or(1, |&cut| cut.max(1)).min(bytes.len());
                received.extend_from_slice(&bytes[..length]);
                bytes = &bytes[length..];
            }
        }
    }
}

fn chunked(text: &str) -> Result<Option<Read>, Fault> {
    let decoder = || BodyDecoder::new(ResponseFraming::Chunked);
    let whole = decode(decoder(), text.as_bytes(), &[text.len()]);
    for length in 1..text.len() {
        assert_eq!(decode(decoder(), text.as_bytes(), &[length]), whole, "{text:?} by {length}");
    }
    whole
}

#[test]
fn chunks_are_put_together() {
    let read = |body: &str, trailers: &[(&str, &str)], rest: &str| Read {
        body: body.into(),
        trailers: trailers.iter().map(|&(name, value)| (name.into(), value.into())).collect(),
        rest: rest.into(),
    };
    for (text, expected) in [
        ("0\r\n\r\nHTTP", read("", &[], "HTTP")),
        ("3\r\nabc\r\n0\r\n\r\n", read("abc", &[], "")),
        ("3\r\nabc\r\n2\r\nde\r\n000\r\n\r\nx", read("abcde", &[], "x")),
        ("A ;name=value\r\n0123456789\r\n0;x\r\n\r\n", read("0123456789", &[], "")),
        ("1\r\na\r\n0\r\nX-Sum: 7\r\nb: c\r\n\r\nz", read("a", &[("x-sum", "7"), ("b", "c")], "z")),
    ] {
        assert_eq!(chunked(text), Ok(Some(expected)), "{text:?}");
    }
}

#[test]
fn bad_chunks_are_refused_and_short_ones_waited_for() {
    for text in [
        "x\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\na",
        "1 1\r\n",
        "1;\n",
        "1\n",
        "1;a\rb\r\na\r\n0\r\n\r\n",
        ";a\r\n",
        "\r\n",
        "3\r\nabcd\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "10000000000000000\r\n",
        "0\r\nno field\r\n\r\n",
        "0\r\na: b\r\n folded\r\n\r\n",
    ] {
        let read = decode(BodyDecoder::new(ResponseFraming::Chunked), text.as_bytes(), &[1]);
        assert!(read.is_err(), "{text:?}: {read:?}");
    }
    for text in ["", "3", "3\r\n", "3\r\nab", "3\r\nabc", "3\r\nabc\r\n", "0\r\n", "0\r\na: b\r\n"]
    {
        assert_eq!(chunked(text), Ok(None), "{text:?}");
    }
}

#[test]
fn what_is_beside_the_data_is_bounded() {
    let decoder = || BodyDecoder::new(ResponseFraming::Chunked);
    let extension = format!("1;{}", "a".repeat(LONGEST_LINE));
    assert!(decode(decoder(), extension.as_bytes(), &[1_000]).is_err());
    let long = format!("0\r\na: {}", "b".repeat(LONGEST_TRAILERS));
    assert!(decode(decoder(), long.as_bytes(), &[1_000]).is_err());
    let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(MOST_TRAILERS + 1));
    assert!(decode(decoder(), many.as_bytes(), &[1_000]).is_err());
}

#[test]
fn a_length_is_kept_and_an_end_is_an_end() {
    let length = BodyDecoder::new(ResponseFraming::Length(3));
    let read = decode(length, b"abcde", &[2]).unwrap().unwrap();
    assert_eq!((read.body.as_slice(), read.rest.as_slice()), (&b"abc"[..], &b"de"[..]));
    assert_eq!(decode(length, b"ab", &[1]), Ok(None));
    let until_close = BodyDecoder::new(ResponseFraming::UntilClose);
    assert_eq!(decode(until_close, b"abc", &[1]).unwrap().unwrap().body, b"abc");
    let nothing = BodyDecoder::new(ResponseFraming::None);
    assert_eq!(decode(nothing, b"abc", &[1]).unwrap().unwrap().rest, b"abc");
}

/// Status and body of a whole response, as we read it; `None` if it is none.
fn ours(bytes: &[u8], cuts: &[usize]) -> Option<(u16, Vec<u8>)> {
    let mut received = BytesMut::new();
    let (mut bytes, mut lengths) = (bytes, cuts.iter().cycle());
    let head = loop {
        if let Some(head) = response_head::take(&mut received, false).ok()? {
            break head;
        }
        let length = lengths.next().map_or(1, |&cut| cut.max(1)).min(bytes.len());
        if length == 0 {
            return None;
        }
        received.extend_from_slice(&bytes[..length]);
        bytes = &bytes[length..];
    };
    received.extend_from_slice(bytes);
    let read = decode(BodyDecoder::new(head.framing), &received, cuts).ok()??;
    Some((head.status.as_u16(), read.body))
}

/// The same as hyper's client reads it.
async fn hypers(bytes: Vec<u8>) -> Option<(u16, Vec<u8>)> {
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let io = hyper_util::rt::TokioIo::new(near);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
    let connection = tokio::spawn(connection);
    let server = tokio::spawn(async move {
        let mut request = [0; 1024];
        let _ = far.read(&mut request).await;
        let _ = far.write_all(&bytes).await;
    });
    let request = http::Request::get("/").body(http_body_util::Empty::<Bytes>::new()).unwrap();
    let read = async {
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        Some((status, response.into_body().collect().await.ok()?.to_bytes().to_vec()))
    };
    let read = read.await;
    server.await.unwrap();
    connection.abort();
    read
}

/// Responses that are mostly right, with parts that are often read wrongly.
fn response() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "HTTP/1.1 200 OK",
        "HTTP/1.1 204 No Content",
        "HTTP/1.1 304 Not Modified",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 500 ",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
    ]);
    let field = prop::sample::select(vec![
        "content-length: 3",
        "content-length: 5",
        "content-length: 0",
        "content-length: 3, 3",
        "transfer-encoding: chunked",
        "connection: close",
        "a: b",
        "set-cookie: c",
        "x-empty:",
    ]);
    let body = prop::sample::select(vec![
        "",
        "abc",
        "abcde",
        "3\r\nabc\r\n0\r\n\r\n",
        "3;x\r\nabc\r\n2\r\nde\r\n0\r\nt: u\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "5\r\nabc",
    ]);
    (line, prop::collection::vec(field, 0..4), body).prop_map(|(line, fields, body)| {
        format!("{line}\r\n{}\r\n\r\n{body}", fields.join("\r\n")).into_bytes()
    })
}

proptest! {
    #[test]
    fn any_chunks_are_read_in_any_parts(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
        cuts in prop::collection::vec(1_usize..20, 1..6),
    ) {
        let mut text = Vec::new();
        for chunk in &chunks {
            text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            text.extend_from_slice(chunk);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"0\r\n\r\nnext");
        let read = decode(BodyDecoder::new(ResponseFraming::Chunked), &text, &cuts);
        let read = read.unwrap().unwrap();
        prop_assert_eq!(read.body, chunks.concat());
        prop_assert_eq!(read.rest, b"next");
    }

    /// Two lengths or codings are refused by us anywhere; hyper bears some of them.
    #[test]
    fn a_response_is_what_hyper_reads(
        bytes in response(),
        cuts in prop::collection::vec(1_usize..30, 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let theirs = runtime.block_on(hypers(bytes.clone()));
        let ours = ours(&bytes, &cuts);
        let text = String::from_utf8(bytes).unwrap();
        let lengths = ["length: 0", "length: 3", "length: 5"];
        let lengths = lengths.iter().filter(|length| text.contains(*length)).count();
        if lengths > 1 || text.matches("coding: chunked").count() > 1 {
            prop_assert_eq!(ours, None, "{}", text);
        } else {
            prop_assert_eq!(ours, theirs, "{}", text);
        }
    }
}
