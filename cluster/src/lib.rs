#![doc = include_str!("../README.md")]

mod breaker;
mod clock;
#[cfg(feature = "axum")]
mod drain;
mod error;
mod histogram;
mod limit;
#[cfg(feature = "axum")]
mod problem;
#[cfg(feature = "retry")]
mod retry;
#[cfg(any(feature = "axum", feature = "retry"))]
mod retry_after;
mod stats;

pub use crate::breaker::{
    AsError, AtHead, Breaker, BreakerConfig, BreakerLayer, BreakerRegistry, BreakerService,
    BreakerStats, Classify, Divert, ErrorsFail, FallbackFuture, FallbackTo, Figures, Guard,
    JudgeAt, Judgement, KeyFn, KeyOf, KeyOverflow, Keyed, Open, Outcome, Permit, ReadRequest,
    Reason, RegistryConfig, RegistryStats, Reject, ResponseFuture, State, Transition, key_fn,
};
#[cfg(feature = "axum")]
pub use crate::breaker::{
    AsResponse, AtEndOfBody, ExtensionKey, HashedKey, HeaderKey, HostKey, JudgedBody, RouteKey,
    ServerErrorsFail,
};
#[cfg(feature = "axum")]
pub use crate::drain::{
    Cut, CutKind, Drain, DrainConfig, DrainEnd, DrainReport, DrainStats, Job, JobCut, ServeError,
    serve, serve_management,
};
pub use crate::error::{BoxError, ConfigError};
#[cfg(feature = "axum")]
pub use crate::limit::OverloadFails;
pub use crate::limit::{
    AdaptiveConfig, Answer, Concurrency, ConcurrencyConfig, ConcurrencyLimit,
    ConcurrencyLimitFuture, ConcurrencyLimitLayer, ConcurrencyLimitService, ConcurrencyLimitStats,
    ConcurrencyPermit, Overloaded,
};
#[cfg(feature = "axum")]
pub use crate::limit::{
    ClientIp, ForwardedBy, RefundRateLimit, RefundRefusals, cors_preflight, refused_by_status,
};
pub use crate::limit::{
    Decision, KeyBy, KeyParts, Limit, MissingKey, NeverRefund, Overflow, Quota, RateKey,
    RateLimitConfig, RateLimitFuture, RateLimitHeaders, RateLimitLayer, RateLimitReply,
    RateLimitService, RateLimitStats, RateLimited, RateLimiter, Refund, Refusal, StoreFailure,
};
#[cfg(feature = "redis")]
pub use crate::limit::{
    RedisRateConfig, RedisRateError, RedisRateLimiter, RedisRateStats, RedisRateStore,
};
#[cfg(feature = "retry")]
pub use crate::retry::{
    CloneBody, CopyBody, EmptyBody, EveryError, HedgeConfig, HedgeFuture, HedgeLayer, HedgeService,
    HedgeStats, HttpRetry, JudgeError, Retry, RetryConfig, RetryPolicy, RetryRules, RetryStats,
    RetryWhen,
};
pub use crate::stats::Emit;
