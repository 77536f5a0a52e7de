//! Tests of the public surface.

#![expect(clippy::unwrap_used, reason = "a helper that unwraps fails its test, as it should")]

mod background;
mod endpoints;
mod health;
mod layer;
mod scrape;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use escala_observability::{Observability, ObservabilityBuilder};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

fn builder() -> ObservabilityBuilder {
    Observability::builder("shop").version("1.2.3").environment("test")
}

fn open() -> Observability {
    builder().build().expect("the defaults are valid")
}

/// An answer read to its end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("the answer is JSON")
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn send(app: &Router, request: Request<Body>) -> Answer {
    let (parts, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, text }
}

fn request(method: &str, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
}

async fn get(app: &Router, path: &str) -> Answer {
    send(app, request("GET", path)).await
}

/// The lines of `/metrics` that begin with `prefix`, sorted; a fresh text, not a cached one.
async fn series(obs: &Observability, prefix: &str) -> Vec<String> {
    // Paused clocks move on only when told to; the text is cached for half a second.
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    tokio::time::resume();
    let text = get(&obs.router(), "/metrics").await.text;
    let mut lines: Vec<String> =
        text.lines().filter(|line| line.starts_with(prefix)).map(str::to_owned).collect();
    lines.sort();
    lines
}
