//! The guard of one request on one node.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::shared::Shared;
use crate::{Outcome, Reason, Role};

/// A node picked for one request, which it counts as in flight until it is dropped.
///
/// Dereferences to the node. Say how it went with [`succeeded`](Self::succeeded) or
/// [`failed`](Self::failed); a pick that is merely dropped (a cancelled request, a panic) is
/// counted as cancelled and says nothing about the node's health.
#[must_use = "a pick that is dropped at once counts as a cancelled request"]
pub struct Pick<N> {
    shared: Arc<Shared<N>>,
    node: usize,
    reason: Reason,
    epoch: u64,
    outcome: Option<Outcome>,
}

impl<N> Pick<N> {
    pub(crate) fn new(shared: Arc<Shared<N>>, (node, reason): (usize, Reason)) -> Self {
        shared.picks[reason as usize].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // The epoch first: an ejection in between makes this request's outcome stale, not wrong.
        let epoch = shared.nodes[node].epoch();
        shared.nodes[node].start();
        Self { shared, node, reason, epoch, outcome: None }
    }

    /// The node's name, as given to the builder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.nodes[self.node].name
    }

    /// What the node is in its set.
    #[must_use]
    pub fn role(&self) -> Role {
        self.shared.nodes[self.node].role
    }

    /// Why this node.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
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

    pub(crate) fn end(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    pub(crate) fn index(&self) -> usize {
        self.node
    }
}

impl<N> Deref for Pick<N> {
    type Target = N;

    fn deref(&self) -> &N {
        &self.shared.nodes[self.node].value
    }
}

impl<N> Drop for Pick<N> {
    fn drop(&mut self) {
        self.shared.end(self.node, self.outcome, self.epoch, self.reason);
    }
}

impl<N> fmt::Debug for Pick<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the node: it may hold a password.
        f.debug_struct("Pick")
            .field("name", &self.name())
            .field("role", &self.role())
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}
