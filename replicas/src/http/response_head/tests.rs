//! Heads by example, however they are cut, and beside hyper's reading of the same bytes.

use bytes::BytesMut;
use http::StatusCode;

use super::ResponseFraming::{Chunked, Length, None as Nothing, UntilClose};
use super::*;

/// Status, framing, whether the connection is kept, and what is left; the same however it is cut.
fn read(text: &str, to_head: bool) -> Result<(u16, ResponseFraming, bool, String), Fault> {
    let whole = cut(text, text.len(), to_head);
    for length in 1..text.len() {
        assert_eq!(cut(text, length, to_head), whole, "{text:?} in parts of {length}");
    }
    let (head, rest) = whole?;
    Ok((head.0, head.1, head.2, rest))
}

type Seen = ((u16, ResponseFraming, bool), String);

fn cut(text: &str, length: usize, to_head: bool) -> Result<Seen, Fault> {
    let mut received = BytesMut::new();
    let mut parts = text.as_bytes().chunks(length);
    let head = loop {
        let Some(part) = parts.next() else { return Err("more than came") };
        received.extend_from_slice(part);
        if let Some(head) = take(&mut received, to_head)? {
            break head;
        }
    };
    parts.for_each(|part| received.extend_from_slice(part));
    let rest = String::from_utf8(received.to_vec()).unwrap();
    Ok(((head.status.as_u16(), head.framing, head.keeps), rest))
}

#[test]
fn the_end_of_a_body_is_told_as_the_rfc_has_it() {
    for (fields, framing, keeps) in [
        ("content-length: 5", Length(5), true),
        ("content-length: 0", Nothing, true),
        ("Content-Length: 5\r\nContent-Length: 5", Length(5), true),
        ("content-length: 5, 5", Length(5), true),
        ("transfer-encoding: chunked", Chunked, true),
        ("Transfer-Encoding: CHUNKED", Chunked, true),
        // The length is not believed, and neither is what follows.
        ("transfer-encoding: chunked\r\ncontent-length: 5", Chunked, false),
        ("content-length: 5\r\nconnection: close", Length(5), false),
        ("content-length: 5\r\nconnection: x, CLOSE", Length(5), false),
        ("content-length: 5\r\nconnection: keep-alive", Length(5), true),
        ("x: y", UntilClose, false),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nrest");
        assert_eq!(read(&text, false), Ok((200, framing, keeps, "rest".to_owned())), "{fields}");
    }
}

#[test]
fn a_length_that_is_said_twice_is_passed_on_once() {
    for fields in ["content-length: 5, 5", "content-length: 5\r\nx: y\r\ncontent-length: 5,5"] {
        for to_head in [false, true] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
            let head = take(&mut BytesMut::from(&text[..]), to_head).unwrap().unwrap();
            let lengths = head.headers.get_all(CONTENT_LENGTH).into_iter();
            assert_eq!(lengths.collect::<Vec<_>>(), ["5"], "{fields}");
        }
    }
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    for fields in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 6",
        "content-length: +5",
        "content-length: -1",
        "content-length: 0x5",
        "content-length:",
        "content-length: 5,",
        "content-length: 18446744073709551616",
        "transfer-encoding: gzip",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: identity",
        "a: b\r\n c",
        "a b: c",
        "a : b",
        ": b",
        "a: b\0c",
        "a: b\rc",
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
        assert!(cut(&text, text.len(), false).is_err(), "{fields:?}");
        let bytewise = cut(&text, 1, false);
        assert!(bytewise.is_err(), "{fields:?}: {bytewise:?}");
    }
    for line in ["HTTP/1.1 099 No", "HTTP/1.1 20 OK", "HTTP/2 200 OK", "ICY 200 OK", "200 OK"] {
        assert!(cut(&format!("{line}\r\n\r\n"), 1, false).is_err(), "{line}");
    }
    let coded = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    assert!(read(coded, false).is_err());
}

#[test]
fn some_answers_have_no_body_whatever_they_say() {
    let with_length = |status| format!("HTTP/1.1 {status} X\r\ncontent-length: 5\r\n\r\nHTTP");
    for (status, to_head, framing) in [
        (200, true, Nothing),
        (404, true, Nothing),
        (204, false, Nothing),
        (304, false, Nothing),
        (101, false, Nothing),
        (205, false, Length(5)),
        (200, false, Length(5)),
    ] {
        let seen = read(&with_length(status), to_head).unwrap();
        assert_eq!(seen, (status, framing, true, "HTTP".to_owned()), "{status}");
    }
}

#[test]
fn what_is_said_meanwhile_is_passed_over() {
    let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
                HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx";
    assert_eq!(read(text, false), Ok((200, Length(1), true, "x".to_owned())));
}

#[test]
fn an_old_server_keeps_a_connection_only_if_it_says_so() {
    for (fields, keeps) in [("", false), ("connection: keep-alive\r\n", true)] {
        let text = format!("HTTP/1.0 200 OK\r\n{fields}content-length: 1\r\n\r\nx");
        assert_eq!(read(&text, false), Ok((200, Length(1), keeps, "x".to_owned())), "{fields}");
    }
}

#[test]
fn a_head_has_an_end() {
    let line = "HTTP/1.1 200 OK\r\n";
    let fields = |count: usize| (0..count).map(|n| format!("a-{n}: b\r\n")).collect::<String>();
    let mut most = BytesMut::from(format!("{line}{}\r\n", fields(MOST_FIELDS)).as_str());
    let head = take(&mut most, false).unwrap().unwrap();
    assert_eq!((head.headers.len(), most.len()), (MOST_FIELDS, 0));
    let mut more = BytesMut::from(format!("{line}{}\r\n", fields(MOST_FIELDS + 1)).as_str());
    assert_eq!(take(&mut more, false).unwrap_err(), "100 fields at most");
    let mut long = BytesMut::from(format!("{line}a: {}", "b".repeat(LONGEST)).as_str());
    assert_eq!(take(&mut long, false).unwrap_err(), "a head of 64 KiB at most");
}

#[test]
fn fields_keep_their_order_and_bytes() {
    let text =
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nx:  \t y z \t\r\nset-cookie: b=\u{e9}\r\n\r\n";
    let head = take(&mut BytesMut::from(text), false).unwrap().unwrap();
    let cookies: Vec<&[u8]> =
        head.headers.get_all("set-cookie").iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(cookies, [b"a=1".as_slice(), "b=\u{e9}".as_bytes()]);
    assert_eq!(head.headers["x"], "y z");
    assert_eq!(head.status, StatusCode::OK);
}
