//! One user's connection: HTTP/1.1 by hyper, driven in the user's own task.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;

use anyhow::{Context, bail};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

type Body = Full<Bytes>;

/// An open connection to the server.
pub(super) struct Client {
    sender: SendRequest<Body>,
    /// Polled beside the request instead of spawned: no hop between tasks, so that the load
    /// generator takes less of the machine from the server.
    connection: Pin<Box<Connection<TokioIo<TcpStream>, Body>>>,
    host: String,
}

/// A whole response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Client {
    pub(super) async fn connect(server: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server).await.context("connect")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, connection: Box::pin(connection), host: server.to_string() })
    }

    pub(super) async fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, None, Bytes::new()).await
    }

    pub(super) async fn post(
        &mut self,
        path: &str,
        key: Option<&str>,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, key, body).await
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let response = self.sender.send_request(request.body(Body::new(body))?);
        let (parts, body) = drive(&mut self.connection, response).await??.into_parts();
        let body = drive(&mut self.connection, body.collect()).await??.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}

/// Polls the connection until the future is done.
async fn drive<F: Future>(
    connection: &mut Pin<Box<Connection<TokioIo<TcpStream>, Body>>>,
    future: F,
) -> anyhow::Result<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut open = true;
    let done = std::future::poll_fn(|cx| {
        if open && let Poll::Ready(end) = connection.as_mut().poll(cx) {
            open = false;
            if let Err(error) = end {
                return Poll::Ready(Err(error));
            }
        }
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(Some(output))),
            Poll::Pending if open => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(None)),
        }
    });
    match done.await? {
        Some(output) => Ok(output),
        None => bail!("the server closed the connection"),
    }
}
