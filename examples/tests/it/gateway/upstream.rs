//! An upstream that says who it is and what it got, and moves large bodies.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request};
use axum::routing::{get, post};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Serves until it is dropped.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    requests: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Upstream {
    /// Any path answers with the name and the request; `/zeros/{n}` with so many bytes; `/count`
    /// with how many it got.
    pub(super) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let requests = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&requests);
        let echo = async move |request: Request| {
            counted.fetch_add(1, Ordering::Relaxed);
            describe(name, request).await
        };
        let zeros = async |Path(left): Path<u64>| Body::new(Zeros { left });
        let router = Router::new()
            .route("/zeros/{count}", get(zeros))
            .route("/count", post(count))
            .fallback(echo);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("serve") });
        Self { address, requests, task }
    }

    /// How many requests it has described.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn describe(name: &str, request: Request) -> Json<serde_json::Value> {
    let (head, body) = request.into_parts();
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body = String::from_utf8_lossy(&body).into_owned();
    Json(json!({
        "name": name, "method": head.method.as_str(), "target": head.uri.to_string(),
        "headers": headers, "body": body,
    }))
}

async fn count(request: Request) -> String {
    let mut body = request.into_body();
    let mut count = 0;
    while let Some(Ok(frame)) = body.frame().await {
        count += frame.data_ref().map_or(0, Bytes::len);
    }
    count.to_string()
}

/// So many bytes, made as they are asked for.
struct Zeros {
    left: u64,
}

static CHUNK: [u8; 64 * 1024] = [0; 64 * 1024];

impl http_body::Body for Zeros {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let length = self.left.min(CHUNK.len() as u64);
        self.left -= length;
        let chunk = Bytes::from_static(&CHUNK[..usize::try_from(length).expect("fits")]);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(chunk))))
    }
}
