//! Which node of a snapshot a request gets, and why. Takes no lock, changes nothing but the turn and
//! the right to a trial.

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use crate::balancer::{Selector, View};
use crate::latency::{Estimate, is_first_quicker};
use crate::rota::Rota;
use crate::select::{Load, NodeSet, Turns, any_of, draw, least_loaded};
use crate::topology::Topology;
use crate::{Candidate, Candidates, Exclusion, Reason, Role, RouteError, Session, Strategy};

/// A read that wants a node.
pub(crate) struct Ask<'a> {
    pub(crate) session: &'a Session,
    /// Nodes that have failed it already.
    pub(crate) tried: NodeSet,
    /// Nodes without a free place.
    pub(crate) full: NodeSet,
}

/// The node it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) at: usize,
    pub(crate) reason: Reason,
    /// The primary for want of a replica, which has a budget.
    pub(crate) substituting: bool,
    /// Whether the request is to be timed.
    pub(crate) timed: bool,
}

impl Choice {
    fn new(at: usize, reason: Reason) -> Self {
        Self { at, reason, substituting: false, timed: false }
    }

    fn substituting(at: usize, reason: Reason) -> Self {
        Self { substituting: true, ..Self::new(at, reason) }
    }
}

impl<N> Topology<N> {
    /// The node for a write, or for a read that only the primary may serve.
    pub(crate) fn choose_primary(
        &self,
        reason: Reason,
        full: NodeSet,
    ) -> Result<Choice, RouteError> {
        match self.primary {
            Some(primary) if full.contains(primary) => Err(RouteError::Saturated),
            Some(primary) => Ok(Choice::new(primary, reason)),
            None if self.expects_primary => Err(RouteError::PrimaryUnknown),
            None => Err(RouteError::NoPrimary),
        }
    }

    /// The node for a write of this session: not a primary that cannot be it any more, or what it takes
    /// would be lost.
    pub(crate) fn choose_for_write(
        &self,
        session: &Session,
        full: NodeSet,
    ) -> Result<Choice, RouteError> {
        let ask = Ask { session, tried: NodeSet::default(), full };
        let now = session.has_needs().then(Instant::now);
        if self.primary.is_some_and(|primary| self.is_outdated(primary, &ask, now)) {
            return Err(RouteError::PrimaryUnknown);
        }
        self.choose_primary(Reason::Write, full)
    }

    /// The replica for a read of any session that has failed nowhere yet, if this snapshot is
    /// [plain](Topology::plain).
    pub(crate) fn choose_plain(&self, rota: &Rota) -> Option<Choice> {
        let limited = self.limited.intersection(self.serving);
        let open = self.serving.without(self.full_of(limited));
        if open.is_empty() {
            return None;
        }
        self.by_strategy(open, &self.turns, rota)
    }

    /// The node for a read; `None` when it has failed on all that there are.
    pub(crate) fn choose_read(
        &self,
        ask: &Ask<'_>,
        rota: &Rota,
    ) -> Result<Option<Choice>, RouteError> {
        if ask.session.is_pinned() {
            if self.primary.is_some_and(|primary| ask.tried.contains(primary)) {
                return Ok(None);
            }
            let now = ask.session.has_needs().then(Instant::now);
            if self.primary.is_some_and(|primary| self.is_outdated(primary, ask, now)) {
                return Err(RouteError::PrimaryUnknown);
            }
            return self.choose_primary(Reason::Pinned, ask.full).map(Some);
        }
        if self.seats.len() == 1 {
            return self.choose_only(ask);
        }
        let now = ask.session.has_needs().then(Instant::now);
        if let Some(trial) = self.choose_trial(ask, now) {
            return Ok(Some(trial));
        }
        // In panic mode too, a second try goes to the healthy first.
        let preferred = if ask.tried.is_empty() { self.serving } else { self.healthy() };
        let untried = self.admitted(preferred, ask, now).without(ask.tried);
        if !untried.is_empty() {
            let open = untried.without(ask.full);
            if open.is_empty() {
                // Who may go to any replica waits for one of many places. For the others there are few,
                // or none that comes in time.
                let choosy = now.is_some() || !ask.tried.is_empty();
                let primary = self.open_primary(ask, now).filter(|_| choosy);
                let primary = primary.ok_or(RouteError::Saturated)?;
                return Ok(Some(Choice::substituting(primary, Reason::PrimaryFallback)));
            }
            let choice = self.choose_replica(open, ask.tried.is_empty(), rota);
            let mut choice = choice.ok_or(RouteError::Saturated)?;
            if matches!(choice.reason, Reason::Weighted | Reason::Balanced)
                && now.is_some_and(|now| ask.session.awaits_writes(now))
            {
                choice.reason = Reason::RywToken;
            }
            return Ok(Some(choice));
        }
        self.choose_substitute(ask, now, rota)
    }

