//! Why a lookup or a write in a batch failed.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::PoolError;

/// Why a lookup, or a write, has no result.
///
/// Each caller of a failed batch gets its own copy.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum BatchError {
    /// As many callers as allowed wait already.
    TooManyWaiters {
        /// The bound.
        limit: usize,
    },
    /// The source failed; its error is shared by all callers of the batch.
    Failed(Arc<dyn Error + Send + Sync>),
    /// The source did not answer in time. Whether a write took effect is unknown.
    TimedOut {
        /// The time given.
        after: Duration,
    },
    /// The source panicked. Whether a write took effect is unknown.
    Panicked {
        /// The message of the panic.
        message: String,
    },
    /// The group was written, but the writer returned another number of results than it was given
    /// rows, so nobody knows whose they are.
    WrongCount {
        /// The rows written.
        expected: usize,
        /// The results returned.
        found: usize,
    },
    /// There was no tokio runtime to carry the batch to its end.
    Abandoned,
}

impl BatchError {
    /// The error of the source, if it is of this type.
    ///
    /// ```
    /// # use escala_pool::{BatchError, PoolError};
    /// # use std::sync::Arc;
    /// let error = BatchError::Failed(Arc::new(PoolError::Closed));
    /// assert!(matches!(error.cause(), Some(PoolError::Closed)));
    /// ```
    #[must_use]
    pub fn cause<E: Error + 'static>(&self) -> Option<&E> {
        match self {
            Self::Failed(cause) => cause.downcast_ref(),
            _ => None,
        }
    }

    /// Whether a deadline passed: the batcher's own, or the pool's.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut { .. }) || self.is_pool(PoolError::is_timeout)
    }

    /// Whether there was too much work: nothing is wrong with the source.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        matches!(self, Self::TooManyWaiters { .. }) || self.is_pool(PoolError::is_saturated)
    }

    /// Whether a pool's node is unreachable, died or is shutting down.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        self.is_pool(PoolError::is_connection)
    }

    /// Whether the call had no effect and may succeed when it is made again.
    ///
    /// A lookup may be repeated after any error; this is for writes. Of the source's errors only a
    /// [`PoolError`] is known.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::TooManyWaiters { .. }) || self.is_pool(PoolError::is_retryable)
    }

    fn is_pool(&self, predicate: impl Fn(&PoolError) -> bool) -> bool {
        self.cause().is_some_and(predicate)
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyWaiters { limit } => {
                write!(f, "{limit} callers wait for a batch already, which is the limit")
            }
            Self::Failed(_) => f.write_str("the batch failed"),
            Self::TimedOut { after } => write!(f, "the batch did not end within {after:?}"),
            Self::Panicked { message } => write!(f, "the batch panicked: {message}"),
            Self::WrongCount { expected, found } => {
                write!(f, "the writer returned {found} results for {expected} rows")
            }
            Self::Abandoned => f.write_str("no runtime carried the batch to its end"),
        }
    }
}

impl Error for BatchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // The inside of the `Arc`, so that the caller can downcast it.
            Self::Failed(cause) => Some(&**cause),
            _ => None,
        }
    }
}
