//! Rate limits: so much per key and time.

mod config;
mod core;
mod decision;
mod error;
mod key;
mod limiter;
mod memory;
mod quota;
#[cfg(feature = "redis")]
mod remote;
mod stats;

pub use self::config::{MissingKey, Overflow, RateLimitConfig, StoreFailure};
pub use self::decision::Decision;
pub use self::error::{RateLimited, Refusal};
pub use self::key::{KeyParts, RateKey};
pub use self::limiter::RateLimiter;
pub use self::quota::Quota;
pub use self::stats::RateLimitStats;