    /// A set of one: its health does not matter, but what it is does.
    fn choose_only(&self, ask: &Ask<'_>) -> Result<Option<Choice>, RouteError> {
        if ask.tried.contains(0) {
            return Ok(None);
        }
        let seat = &self.seats[0];
        let now = ask.session.has_needs().then(Instant::now);
        let fit = match seat.role {
            Role::Primary => self.primary.is_some() && !self.is_outdated(0, ask, now),
            Role::Replica => match now {
                Some(now) => {
                    seat.excluded.is_none() && ask.session.admits(&seat.node.freshness.load(), now)
                }
                None => seat.excluded != Some(Exclusion::Fenced),
            },
            Role::None => false,
        };
        match fit {
            true if ask.full.contains(0) => Err(RouteError::Saturated),
            true => Ok(Some(Choice::new(0, Reason::OnlyNode))),
            false => Err(RouteError::NoFitNode),
        }
    }

    /// The clock is read only while some replica is ejected and requests are to try it.
    fn choose_trial(&self, ask: &Ask<'_>, now: Option<Instant>) -> Option<Choice> {
        let ejected = self.fit.intersection(self.ejected);
        if !self.trials || ejected.is_empty() {
            return None;
        }
        let open = self.admitted(ejected, ask, now).without(ask.tried).without(ask.full);
        let now = now.unwrap_or_else(Instant::now);
        let due = open.iter().find(|&at| self.seats[at].node.begin_trial(now))?;
        Some(Choice::new(due, Reason::Trial))
    }

    fn choose_replica(&self, open: NodeSet, first: bool, rota: &Rota) -> Option<Choice> {
        if !first {
            // A second try takes no turn: it would cost some other node its own.
            let at = least_loaded(open, |at| self.load(at), &self.turns, rota.peek_turn())?;
            return Some(Choice::new(at, Reason::Failover));
        }
        let local = open.intersection(self.local);
        if !local.is_empty() && !self.is_overloaded(local, open.without(local)) {
            let choice = self.by_strategy(local, &self.local_turns, rota)?;
            return Some(Choice { reason: Reason::Zone, ..choice });
        }
        let choice = self.by_strategy(open, &self.turns, rota)?;
        let reason = match choice.reason {
            _ if self.panic => Reason::PanicMode,
            _ if self.local.contains(choice.at) => Reason::Zone,
            _ if !self.local.is_empty() => Reason::ZoneSpill,
            reason => reason,
        };
        Some(Choice { reason, ..choice })
    }

