//! HTTP services as nodes, and a reverse proxy over them.
//!
//! ```
//! use escala_replicas::Replicas;
//! use escala_replicas::http::{ProxyConfig, ReverseProxy, Upstream, UpstreamConfig};
//!
//! # fn main() -> Result<(), escala_replicas::ConfigError> {
//! let upstream = |address| Upstream::new(address, UpstreamConfig::default());
//! let replicas = Replicas::without_primary()
//!     .replica("a", 3, upstream("10.0.0.1:3000")?)
//!     .replica("b", 1, upstream("10.0.0.2:3000")?)
//!     .build()?;
//! // A tower service; `answering` turns its errors into responses, as axum wants it.
//! let proxy = ReverseProxy::new(replicas, ProxyConfig::default())?.answering();
//! # let _ = proxy;
//! # Ok(())
//! # }
//! ```

mod config;
mod network;

mod budget;
mod headers;
mod retry;

mod connection;
mod connections;
mod connector;

mod body_decoder;
mod download;
mod exchange;
mod overlap;
mod request_body;
mod request_head;
mod response_body;
mod response_head;
mod tunnel;
mod upload;
mod upstream;

mod error;
mod stats;

mod answering;
mod forward;
mod outgoing;
mod proxy;
mod response_future;

pub use answering::{Answering, AnsweringFuture};
pub use config::{HostPolicy, ProxyConfig, UpstreamConfig};
pub use error::{ProxyError, UpstreamError, problem};
pub use headers::{Peer, client_address, strip_hop_by_hop};
pub use network::Network;
pub use proxy::ReverseProxy;
pub use response_body::ResponseBody;
pub use response_future::ResponseFuture;
pub use stats::ProxyStats;
pub use upstream::{Upstream, UpstreamFuture};
