//! The reverse proxy and its upstreams, against servers on real sockets.

mod accounting;
mod blame;
mod config;
mod hedging;
mod retries;
mod server;
mod upstream;
mod wire;

use std::time::Duration;

use bytes::Bytes;
use escala_replicas::http::{
    ProxyConfig, ProxyError, ResponseBody, ReverseProxy, Upstream, UpstreamConfig,
};
use escala_replicas::{Replicas, Strategy};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tower::ServiceExt as _;

use self::server::{Answer, Server};
use crate::{eventually, in_flight, node, steady};

fn upstream(server: &Server) -> Upstream {
    let config = UpstreamConfig::default().response_timeout(Duration::from_secs(30));
    Upstream::new(&server.address.to_string(), config).unwrap()
}

/// A set of servers called `a`, `b`, and so on, in turn; none is ejected.
fn replicas(servers: &[&Server]) -> Replicas<Upstream> {
    let names = ["a", "b", "c"];
    let builder =
        names.iter().zip(servers).fold(Replicas::without_primary(), |set, (name, server)| {
            set.replica(*name, 1, upstream(server))
        });
    let config = steady().consecutive_failures(u32::MAX).failure_min_requests(u32::MAX);
    builder.strategy(Strategy::RoundRobin).config(config).build().unwrap()
}

fn proxy(servers: &[&Server], config: ProxyConfig) -> ReverseProxy {
    ReverseProxy::new(replicas(servers), config).unwrap()
}

fn request(method: &Method, body: &'static str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri("/path").body(Full::from(body)).unwrap()
}

async fn send(
    proxy: &ReverseProxy,
    method: &Method,
    body: &'static str,
) -> Result<Response<ResponseBody>, ProxyError> {
    proxy.clone().oneshot(request(method, body)).await
}

/// Status and body of an answer that must come.
async fn answer(proxy: &ReverseProxy, method: &Method) -> (u16, String) {
    let response = send(proxy, method, "").await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