    /// The primary within its budget, else a node that is fit but for its health, else one that only
    /// lags. With no primary that could, else a replica of which nobody can tell how far it has come,
    /// else any.
    fn choose_substitute(
        &self,
        ask: &Ask<'_>,
        now: Option<Instant>,
        rota: &Rota,
    ) -> Result<Option<Choice>, RouteError> {
        if let Some(at) = self.open_primary(ask, now) {
            return Ok(Some(Choice::substituting(at, self.why_primary(ask, now))));
        }
        let primary = self.primary.filter(|&primary| {
            !ask.tried.contains(primary) && !self.is_outdated(primary, ask, now)
        });
        let healthy = primary.filter(|&primary| !self.ejected.contains(primary));
        let open = |nodes: NodeSet| nodes.without(ask.tried).without(ask.full);
        // The budget holds for a primary that is ejected, too.
        let panic = |at| {
            let substituting = self.primary == Some(at);
            Some(Choice { substituting, ..Choice::new(at, Reason::PanicMode) })
        };
        let primary: NodeSet = primary.into_iter().collect();
        let fit = self.admitted(self.fit, ask, now).union(primary);
        let suspects = fit.intersection(self.ejected).without(self.confirmed);
        if let Some(at) = self.by_turn(open(suspects), rota) {
            return Ok(panic(at));
        }
        // The needs of a session are never ignored.
        let unless_needs = |nodes| if now.is_some() { NodeSet::default() } else { nodes };
        let lagging = unless_needs(self.lagging);
        if let Some(at) = self.least_stale(open(lagging.without(self.ejected)), rota) {
            return Ok(panic(at));
        }
        if healthy.is_none() {
            // Nobody to wait for. While the primary is away, or a standby has yet to follow a new one,
            // nothing can be measured; whoever is a replica still holds the right database.
            let unmeasured = unless_needs(self.unmeasured);
            let answering = self.by_turn(open(unmeasured.without(self.ejected)), rota);
            // And a node that is as good as dead is better than none.
            let all = fit.union(lagging).union(unmeasured);
            if let Some(at) = answering.or_else(|| self.by_turn(open(all), rota)) {
                return Ok(panic(at));
            }
        }
        Err(match healthy {
            // Also for a second try: the primary could serve it in a moment.
            Some(_) => RouteError::PrimaryReadsExhausted,
            None if !ask.tried.is_empty() => return Ok(None),
            None if self.primary.is_some_and(|at| self.is_outdated(at, ask, now)) => {
                RouteError::PrimaryUnknown
            }
            None if !ask.full.is_empty() => RouteError::Saturated,
            None => RouteError::NoFitNode,
        })
    }

    /// The primary, if it is healthy, has a place, has not failed this read and has what the session
    /// wrote.
    fn open_primary(&self, ask: &Ask<'_>, now: Option<Instant>) -> Option<usize> {
        let out = ask.tried.union(ask.full).union(self.ejected);
        let primary = self.primary.filter(|&primary| !out.contains(primary));
        primary.filter(|&primary| !self.is_outdated(primary, ask, now))
    }

    fn by_turn(&self, nodes: NodeSet, rota: &Rota) -> Option<usize> {
        if nodes.is_empty() {
            return None;
        }
        least_loaded(nodes, |at| self.load(at), &self.everyone, rota.take_turn())
    }

    fn why_primary(&self, ask: &Ask<'_>, now: Option<Instant>) -> Reason {
        let fit_and_out = self.fit.intersection(self.ejected);
        if !ask.tried.is_empty() {
            Reason::PrimaryFallback
        } else if !self.serving.is_empty() {
            match now {
                Some(now) if ask.session.awaits_writes(now) => Reason::RywToken,
                _ => Reason::LagExcluded,
            }
        } else if !fit_and_out.is_empty() && self.lagging.is_empty() {
            Reason::Ejected
        } else if fit_and_out.is_empty() && !self.lagging.is_empty() {
            Reason::LagExcluded
        } else {
            Reason::PrimaryFallback
        }
    }

    /// Whether the session knows of a later primary, which alone may have what it wrote.
    fn is_outdated(&self, at: usize, ask: &Ask<'_>, now: Option<Instant>) -> bool {
        now.is_some_and(|now| ask.session.outdates(&self.seats[at].node.freshness.load(), now))
    }

    /// Those of `nodes` that have what the session must see; `now` is there if it must see anything.
    fn admitted(&self, nodes: NodeSet, ask: &Ask<'_>, now: Option<Instant>) -> NodeSet {
        let Some(now) = now else { return nodes };
        let admits = |&at: &usize| ask.session.admits(&self.seats[at].node.freshness.load(), now);
        nodes.iter().filter(admits).collect()
    }

    fn healthy(&self) -> NodeSet {
        self.fit.without(self.ejected)
    }

    /// The one with the least lag in time; those of which nothing is known come last, in turn.
    fn least_stale(&self, nodes: NodeSet, rota: &Rota) -> Option<usize> {
        let lag = |at: usize| {
            let seen = self.seats[at].node.freshness.load();
            (seen.lag.is_none(), seen.lag, seen.lag_bytes.is_none(), seen.lag_bytes)
        };
        let unknown = (true, None, true, None);
        let known = nodes.iter().map(lag).min().is_some_and(|least| least != unknown);
        if known { nodes.iter().min_by_key(|&at| lag(at)) } else { self.by_turn(nodes, rota) }
    }

