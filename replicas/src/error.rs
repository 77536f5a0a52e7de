//! The crate's failures: a pick that has no node, and a read that failed on every node.

/// Any error that can travel between threads; what tower layers use among themselves.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// No node may serve what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// A write, or a read pinned to the primary, in a set that was built without one.
    #[error("the set has no primary, which a write or a pinned read needs")]
    NoPrimary,
}

impl RouteError {
    /// Whether the same request can succeed later on the same set. Never, as yet: the nodes of a
    /// set are fixed, and a set that has a usable node always hands one out.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoPrimary => false,
        }
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
