#![doc = include_str!("../README.md")]

mod breaker;
mod clock;
#[cfg(feature = "axum")]
mod drain;
mod error;
mod limit;
#[cfg(feature = "axum")]
mod problem;
mod stats;

pub use crate::breaker::{
    AsError, Breaker, BreakerConfig, BreakerLayer, BreakerService, BreakerStats, Classify,
    ErrorsFail, Figures, Judgement, Open, Outcome, Permit, Reason, Reject, ResponseFuture, State,
    Transition,
};
#[cfg(feature = "axum")]
pub use crate::breaker::{AsResponse, ServerErrorsFail};
#[cfg(feature = "axum")]
pub use crate::drain::{
    Cut, CutKind, Drain, DrainConfig, DrainEnd, DrainReport, DrainStats, Job, JobCut, ServeError,
    serve,
};
pub use crate::error::{BoxError, ConfigError};
#[cfg(feature = "axum")]
pub use crate::limit::{ClientIp, ForwardedBy, RefundRateLimit, RefundRefusals, cors_preflight};
pub use crate::limit::{
    Decision, KeyBy, KeyParts, Limit, MissingKey, NeverRefund, Overflow, Quota, RateKey,
    RateLimitConfig, RateLimitFuture, RateLimitHeaders, RateLimitLayer, RateLimitReply,
    RateLimitService, RateLimitStats, RateLimited, RateLimiter, Refund, Refusal, StoreFailure,
};
#[cfg(feature = "redis")]
pub use crate::limit::{
    RedisRateConfig, RedisRateError, RedisRateLimiter, RedisRateStats, RedisRateStore,
};
pub use crate::stats::Emit;
