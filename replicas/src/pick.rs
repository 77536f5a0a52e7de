//! The guard of one request on one node.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::choose::Choice;
use crate::node::Node;
use crate::rota::Rota;
use crate::ticket::Ticket;
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
    ticket: Ticket,
}

impl<N> Pick<N> {
    /// Takes a place on the chosen node; `None` if there is none. Of reads that the primary serves for
    /// want of a replica, at most `budget` get one.
    #[inline]
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
        if !entered {
            return None;
        }
        let ticket = Ticket::new(epoch, seat.role, reason);
        let ticket = ticket.substituting(substituting).measured(topology.timed);
        let ticket = if timed { ticket.begun(rota.begin()) } else { ticket };
        Some(Self { node: Arc::clone(&seat.node), ticket })
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// What the node was in its set when it was picked.
    #[must_use]
    pub fn role(&self) -> Role {
        self.ticket.role()
    }

    /// Why this node.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.ticket.reason()
    }

    /// The node did its part.
    #[inline]
    pub fn succeeded(self) {
        self.end(Outcome::Success);
    }

    /// The node failed: it could not be reached, broke off, or did not answer in time. Saturation
    /// and errors of the request itself are not failures of the node.
    #[inline]
    pub fn failed(self) {
        self.end(Outcome::Failure);
    }

    /// How it went, in one word.
    #[inline]
    pub fn end(mut self, outcome: Outcome) {
        let ticket = std::mem::replace(&mut self.ticket, Ticket::ENDED);
        self.node.end(ticket, outcome);
    }

    /// The node has answered. What is still to come, such as a body at the pace of its reader, says
    /// nothing about how quick it is.
    #[cfg(feature = "http")]
    pub(crate) fn answered(&mut self) {
        if self.ticket.is_timed() {
            self.node.learn(self.ticket, Some(Outcome::Success));
            self.ticket = self.ticket.untimed();
        }
    }

    /// The node did its part, though the request may go on for hours: what it did before is forgiven
    /// now, and not at the end.
    #[cfg(feature = "http")]
    pub(crate) fn proved(&self) {
        self.node.proved(self.ticket.epoch());
    }

    pub(crate) fn id(&self) -> u64 {
        self.node.id
    }
}

impl<N> Deref for Pick<N> {
    type Target = N;

    #[inline]
    fn deref(&self) -> &N {
        &self.node.value
    }
}

impl<N> Drop for Pick<N> {
    #[inline]
    fn drop(&mut self) {
        if !self.ticket.is_ended() {
            self.node.abandon(self.ticket);
        }
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
