//! What can go wrong when a job is built, enqueued, read or replayed.

use std::time::Duration;

use crate::id::JobId;
use crate::job::Job;
use crate::lane::Lane;

/// Any error a handler may return, as in the rest of the tower world.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A job was not enqueued. It is inside: nothing is lost unless the caller drops it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnqueueError {
    /// The lane holds as many jobs as it may, counting delayed and running ones.
    #[error("lane {lane} is full: {capacity} jobs")]
    Full {
        /// The lane that was full.
        lane: Lane,
        /// Its capacity.
        capacity: usize,
        /// The job that was refused.
        job: Box<Job>,
    },
    /// No place became free in time, under [`Overflow::Wait`](crate::Overflow::Wait).
    #[error("lane {lane} was full for {waited:?}")]
    TimedOut {
        /// The lane that was full.
        lane: Lane,
        /// How long was waited: the configured limit.
        waited: Duration,
        /// The job that was refused.
        job: Box<Job>,
    },
    /// The queue has been closed.
    #[error("the queue is closed")]
    Closed {
        /// The job that was refused.
        job: Box<Job>,
    },
}

impl EnqueueError {
    /// The job that was refused, to be stored, sent elsewhere or tried again.
    #[must_use]
    pub fn into_job(self) -> Job {
        match self {
            Self::Full { job, .. } | Self::TimedOut { job, .. } | Self::Closed { job } => *job,
        }
    }

    /// Whether the lane had no place, with or without waiting for one.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::TimedOut { .. })
    }

    /// Whether a place was waited for in vain.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut { .. })
    }

    /// Whether the queue takes no more jobs.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    /// Whether the same job may be accepted later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.is_full()
    }
}

/// A dead letter was not replayed; it stays where it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// No dead letter has this id: never had, replayed already, or dropped as the oldest.
    #[error("no dead letter with id {0}")]
    NotFound(JobId),
    /// The lane of the job has no place.
    #[error("lane {0} is full")]
    Full(Lane),
    /// The queue has been closed.
    #[error("the queue is closed")]
    Closed,
}

impl ReplayError {
    /// Whether the same replay may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

/// A payload has no JSON form.
#[derive(Debug, thiserror::Error)]
#[error("the payload has no JSON form")]
pub struct EncodeError(#[source] pub(crate) serde_json::Error);

/// A payload is not what the handler expects.
///
/// It has no `source()` on purpose: the JSON reader's message quotes the value it stumbled on, and
/// handler errors end up in logs and dead letters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload does not fit: {category} at line {line} column {column}")]
pub struct DecodeError {
    category: &'static str,
    line: usize,
    column: usize,
}

impl DecodeError {
    pub(crate) fn new(error: &serde_json::Error) -> Self {
        use serde_json::error::Category;
        let category = match error.classify() {
            Category::Io => "unreadable input",
            Category::Syntax => "malformed JSON",
            Category::Data => "unexpected type or value",
            Category::Eof => "unexpected end",
        };
        Self { category, line: error.line(), column: error.column() }
    }
}

/// A setting that cannot work: which, what it was, and the rule it breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}: {rule}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The setting, such as `high.workers`.
    pub field: String,
    /// Its value.
    pub value: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

impl ConfigError {
    pub(crate) fn check(
        holds: bool,
        field: impl Into<String>,
        value: impl std::fmt::Debug,
        rule: &'static str,
    ) -> Result<(), Self> {
        if holds {
            return Ok(());
        }
        Err(Self { field: field.into(), value: format!("{value:?}"), rule })
    }
}
