//! What a monitor tells: who became the primary, who must not be, who lags.

use std::fmt;
use std::time::Duration;

/// Something that an operator may want to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A node is the primary from now on.
    Promoted {
        /// The new primary.
        node: String,
        /// Its timeline.
        timeline: u32,
        /// The one before; `None` if none was known.
        previous: Option<String>,
    },
    /// A node says that it takes writes on a timeline that has been left: an old primary that came
    /// back, or was not stopped. It gets nothing; what was written to it since is on no other node. Told
    /// once in each run of that server.
    Fenced {
        /// The old primary.
        node: String,
        /// Its timeline.
        timeline: u32,
        /// The highest timeline that was seen.
        newest: u32,
    },
    /// Two nodes take writes on the newest timeline, and nothing says which is right. The known
    /// primary stays, if there is one; this one gets nothing. Somebody must make one of them follow
    /// the other.
    SplitBrain {
        /// The node that is refused.
        node: String,
        /// The one that stays.
        primary: Option<String>,
        /// The timeline of both.
        timeline: u32,
    },
    /// A node's data has another origin: it is not of this cluster, and gets nothing.
    ForeignSystem {
        /// The stranger.
        node: String,
        /// Its `system_identifier`.
        system: u64,
        /// The cluster's.
        expected: u64,
    },
    /// A replica is too far behind to be read from.
    LagExcluded {
        /// The replica.
        node: String,
        /// How far behind in time, or at least so far.
        lag: Duration,
        /// How far behind in bytes.
        bytes: u64,
    },
    /// A replica that was excluded has caught up.
    LagAdmitted {
        /// The replica.
        node: String,
    },
    /// A node does not answer. Told once, not for each attempt.
    Unreachable {
        /// The node.
        node: String,
        /// Why, as far as it is known.
        error: String,
    },
    /// A node answers again.
    Reached {
        /// The node.
        node: String,
    },
}

impl Event {
    /// The node it is about.
    #[must_use]
    pub fn node(&self) -> &str {
        match self {
            Self::Promoted { node, .. }
            | Self::Fenced { node, .. }
            | Self::SplitBrain { node, .. }
            | Self::ForeignSystem { node, .. }
            | Self::LagExcluded { node, .. }
            | Self::LagAdmitted { node }
            | Self::Unreachable { node, .. }
            | Self::Reached { node } => node,
        }
    }

    /// Whether somebody should look after it: the cluster is not as it should be.
    #[must_use]
    pub fn is_alarming(&self) -> bool {
        matches!(self, Self::Fenced { .. } | Self::SplitBrain { .. } | Self::ForeignSystem { .. })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Promoted { node, timeline, previous: None } => {
                write!(f, "{node} is the primary, on timeline {timeline}")
            }
            Self::Promoted { node, timeline, previous: Some(previous) } => {
                write!(f, "{node} is the primary after {previous}, on timeline {timeline}")
            }
            Self::Fenced { node, timeline, newest } => {
                write!(f, "{node} takes writes on timeline {timeline}, but {newest} is the newest")
            }
            Self::SplitBrain { node, primary: Some(primary), timeline } => {
                write!(
                    f,
                    "{node} takes writes on timeline {timeline}, as the primary {primary} does"
                )
            }
            Self::SplitBrain { node, primary: None, timeline } => {
                write!(f, "{node} takes writes on timeline {timeline}, as another node does")
            }
            Self::ForeignSystem { node, system, expected } => {
                write!(f, "{node} is of the system {system}, not of {expected}")
            }
            Self::LagExcluded { node, lag, bytes } => {
                write!(f, "{node} is {lag:?} and {bytes} bytes behind")
            }
            Self::LagAdmitted { node } => write!(f, "{node} has caught up"),
            Self::Unreachable { node, error } => write!(f, "{node} does not answer: {error}"),
            Self::Reached { node } => write!(f, "{node} answers"),
        }
    }
}

/// Writes an event to the log.
#[cfg(feature = "tracing")]
pub(super) fn log(event: &Event) {
    let node = event.node();
    if event.is_alarming() {
        tracing::error!(node, "{event}");
    } else if matches!(event, Event::LagExcluded { .. } | Event::Unreachable { .. }) {
        tracing::warn!(node, "{event}");
    } else {
        tracing::info!(node, "{event}");
    }
}

#[cfg(not(feature = "tracing"))]
pub(super) fn log(_: &Event) {}
