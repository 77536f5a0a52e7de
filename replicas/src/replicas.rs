//! The handle of a set: picks for reads and writes, reads with failover, statistics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::select::NodeSet;
use crate::shared::Shared;
use crate::{
    Outcome, Pick, ReadError, Reason, ReasonStats, ReplicaService, ReplicasBuilder, ReplicasStats,
    RouteError, Session,
};

/// A set of nodes, with or without a primary, over which requests are spread by weight and health.
///
/// Clones share everything: the set is what was built once. It has no need to be closed; probing
/// ends when the last clone and the last [`Pick`] are dropped.
pub struct Replicas<N> {
    shared: Arc<Shared<N>>,
}

impl<N> Replicas<N> {
    /// A set with a primary, which is named `primary` and takes all writes.
    pub fn builder(primary: N) -> ReplicasBuilder<N> {
        ReplicasBuilder::new(Some(primary))
    }

    /// A set of equals: a plain load balancer. Writes and pinned reads have no node in it.
    pub fn without_primary() -> ReplicasBuilder<N> {
        ReplicasBuilder::new(None)
    }

    pub(crate) fn from_shared(shared: Arc<Shared<N>>) -> Self {
        Self { shared }
    }

    /// A node for a read of this session: a replica in service by the set's strategy, else the
    /// primary, else any node, however ill. Takes no lock and never waits.
    ///
    /// # Errors
    /// [`RouteError::NoPrimary`] if the session is pinned to a primary that the set has not.
    pub fn read(&self, session: &Session) -> Result<Pick<N>, RouteError> {
        // With no node tried, only a pinned session can be left without one.
        let choice = self.shared.choose_read(session, NodeSet::default());
        self.pick(choice.and_then(|choice| choice.ok_or(RouteError::NoPrimary)))
    }

    /// A node for a read that has failed on the nodes `tried`; `None` when there is none left.
    #[cfg(feature = "http")]
    pub(crate) fn read_untried(&self, tried: NodeSet) -> Result<Option<Pick<N>>, RouteError> {
        let choice = self.shared.choose_read(&Session::new(), tried)?;
        Ok(choice.map(|choice| Pick::new(Arc::clone(&self.shared), choice)))
    }

    /// The primary, whatever its health: nobody else may take a write.
    ///
    /// # Errors
    /// [`RouteError::NoPrimary`] if the set was built without one.
    pub fn write(&self) -> Result<Pick<N>, RouteError> {
        self.pick(self.shared.choose_write())
    }

    /// Runs an idempotent read, on another node when one fails it.
    ///
    /// `is_node_failure` says of an error whether the node is to blame (unreachable, broken off,
    /// out of time) rather than the request or the caller's own pool being full. Only then is the
    /// failure reported and the read tried again, on the other eligible replicas, then on the
    /// primary, then on ejected nodes; on each node at most once and with no pause. A read of a
    /// pinned session is tried on the primary only. Any other error is returned at once.
    ///
    /// There is no time limit here: give each attempt its own inside `operation`, whose running out
    /// is then a node failure. Dropping the future counts the attempt under way as cancelled.
    ///
    /// # Errors
    /// [`ReadError::Operation`] with the operation's last error, [`ReadError::NoNode`] if there was
    /// no node to begin with.
    pub async fn read_with<T, E, C, O, F>(
        &self,
        session: &Session,
        is_node_failure: C,
        mut operation: O,
    ) -> Result<T, ReadError<E>>
    where
        N: Clone,
        C: Fn(&E) -> bool,
        O: FnMut(N) -> F,
        F: Future<Output = Result<T, E>>,
    {
        let mut tried = NodeSet::default();
        let mut pick = self.read(session).map_err(ReadError::NoNode)?;
        loop {
            let error = match operation(N::clone(&pick)).await {
                Ok(value) => {
                    pick.succeeded();
                    return Ok(value);
                }
                Err(error) if is_node_failure(&error) => error,
                Err(error) => {
                    pick.end(Outcome::Neutral);
                    return Err(ReadError::Operation(error));
                }
            };
            tried.insert(pick.index());
            pick.failed();
            let next = self.shared.choose_read(session, tried).ok().flatten();
            let Some(next) = next else { return Err(ReadError::Operation(error)) };
            pick = Pick::new(Arc::clone(&self.shared), next);
        }
    }

    /// The set as a tower service, for nodes that are services themselves.
    #[must_use]
    pub fn service(&self) -> ReplicaService<N> {
        ReplicaService::new(self.clone())
    }

    /// Counters and states at this moment. Read one by one without stopping anything, so that
    /// figures may be apart by the requests that start or end meanwhile.
    #[must_use]
    pub fn stats(&self) -> ReplicasStats {
        let picks = Reason::ALL.iter().zip(&self.shared.picks);
        ReplicasStats {
            strategy: self.shared.strategy,
            nodes: self.shared.nodes.iter().map(|node| node.stats()).collect(),
            picks: picks
                .map(|(&reason, count)| ReasonStats { reason, picks_total: count.load(Relaxed) })
                .collect(),
            refused_total: self.shared.refused.load(Relaxed),
        }
    }

    fn pick(&self, choice: Result<(usize, Reason), RouteError>) -> Result<Pick<N>, RouteError> {
        match choice {
            Ok(choice) => Ok(Pick::new(Arc::clone(&self.shared), choice)),
            Err(error) => {
                self.shared.refused.fetch_add(1, Relaxed);
                Err(error)
            }
        }
    }
}

impl<N> Clone for Replicas<N> {
    // By hand: a derived one would ask for `N: Clone`, which sharing does not need.
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<N> fmt::Debug for Replicas<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names, not nodes: those may hold a password.
        let names = self.shared.nodes.iter().map(|node| node.name.as_str());
        f.debug_struct("Replicas")
            .field("nodes", &names.collect::<Vec<_>>())
            .field("strategy", &self.shared.strategy)
            .finish_non_exhaustive()
    }
}
