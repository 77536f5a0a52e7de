//! A client that sends bytes as they are and shows what came.

use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::process::PATIENCE;

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    received: BytesMut,
}

/// A response; its body is empty if only the head was read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Fields after a chunked body.
    pub(crate) trailers: Vec<(String, String)>,
}

/// How the end of a body is found.
enum Framing {
    None,
    Length(usize),
    Chunked,
    Close,
}

impl Answer {
    /// All values of a field, joined as a list is.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        joined(&self.headers, name)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("utf-8")
    }

    fn framing(&self, to_head: bool) -> Framing {
        let bodiless = to_head || self.status < 200 || matches!(self.status, 204 | 304);
        match (self.header("transfer-encoding"), self.header("content-length")) {
            _ if bodiless => Framing::None,
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
            (None, Some(length)) => Framing::Length(length.parse().expect("one length")),
            (None, None) => Framing::Close,
            both => panic!("the body has two ends: {both:?}"),
        }
    }
}

pub(super) fn joined(headers: &[(String, String)], name: &str) -> Option<String> {
    let named = headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
    let values: Vec<&str> = named.map(|(_, value)| value.as_str()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

impl Client {
    pub(crate) async fn connect(server: SocketAddr) -> Self {
        let stream = timeout(PATIENCE, TcpStream::connect(server)).await.expect("in time");
        let stream = stream.expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, received: BytesMut::new() }
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await;
        sent.expect("in time").expect("send");
    }

    /// Sends bytes to somebody who may have had enough.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await;
        sent.expect("in time").is_ok()
    }

    /// The next head, whatever its status; its status and fields.
    pub(crate) async fn interim(&mut self) -> (u16, Vec<(String, String)>) {
        let line = self.line().await.expect("a status line");
        let status = line.strip_prefix("HTTP/1.1 ").or(line.strip_prefix("HTTP/1.0 "));
        let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
        (status[..3].parse().expect("status"), self.fields().await)
    }

    pub(crate) async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", path, headers, "").await
    }

    /// One request and its whole answer. A body has a length.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut lines: String =
            headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            lines.push_str("Host: origin.test\r\n");
        }
        if !body.is_empty() {
            lines.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        self.send(format!("{method} {path} HTTP/1.1\r\n{lines}\r\n{body}")).await;
        self.answer(method == "HEAD").await
    }

    /// The next whole answer.
    pub(crate) async fn answer(&mut self, to_head: bool) -> Answer {
        let mut answer = self.head().await;
        match answer.framing(to_head) {
            Framing::None => {}
            Framing::Length(length) => answer.body = self.exactly(length).await,
            Framing::Close => answer.body = self.rest().await.expect("ends in order"),
            Framing::Chunked => {
                while let Some(chunk) = self.chunk().await.expect("the body ends in order") {
                    answer.body.extend_from_slice(&chunk);
                }
                answer.trailers = self.fields().await;
            }
        }
        answer
    }

    /// The next head that is no interim response's.
    pub(crate) async fn head(&mut self) -> Answer {
        loop {
            let (status, headers) = self.interim().await;
            if (100..200).contains(&status) {
                continue;
            }
            return Answer { status, headers, body: Vec::new(), trailers: Vec::new() };
        }
    }

    /// The next chunk; `None` at the last one, an error if the connection ends instead.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, String> {
        let line = self.line().await.ok_or("closed within a body")?;
        let length = usize::from_str_radix(&line, 16).map_err(|_| format!("chunk: {line:?}"))?;
        if length == 0 {
            return Ok(None);
        }
        while self.received.len() < length + 2 {
            if !self.receive().await {
                return Err("closed within a chunk".to_owned());
            }
        }
        let chunk = self.received.split_to(length).to_vec();
        assert_eq!(&self.received.split_to(2)[..], b"\r\n");
        Ok(Some(chunk))
    }

    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            assert!(self.receive().await, "closed after {} of {length}", self.received.len());
        }
        self.received.split_to(length).to_vec()
    }

    /// Everything up to the end of the connection, `None` if that is a reset.
    pub(crate) async fn rest(&mut self) -> Option<Vec<u8>> {
        let mut rest = self.received.split().to_vec();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("in time");
        read.ok().map(|_| rest)
    }

    /// The fields up to an empty line.
    pub(crate) async fn fields(&mut self) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await.expect("a field");
            match line.split_once(':') {
                Some((name, value)) => fields.push((name.to_owned(), value.trim().to_owned())),
                None if line.is_empty() => return fields,
                None => panic!("no field: {line:?}"),
            }
        }
    }

    /// Without its end; `None` if the connection ends first.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|two| two == b"\r\n") {
                let line = self.received.split_to(end + 2);
                // Latin-1, so that any byte is seen.
                return Some(line[..end].iter().map(|&byte| char::from(byte)).collect());
            }
            if !self.receive().await {
                return None;
            }
        }
    }

    /// False at the end.
    async fn receive(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
        matches!(read.expect("in time"), Ok(1..))
    }
}
