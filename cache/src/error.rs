//! What a caller can get instead of a value, and how a store fails.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why [`get_or_load`](crate::Cache::get_or_load) has no value.
///
/// Only the source can cause one: a fault of a cache layer falls through to the load. The error
/// of one load reaches each of its callers once; nothing is stored and the next call loads
/// again.
#[non_exhaustive]
pub enum LoadError<E> {
    /// The source failed. All callers of the load share the one error.
    Source(Arc<E>),
    /// The caller joined a load whose error is of another type. Load one cache with one error
    /// type and this cannot happen.
    Foreign {
        /// Name of the type the load failed with.
        type_name: &'static str,
    },
    /// The load panicked.
    Panicked {
        /// What the panic said, if it was text.
        message: Arc<str>,
    },
    /// The load took longer than [`load_timeout`](crate::CacheConfig::load_timeout).
    TimedOut,
    /// The load's task was dropped before it ended: its runtime is shutting down.
    Aborted,
}

impl<E> LoadError<E> {
    /// Whether the load ran out of time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut)
    }

    /// Whether the load panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        matches!(self, Self::Panicked { .. })
    }

    /// Whether the same call may well succeed soon. A failing source must say so itself; a
    /// panic would come again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Foreign { .. })
    }

    /// The source's own error, if it failed.
    #[must_use]
    pub fn source_error(&self) -> Option<&E> {
        match self {
            Self::Source(error) => Some(error),
            _ => None,
        }
    }
}

// Written out, since a derive would ask `E: Clone` of an `Arc<E>`.
impl<E> Clone for LoadError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Source(error) => Self::Source(Arc::clone(error)),
            Self::Foreign { type_name } => Self::Foreign { type_name },
            Self::Panicked { message } => Self::Panicked { message: Arc::clone(message) },
            Self::TimedOut => Self::TimedOut,
            Self::Aborted => Self::Aborted,
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => f.debug_tuple("Source").field(error).finish(),
            Self::Foreign { type_name } => {
                f.debug_struct("Foreign").field("type_name", type_name).finish()
            }
            Self::Panicked { message } => {
                f.debug_struct("Panicked").field("message", message).finish()
            }
            Self::TimedOut => f.write_str("TimedOut"),
            Self::Aborted => f.write_str("Aborted"),
        }
    }
}

impl<E> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(_) => f.write_str("the source failed"),
            Self::Foreign { type_name } => {
                write!(f, "the load failed for its first caller, with {type_name}")
            }
            Self::Panicked { message } => write!(f, "the load panicked: {message}"),
            Self::TimedOut => f.write_str("the load took too long"),
            Self::Aborted => f.write_str("the load was dropped before it ended"),
        }
    }
}

impl<E: Error + 'static> Error for LoadError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source_error().map(|error| error as _)
    }
}

/// How an operation on a shared store failed.
///
/// A store reports it to the cache; callers of the cache see it only in
/// [`Removal::MemoryOnly`](crate::Removal::MemoryOnly).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No answer in time. The operation may still take effect.
    #[error("the shared store did not answer in time")]
    TimedOut,
    /// The store failed too often of late and is left alone for a moment.
    #[error("the shared store is left alone after repeated failures")]
    Suspended,
    /// The store or the way to it failed.
    #[error("the shared store failed")]
    Failed(#[source] Arc<dyn Error + Send + Sync>),
}

impl StoreError {
    /// A failure with its cause.
    pub fn failed(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(cause.into().into())
    }

    /// Whether the store did not answer in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut)
    }
}

/// An error on its way from a load to callers of any error type.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    Source { error: Arc<dyn Any + Send + Sync>, type_name: &'static str },
    Panicked { message: Arc<str> },
    TimedOut,
    Aborted,
}

impl Failure {
    pub(crate) fn source<E: Send + Sync + 'static>(error: E) -> Self {
        Self::Source { error: Arc::new(error), type_name: std::any::type_name::<E>() }
    }

    pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self::Panicked { message: text.unwrap_or("no message").into() }
    }
}

impl<E: Send + Sync + 'static> From<Failure> for LoadError<E> {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Source { error, type_name } => match error.downcast::<E>() {
                Ok(error) => Self::Source(error),
                Err(_) => Self::Foreign { type_name },
            },
            Failure::Panicked { message } => Self::Panicked { message },
            Failure::TimedOut => Self::TimedOut,
            Failure::Aborted => Self::Aborted,
        }
    }
}
