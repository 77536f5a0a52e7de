//! The head of a request as an upstream gets it. Pure.

use std::io::Write as _;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::request_body::RequestBody;

/// Room for the usual head.
const USUAL: usize = 512;

/// How the end of a request's body is told (RFC 9112, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestFraming {
    None,
    Length(u64),
    Chunked,
}

impl RequestFraming {
    /// The body knows best how long it is; `Content-Length` is asked where it does not say.
    pub(super) fn of(body: &RequestBody, headers: &HeaderMap) -> Self {
        match body {
            RequestBody::Empty | RequestBody::Whole(None) => Self::None,
            RequestBody::Whole(Some(bytes)) => Self::Length(bytes.len() as u64),
            RequestBody::Stream(stream) => {
                // One that has not ended may say that it is empty and yet be none: a bound of zero does.
                let length = stream.length().filter(|&length| length > 0);
                length.or_else(|| stated(headers)).map_or(Self::Chunked, Self::Length)
            }
        }
    }
}

fn stated(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Line and fields, with an empty line at their end. `host` takes the place of the request's own.
pub(super) fn write(head: &Parts, host: Option<&HeaderValue>, framing: RequestFraming) -> Vec<u8> {
    let mut out = Vec::with_capacity(USUAL);
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    if target.starts_with('?') {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut has_length = false;
    for (name, value) in &head.headers {
        match *name {
            CONTENT_LENGTH => has_length = true,
            TRANSFER_ENCODING => {}
            HOST if host.is_some() => {}
            _ => field(&mut out, name.as_str(), value.as_bytes()),
        }
    }
    if let Some(host) = host {
        field(&mut out, "host", host.as_bytes());
    }
    match framing {
        // That it is empty was said, and some servers want it said.
        RequestFraming::None if has_length => field(&mut out, "content-length", b"0"),
        RequestFraming::None => {}
        RequestFraming::Length(length) => {
            // Writing to a vector does not fail.
            let _ = write!(out, "content-length: {length}\r\n");
        }
        RequestFraming::Chunked => field(&mut out, "transfer-encoding", b"chunked"),
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;
    use http_body::Body as _;
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn head(build: http::request::Builder) -> Parts {
        build.body(()).unwrap().into_parts().0
    }

    fn text(head: &Parts, host: Option<&HeaderValue>, framing: RequestFraming) -> String {
        String::from_utf8(write(head, host, framing)).unwrap()
    }

    #[test]
    fn the_target_is_a_path_whatever_the_request_names() {
        for (uri, target) in [
            ("/a/b?c=d", "/a/b?c=d"),
            ("http://other.example/x", "/x"),
            ("http://other.example", "/"),
            ("http://other.example?q", "/?q"),
            ("*", "*"),
        ] {
            let head = head(Request::builder().method("OPTIONS").uri(uri));
            let line = format!("OPTIONS {target} HTTP/1.1\r\n\r\n");
            assert_eq!(text(&head, None, RequestFraming::None), line);
        }
    }

    #[test]
    fn the_length_is_said_once_and_by_us() {
        let build =
            || Request::post("/").header("content-length", "7").header("content-length", "8");
        let head = head(build().header("transfer-encoding", "gzip").header("a", "1"));
        let begin = "POST / HTTP/1.1\r\na: 1\r\n";
        for (framing, end) in [
            (RequestFraming::None, "content-length: 0\r\n\r\n"),
            (RequestFraming::Length(12), "content-length: 12\r\n\r\n"),
            (RequestFraming::Chunked, "transfer-encoding: chunked\r\n\r\n"),
        ] {
            assert_eq!(text(&head, None, framing), format!("{begin}{end}"));
        }
    }

    #[test]
    fn another_host_takes_the_place_of_its_own() {
        let head = head(Request::get("/").header("host", "a").header("b", "2"));
        assert!(text(&head, None, RequestFraming::None).contains("\r\nhost: a\r\n"));
        let host = HeaderValue::from_static("c:80");
        let other = text(&head, Some(&host), RequestFraming::None);
        assert_eq!(other, "GET / HTTP/1.1\r\nb: 2\r\nhost: c:80\r\n\r\n");
    }

    #[test]
    fn a_body_without_a_length_is_chunked_unless_one_is_stated() {
        let none = HeaderMap::new();
        let stated = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("5"))]);
        let frames =
            futures_util::stream::empty::<Result<http_body::Frame<Bytes>, crate::BoxError>>;
        let endless = RequestBody::stream(StreamBody::new(frames()));
        assert_eq!(RequestFraming::of(&endless, &none), RequestFraming::Chunked);
        assert_eq!(RequestFraming::of(&endless, &stated), RequestFraming::Length(5));
        let bounded = http_body_util::Limited::new(StreamBody::new(frames()), 0);
        assert_eq!(bounded.size_hint().exact(), Some(0), "which it does not know");
        let bounded = RequestBody::stream(bounded);
        assert_eq!(RequestFraming::of(&bounded, &none), RequestFraming::Chunked);
        let known = RequestBody::stream(Full::new(Bytes::from("abc")));
        assert_eq!(RequestFraming::of(&known, &stated), RequestFraming::Length(3));
        let whole = RequestBody::Whole(Some(Bytes::from("ab")));
        assert_eq!(RequestFraming::of(&whole, &stated), RequestFraming::Length(2));
        assert_eq!(RequestFraming::of(&RequestBody::Empty, &stated), RequestFraming::None);
    }
}
