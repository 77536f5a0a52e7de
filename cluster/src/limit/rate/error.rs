//! Why a request was refused.

use std::sync::Arc;
use std::time::Duration;

/// A limit has refused the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rate limit {limit} refuses the request: {refusal}")]
#[non_exhaustive]
pub struct RateLimited {
    /// The name of the limit.
    pub limit: Arc<str>,
    /// Why.
    pub refusal: Refusal,
    /// Time after which the same request can be let through. A minimum: others may be faster.
    /// `None` if waiting does not help, or nobody knows how long.
    pub retry_after: Option<Duration>,
}

impl RateLimited {
    /// Whether the same request can succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.refusal, Refusal::Limited | Refusal::StoreFailed)
    }
}

/// The ways in which a limit refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The key has too few units left.
    #[error("the key has used up its quota")]
    Limited,
    /// The request costs more than the whole burst.
    #[error("it costs more than a key can ever have at once")]
    TooCostly,
    /// The request has no key, and the limit is set to refuse those.
    #[error("it has no key to count it under")]
    NoKey,
    /// The store could not be asked, and the limit is set to refuse then.
    #[error("the store of the limit cannot be asked")]
    StoreFailed,
}
