//! What all clones of a set share: its nodes, who is eligible, and how one is chosen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::health::{Policy, Transition};
use crate::node::Node;
use crate::select::{NodeSet, Turns, least_loaded};
use crate::{Outcome, Reason, Role, RouteError, Session, Strategy};

/// The set behind a [`Replicas`](crate::Replicas).
pub(crate) struct Shared<N> {
    pub(crate) nodes: Vec<Node<N>>,
    pub(crate) strategy: Strategy,
    pub(crate) policy: Policy,
    primary: Option<usize>,
    replicas: NodeSet,
    /// Read by every pick; replaced when a node is ejected or returns.
    rota: ArcSwap<Rota>,
    /// Turns of all nodes, for panic mode.
    everyone: Turns,
    /// Never set back, so that exactness survives a change of the rota.
    turn: AtomicU64,
    /// Held while a rota is made, so that an older one never replaces a newer one.
    rebuilding: Mutex<()>,
    pub(crate) picks: [AtomicU64; Reason::ALL.len()],
    pub(crate) refused: AtomicU64,
}

/// The replicas in service, and their turns.
struct Rota {
    eligible: NodeSet,
    turns: Turns,
}

impl<N> Shared<N> {
    pub(crate) fn new(nodes: Vec<Node<N>>, strategy: Strategy, policy: Policy) -> Arc<Self> {
        let of_role = |role| {
            nodes.iter().enumerate().filter(move |(_, node)| node.role == role).map(|(i, _)| i)
        };
        let primary = of_role(Role::Primary).next();
        let replicas: NodeSet = of_role(Role::Replica).collect();
        let everyone = (0..nodes.len()).collect();
        Arc::new(Self {
            rota: ArcSwap::from_pointee(Rota {
                eligible: replicas,
                turns: turns(&nodes, replicas, strategy),
            }),
            everyone: turns(&nodes, everyone, strategy),
            nodes,
            strategy,
            policy,
            primary,
            replicas,
            turn: AtomicU64::new(0),
            rebuilding: Mutex::new(()),
            picks: Default::default(),
            refused: AtomicU64::new(0),
        })
    }

    /// The node for a write.
    pub(crate) fn choose_write(&self) -> Result<(usize, Reason), RouteError> {
        self.primary.map(|node| (node, Reason::Write)).ok_or(RouteError::NoPrimary)
    }

    /// The node for a read that has already failed on the nodes `tried`; `None` when there is none
    /// left.
    pub(crate) fn choose_read(
        &self,
        session: &Session,
        tried: NodeSet,
    ) -> Result<Option<(usize, Reason)>, RouteError> {
        if session.is_pinned() {
            let primary = self.primary.ok_or(RouteError::NoPrimary)?;
            return Ok((!tried.contains(primary)).then_some((primary, Reason::Pinned)));
        }
        if self.nodes.len() == 1 {
            return Ok(tried.is_empty().then_some((0, Reason::OnlyNode)));
        }
        Ok(self.choose_replica(tried).or_else(|| self.choose_substitute(tried)))
    }

    /// A replica in service, or one that is due for a trial.
    fn choose_replica(&self, tried: NodeSet) -> Option<(usize, Reason)> {
        let rota = self.rota.load();
        if let Some(node) = self.due_for_trial(rota.eligible, tried) {
            return Some((node, Reason::Trial));
        }
        let open = rota.eligible.without(tried);
        if open.is_empty() {
            return None;
        }
        if !tried.is_empty() {
            // A second try takes no turn: it would cost some other node its own.
            let turn = self.turn.load(Relaxed);
            let node = least_loaded(open, |node| self.nodes[node].load(), &rota.turns, turn)?;
            return Some((node, Reason::Failover));
        }
        let turn = self.turn.fetch_add(1, Relaxed);
        match self.strategy {
            Strategy::RoundRobin | Strategy::Weighted => {
                Some((rota.turns.at(turn)?, Reason::Weighted))
            }
            Strategy::LeastLoaded => {
                let node = least_loaded(open, |node| self.nodes[node].load(), &rota.turns, turn)?;
                Some((node, Reason::Balanced))
            }
        }
    }

    /// The clock is read only while some replica is ejected and requests are to try it.
    fn due_for_trial(&self, eligible: NodeSet, tried: NodeSet) -> Option<usize> {
        if self.policy.probed || eligible == self.replicas {
            return None;
        }
        let now = Instant::now();
        let ejected = self.replicas.without(eligible).without(tried);
        ejected.iter().find(|&node| self.nodes[node].begin_trial(now, &self.policy))
    }

    /// The primary if it is well, else any node at all.
    fn choose_substitute(&self, tried: NodeSet) -> Option<(usize, Reason)> {
        if let Some(primary) = self.primary
            && !tried.contains(primary)
            && !self.nodes[primary].is_ejected()
        {
            return Some((primary, Reason::PrimaryFallback));
        }
        let left = (0..self.nodes.len()).collect::<NodeSet>().without(tried);
        let turn = self.turn.fetch_add(1, Relaxed);
        let node = least_loaded(left, |node| self.nodes[node].load(), &self.everyone, turn)?;
        Some((node, Reason::PanicMode))
    }

    /// Counts a request out of its node.
    pub(crate) fn end(&self, node: usize, outcome: Option<Outcome>, epoch: u64, reason: Reason) {
        let transition = self.nodes[node].end(outcome, epoch, &self.policy);
        let undecided = matches!(outcome, None | Some(Outcome::Neutral));
        if reason == Reason::Trial && undecided {
            self.nodes[node].abandon_trial(epoch, &self.policy);
        }
        self.follow(node, transition);
    }

    /// Takes note of a probe's result.
    pub(crate) fn probed(&self, node: usize, healthy: bool) {
        let transition = self.nodes[node].probed(healthy, &self.policy);
        self.follow(node, transition);
    }

    fn follow(&self, node: usize, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        announce(&self.nodes[node], transition);
        let _one_at_a_time = self.rebuilding.lock();
        let eligible = self.replicas.iter().filter(|&node| !self.nodes[node].is_ejected());
        let eligible: NodeSet = eligible.collect();
        let turns = turns(&self.nodes, eligible, self.strategy);
        self.rota.store(Arc::new(Rota { eligible, turns }));
    }
}

fn turns<N>(nodes: &[Node<N>], members: NodeSet, strategy: Strategy) -> Turns {
    let weight = |node: usize| match strategy {
        Strategy::RoundRobin => 1,
        Strategy::Weighted | Strategy::LeastLoaded => nodes[node].weight,
    };
    Turns::new(&members.iter().map(|node| (node, weight(node))).collect::<Vec<_>>())
}

#[cfg(feature = "tracing")]
fn announce<N>(node: &Node<N>, transition: Transition) {
    let (name, role) = (node.name.as_str(), node.role.as_str());
    match transition {
        Transition::Ejected { until } => {
            let seconds = until.saturating_duration_since(Instant::now()).as_secs_f64();
            tracing::warn!(node = name, role, seconds, "node ejected");
        }
        Transition::Returned => tracing::info!(node = name, role, "node returned"),
    }
}

#[cfg(not(feature = "tracing"))]
fn announce<N>(_: &Node<N>, _: Transition) {}
