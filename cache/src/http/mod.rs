//! An HTTP cache that obeys the RFCs: a layer in front of an axum router or any tower service of
//! HTTP requests.
//!
//! The rules stand in a pure engine: it is handed requests, stored responses and the time, and
//! says what may be done. [`Policy`] is what a shared cache is free to choose.

mod ask;
mod body;
mod call;
mod config;
pub(crate) mod engine;
mod fill;
mod finish;
mod flight;
mod future;
mod growing;
mod handle;
mod key;
mod landing;
mod layer;
mod marks;
mod origin;
mod purge;
mod respond;
mod route;
mod service;
mod stats;
mod store;
mod stored;
mod write;

pub use body::Body;
pub use config::HttpCacheConfig;
pub use engine::{Authorized, Policy};
pub use future::ResponseFuture;
pub use growing::BodyError;
pub use handle::HttpCache;
pub use layer::HttpCacheLayer;
pub use purge::PurgeConfig;
pub use service::HttpCacheService;
pub use stats::HttpCacheStats;
pub use stored::StoredResponse;
