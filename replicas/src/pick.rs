//! The guard of one request on one node.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::choose::Choice;
use crate::node::{End, Node};
use crate::rota::Rota;
use crate::topology::Topology;
use crate::{Outcome, Reason, Role};

/// A node picked for one request, which it counts as in flight until it is dropped.
///
/// Dereferences to the node. Say how it went with [`succeeded`](Self::succeeded),
/// [`failed`](Self::failed) or [`end`](Self::end); a pick that is merely dropped (a cancelled
/// request, a panic) is counted as cancelled and says nothing about the node's health. A node that is
/// removed from its set stays usable through the picks it has.
#[must_use = "a pick that is dropped at once counts as a cancelled request"]
pub struct Pick<N> {
    node: Arc<Node<N>>,
    end: End,
}

impl<N> Pick<N> {
    /// Takes a place on the chosen node; `None` if there is none. Of reads that the primary serves for
    /// want of a replica, at most `budget` get one.
    pub(crate) fn enter(
        topology: &Topology<N>,
        choice: Choice,
        budget: u64,
        rota: &Rota,
    ) -> Option<Self> {
        let Choice { at, reason, substituting, timed } = choice;
        let seat = &topology.seats[at];
        let limit = topology.limit(at);
        // The epoch first: an ejection in between makes this request's outcome stale, not wrong.
        let epoch = seat.node.epoch();
        let entered = if substituting {
            seat.node.enter_substituting(limit, budget, reason)
        } else {
            seat.node.enter(limit, reason)
        };
        let end = End {
            outcome: None,
            epoch,
            role: seat.role,
            reason,
            substituting,
            measured: topology.timed,
            since: timed.then(|| rota.now().0),
        };
        entered.then(|| Self { node: Arc::clone(&seat.node), end })
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// What the node was in its set when it was picked.
    #[must_use]
    pub fn role(&self) -> Role {
        self.end.role
    }

    /// Why this node.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.end.reason
    }

    /// The node did its part.
    pub fn succeeded(self) {
        self.end(Outcome::Success);
    }

    /// The node failed: it could not be reached, broke off, or did not answer in time. Saturation
    /// and errors of the request itself are not failures of the node.
    pub fn failed(self) {
        self.end(Outcome::Failure);
    }

    /// How it went, in one word.
    pub fn end(mut self, outcome: Outcome) {
        self.end.outcome = Some(outcome);
    }

    /// The node has answered. What is still to come, such as a body at the pace of its reader, says
    /// nothing about how quick it is.
    #[cfg(feature = "http")]
    pub(crate) fn answered(&mut self) {
        if self.end.since.is_some() {
            self.node.learn(End { outcome: Some(Outcome::Success), ..self.end });
            self.end.since = None;
        }
    }

    /// The node did its part, though the request may go on for hours: what it did before is forgiven
    /// now, and not at the end.
    #[cfg(feature = "http")]
    pub(crate) fn proved(&self) {
        self.node.proved(self.end.epoch);
    }

    pub(crate) fn id(&self) -> u64 {
        self.node.id
    }
}

impl<N> Deref for Pick<N> {
    type Target = N;

    fn deref(&self) -> &N {
        &self.node.value
    }
}

impl<N> Drop for Pick<N> {
    fn drop(&mut self) {
        self.node.end(self.end);
    }
}

impl<N> fmt::Debug for Pick<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the node: it may hold a password.
        f.debug_struct("Pick")
            .field("name", &self.name())
            .field("role", &self.role())
            .field("reason", &self.reason())
            .finish_non_exhaustive()
    }
}
