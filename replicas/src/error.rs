//! The crate's failures: a pick that has no node, and a read that failed on every node.

use std::time::Duration;

/// Any error that can travel between threads; what tower layers use among themselves.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The shortest time that an HTTP `Retry-After` can say, and long for a place to become free.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// No node may serve what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// A write, or a read pinned to the primary, in a set that never had one.
    #[error("the set has no primary, which a write or a pinned read needs")]
    NoPrimary,
    /// A write, or a read pinned to the primary, while it is not known which node is the primary; also of
    /// a session that wrote to a later primary than the one that is known.
    #[error("which node is the primary is not known at present")]
    PrimaryUnknown,
    /// No node is fit to serve the read: each is fenced, unknown, or without what the session must
    /// see.
    #[error("no node is fit to serve the read at present")]
    NoFitNode,
    /// Every node that may serve the request has as many as it may have at once.
    #[error("every node that may serve the request is full")]
    Saturated,
    /// No replica is fit to serve the read, and the primary serves as many such reads as it may.
    #[error("no replica is fit to serve the read, and the primary's share for reads is used up")]
    PrimaryReadsExhausted,
}

impl RouteError {
    /// Whether the same request can succeed later on the same set.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoPrimary => false,
            Self::PrimaryUnknown
            | Self::NoFitNode
            | Self::Saturated
            | Self::PrimaryReadsExhausted => true,
        }
    }

    /// How long to wait before the request is made again, if that makes sense.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.is_retryable().then_some(RETRY_AFTER)
    }
}

/// Why [`Replicas::read_with`](crate::Replicas::read_with) has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError<E> {
    /// There was no node to ask, so the operation never ran.
    #[error("no node may serve the read")]
    NoNode(#[source] RouteError),
    /// The operation's own error: at once if it did not blame the node, else the error of the
    /// last node there was to try.
    #[error("the operation failed")]
    Operation(#[source] E),
}

impl<E> ReadError<E> {
    /// Whether the operation never ran because no node may serve it.
    #[must_use]
    pub fn is_no_node(&self) -> bool {
        matches!(self, Self::NoNode(_))
    }

    /// The operation's own error, if it ran.
    #[must_use]
    pub fn into_operation(self) -> Option<E> {
        match self {
            Self::NoNode(_) => None,
            Self::Operation(error) => Some(error),
        }
    }
}
