//! Rate limits: so much per key and time.

mod by;
#[cfg(feature = "axum")]
mod client;
mod config;
mod core;
mod decision;
mod error;
mod future;
#[cfg(feature = "axum")]
mod headers;
#[cfg(feature = "axum")]
mod http;
mod key;
mod layer;
mod limit;
mod limiter;
mod memory;
mod quota;
#[cfg(feature = "redis")]
mod redis;
mod refund;
#[cfg(feature = "redis")]
mod remote;
mod reply;
mod service;
mod stack;
mod stats;
mod waiting;

pub use self::by::KeyBy;
#[cfg(feature = "axum")]
pub use self::client::{ClientIp, ForwardedBy};
pub use self::config::{MissingKey, Overflow, RateLimitConfig, RateLimitHeaders, StoreFailure};
pub use self::decision::Decision;
pub use self::error::{RateLimited, Refusal};
pub use self::future::RateLimitFuture;
#[cfg(feature = "axum")]
pub use self::http::cors_preflight;
pub use self::key::{KeyParts, RateKey};
pub use self::layer::RateLimitLayer;
pub use self::limit::Limit;
pub use self::limiter::RateLimiter;
pub use self::quota::Quota;
#[cfg(feature = "redis")]
pub use self::redis::{
    RedisRateConfig, RedisRateError, RedisRateLimiter, RedisRateStats, RedisRateStore,
};
pub use self::refund::{NeverRefund, Refund};
#[cfg(feature = "axum")]
pub use self::refund::{RefundRateLimit, RefundRefusals, refused_by_status};
pub use self::reply::RateLimitReply;
pub use self::service::RateLimitService;
pub use self::stats::RateLimitStats;
