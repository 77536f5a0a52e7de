//! One user's connection: HTTP/1.1 over TCP, requests and answers with a `Content-Length` only.
//!
//! The load generator shares the machine with the server it measures, so it must be cheap: it writes
//! a request from a reused buffer and reads its answer, and does nothing else.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::enterprise::TOKEN_HEADER;

/// More headers than any server of ours sends.
const MOST_HEADERS: usize = 32;
/// Longest answer that is read: the dashboard's JSON has some 100 KiB.
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;

/// An open connection to the server.
pub(super) struct Client {
    server: SocketAddr,
    stream: TcpStream,
    host: String,
    /// What the server gave for the user's last write, so that the user's reads see it.
    token: Option<String>,
    /// Reused from request to request.
    request: String,
    received: BytesMut,
}

/// A whole response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    head: Bytes,
    pub(super) body: Bytes,
}

impl Answer {
    /// The value of a header, by its name in any case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(&self.head).ok()?;
        head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Client {
    pub(super) async fn connect(server: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server).await.context("connect")?;
        stream.set_nodelay(true)?;
        let host = server.to_string();
        let (request, received) = (String::new(), BytesMut::new());
        Ok(Self { server, stream, host, token: None, request, received })
    }

    /// Begins anew: after a failure an answer that comes late would be taken for the next one.
    pub(super) async fn reconnect(&mut self) -> anyhow::Result<()> {
        let token = self.token.take();
        *self = Self { token, ..Self::connect(self.server).await? };
        Ok(())
    }

    pub(super) async fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        self.begin("GET", path)?;
        self.request.push_str("\r\n");
        self.answered().await
    }

    pub(super) async fn post(
        &mut self,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> anyhow::Result<Answer> {
        self.begin("POST", path)?;
        if let Some(key) = key {
            write!(self.request, "idempotency-key: {key}\r\n")?;
        }
        let length = body.len();
        write!(
            self.request,
            "content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )?;
        self.answered().await
    }

    fn begin(&mut self, method: &str, path: &str) -> anyhow::Result<()> {
        self.request.clear();
        write!(self.request, "{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.host)?;
        if let Some(token) = &self.token {
            write!(self.request, "{TOKEN_HEADER}: {token}\r\n")?;
        }
        Ok(())
    }

    /// Sends the request and reads its answer whole.
    async fn answered(&mut self) -> anyhow::Result<Answer> {
        self.stream.write_all(self.request.as_bytes()).await.context("send")?;
        loop {
            if let Some(Head { status, length, body }) = head_of(&self.received)? {
                let whole = length + body;
                ensure!(whole <= LONGEST_ANSWER, "the answer has {whole} bytes");
                while self.received.len() < whole {
                    self.receive().await?;
                }
                let head = self.received.split_to(length).freeze();
                let body = self.received.split_to(body).freeze();
                let answer = Answer { status, head, body };
                if let Some(token) = answer.header(TOKEN_HEADER) {
                    self.token = Some(token.to_owned());
                }
                return Ok(answer);
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> anyhow::Result<()> {
        self.received.reserve(4 * 1024);
        if self.stream.read_buf(&mut self.received).await.context("receive")? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }
}

/// Where an answer's parts end.
struct Head {
    status: StatusCode,
    length: usize,
    body: usize,
}

/// The head at the start of what was received, if it is there whole.
fn head_of(received: &[u8]) -> anyhow::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(received)? else { return Ok(None) };
    let status = StatusCode::from_u16(response.code.context("no status")?)?;
    let find = |name: &str| response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
    ensure!(find("transfer-encoding").is_none(), "the answer has no Content-Length");
    let body = match find("content-length") {
        Some(header) => std::str::from_utf8(header.value)?.trim().parse()?,
        None => 0,
    };
    Ok(Some(Head { status, length, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_found_when_it_is_whole() -> anyhow::Result<()> {
        let text = b"HTTP/1.1 201 Created\r\nLocation: /a\r\ncontent-length: 2\r\n\r\nokHTTP";
        for cut in 0..text.len() - 6 {
            assert!(head_of(&text[..cut])?.is_none(), "{cut}");
        }
        let head = head_of(text)?.expect("whole");
        assert_eq!((head.status, head.length, head.body), (StatusCode::CREATED, 57, 2));
        let head = Bytes::copy_from_slice(&text[..head.length]);
        let answer = Answer { status: StatusCode::CREATED, head, body: Bytes::new() };
        assert_eq!((answer.header("location"), answer.header("age")), (Some("/a"), None));
        Ok(())
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for text in ["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "SMTP\r\n\r\n"] {
            assert!(head_of(text.as_bytes()).is_err(), "{text}");
        }
        assert!(head_of(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n").is_err());
    }
}