    fn by_strategy(&self, open: NodeSet, turns: &Turns, rota: &Rota) -> Option<Choice> {
        match &self.selection.0 {
            Selector::Strategy(Strategy::RoundRobin | Strategy::Weighted) => {
                let next = turns.at(rota.take_turn()).filter(|&at| open.contains(at));
                let at = next.or_else(|| draw(open, |at| self.weights[at], fastrand::f64()))?;
                Some(Choice::new(at, Reason::Weighted))
            }
            Selector::Strategy(Strategy::LeastLoaded) => {
                let at = least_loaded(open, |at| self.load(at), turns, rota.share_turn())?;
                Some(Choice::new(at, Reason::Balanced))
            }
            Selector::Strategy(Strategy::PeakEwma) => {
                let random = fastrand::u64(..);
                // The first by its turn, so that equally quick nodes serve by weight.
                let turn = turns.at(rota.share_turn()).filter(|&at| open.contains(at));
                let first = turn.or_else(|| draw(open, |at| self.weights[at], fastrand::f64()))?;
                let others = open.without([first].into_iter().collect());
                let quicker = any_of(others, (random >> 32) as u32).filter(|&second| {
                    !is_first_quicker(self.cost(first), self.cost(second), rota.millis())
                });
                let at = quicker.unwrap_or(first);
                let timed = rota.is_timed(random as u32) || !self.latency(at).is_known();
                Some(Choice { timed, ..Choice::new(at, Reason::Balanced) })
            }
            Selector::Balancer(balancer) => {
                let snapshot = Snapshot { topology: self, now: rota.millis() };
                let position = balancer.choose(&Candidates::new(open, &snapshot));
                let at = position.and_then(|position| open.iter().nth(position));
                let turn = rota.peek_turn();
                let at = at.or_else(|| least_loaded(open, |at| self.load(at), turns, turn))?;
                let chance = || rota.is_timed(fastrand::u32(..)) || !self.latency(at).is_known();
                let timed = self.timed && chance();
                Some(Choice { timed, ..Choice::new(at, Reason::Balanced) })
            }
        }
    }

    fn cost(&self, at: usize) -> (Estimate, u64, u32) {
        (self.latency(at), self.seats[at].node.in_flight(), self.weights[at])
    }

    fn latency(&self, at: usize) -> Estimate {
        Estimate::from_bits(self.seats[at].node.latency.load(Relaxed))
    }

    fn load(&self, at: usize) -> Load {
        Load { in_flight: self.seats[at].node.in_flight(), weight: self.weights[at] }
    }

    /// Whether the caller's zone has much more in flight for its weight than the others have.
    fn is_overloaded(&self, local: NodeSet, others: NodeSet) -> bool {
        if others.is_empty() {
            return false;
        }
        let sum = |nodes: NodeSet| {
            nodes.iter().map(|at| self.load(at)).fold((0, 0), |(in_flight, weight), load| {
                (in_flight + load.in_flight, weight + u64::from(load.weight))
            })
        };
        let ((local_in_flight, local_weight), (other_in_flight, other_weight)) =
            (sum(local), sum(others));
        let never = ZONE_SPARE * local.len() as u64;
        local_in_flight >= never
            && local_in_flight as f64 * other_weight as f64
                > self.zone_overload * other_in_flight as f64 * local_weight as f64
    }
}

/// Requests in flight on each of its nodes with which a zone is not overloaded yet: the others may
/// have none at all.
const ZONE_SPARE: u64 = 4;

/// What a [`Balancer`](crate::Balancer) sees.
struct Snapshot<'a, N> {
    topology: &'a Topology<N>,
    now: u32,
}

impl<N> View for Snapshot<'_, N> {
    fn candidate(&self, at: usize) -> Candidate<'_> {
        Candidate::of(&self.topology.seats[at], self.topology.weights[at], self.now)
    }
}
