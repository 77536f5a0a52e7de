#![doc = include_str!("../README.md")]

mod breaker;
#[cfg(feature = "axum")]
mod drain;
mod error;
mod limit;
#[cfg(feature = "axum")]
mod problem;
mod stats;

pub use crate::breaker::{
    AsError, Breaker, BreakerConfig, BreakerLayer, BreakerService, BreakerStats, Classify,
    ErrorsFail, Judgement, Open, Outcome, Permit, Reject, ResponseFuture, State,
};
#[cfg(feature = "axum")]
pub use crate::breaker::{AsResponse, ServerErrorsFail};
#[cfg(feature = "axum")]
pub use crate::drain::{Drain, DrainConfig, DrainEnd, DrainReport, DrainStats, ServeError, serve};
pub use crate::error::{BoxError, ConfigError};
#[cfg(feature = "axum")]
pub use crate::limit::OverloadFails;
pub use crate::limit::{
    AdaptiveConfig, Answer, Concurrency, ConcurrencyConfig, ConcurrencyLimit,
    ConcurrencyLimitFuture, ConcurrencyLimitLayer, ConcurrencyLimitService, ConcurrencyLimitStats,
    ConcurrencyPermit, Overloaded,
};
pub use crate::limit::{
    Decision, KeyParts, MissingKey, Overflow, Quota, RateKey, RateLimitConfig, RateLimitStats,
    RateLimited, RateLimiter, Refusal, StoreFailure,
};
pub use crate::stats::Emit;
