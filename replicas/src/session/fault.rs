//! Whose fault an error is, which decides who is asked next.

use crate::Outcome;

/// Whose fault an error of an operation is. A classifier says it of each error, to
/// [`read_with`](crate::Replicas::read_with) and [`write_with`](crate::Replicas::write_with); one that
/// only knows whether the node failed may say it by `true` and `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The node's: it is unreachable, broke off, or did not answer in time. The operation may have
    /// had its effect all the same, so a read is made again elsewhere and a write is not.
    Node,
    /// The node's, before anything was sent to it: a refused connection, say. The operation can have
    /// had no effect, so a write too is made again.
    NotSent,
    /// The node is well and gave this operation up, as a standby does that has to apply what a
    /// reader still looks at (PostgreSQL's 40001). A read is made again on another node.
    Conflict,
    /// The node is no primary (any more) and refused the write, which had no effect (PostgreSQL's
    /// 25006). Reads are refused by nobody: a primary that was restarted as a standby answers those of
    /// pinned sessions until its monitor, or a write, has found out.
    NotPrimary,
    /// The node is well and has too much to do, and refused before it did anything: the connections of
    /// its pool stayed in use, or the server has as many as it takes (PostgreSQL's 53300). It counts as
    /// [`Outcome::Overloaded`]. A read is made again on another node; a write is not, for that would
    /// add to the load.
    Busy,
    /// The operation's own: every node would answer the same.
    Operation,
}

impl Fault {
    /// What it says about the node.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Node | Self::NotSent => Outcome::Failure,
            Self::NotPrimary => Outcome::NotPrimary,
            Self::Busy => Outcome::Overloaded { retry_after: None },
            Self::Conflict | Self::Operation => Outcome::Neutral,
        }
    }
}

impl From<bool> for Fault {
    /// Whether the node failed.
    fn from(node_failed: bool) -> Self {
        if node_failed { Self::Node } else { Self::Operation }
    }
}
