//! An immutable snapshot of a set: who is there, who may serve, and in which turns.

use std::sync::Arc;

use tokio::time::Instant;

use crate::health::{Policy, TENTHS, ramp, ramp_reaches};
use crate::member::Settings;
use crate::node::Node;
use crate::select::{NodeSet, Turns};
use crate::{Exclusion, Role, Selection};

/// A node and its place in a set.
pub(crate) struct Seat<N> {
    pub(crate) node: Arc<Node<N>>,
    pub(crate) role: Role,
    pub(crate) settings: Settings,
    pub(crate) excluded: Option<Exclusion>,
}

/// A set at one moment. Replaced as a whole when a node comes, goes, changes its role, is ejected or
/// returns; counters and freshness, which change all the time, are in the nodes.
pub(crate) struct Topology<N> {
    pub(crate) seats: Box<[Seat<N>]>,
    pub(crate) selection: Selection,
    /// Whether requests are timed.
    pub(crate) timed: bool,
    /// By index: the weight in force, which a slow start lessens. Comparable within one snapshot.
    pub(crate) weights: Box<[u32]>,
    /// The node that takes writes.
    pub(crate) primary: Option<usize>,
    /// Whether there ever was a primary or may be one, so that its absence may end.
    pub(crate) expects_primary: bool,
    /// Replicas that may serve, as far as their monitor is concerned.
    pub(crate) fit: NodeSet,
    /// Replicas that only lag, or may.
    pub(crate) lagging: NodeSet,
    /// Replicas of which nobody can tell how far they have come.
    pub(crate) unmeasured: NodeSet,
    /// Those that are ejected, of whatever role.
    pub(crate) ejected: NodeSet,
    /// Of these, those that failed again.
    pub(crate) confirmed: NodeSet,
    /// Fit, and not ejected unless there is panic.
    pub(crate) serving: NodeSet,
    /// Whether too few of the fit replicas are healthy.
    pub(crate) panic: bool,
    /// Nodes of the caller's zone, if zones matter and it has a replica that serves.
    pub(crate) local: NodeSet,
    /// Nodes that have a `max_in_flight`.
    pub(crate) limited: NodeSet,
    /// Whether a read without needs takes any of `serving` that is not full by the strategy, and no
    /// more.
    pub(crate) plain: bool,
    /// Of `serving`.
    pub(crate) turns: Turns,
    /// Of the part of `serving` in the caller's zone.
    pub(crate) local_turns: Turns,
    /// When a slow start takes its next step, if any node is in one. Only then, picks look at the
    /// clock.
    pub(crate) next_step: Option<Instant>,
    /// Of all nodes, for when who is healthy does not matter.
    pub(crate) everyone: Turns,
    /// Whether requests try ejected nodes.
    pub(crate) trials: bool,
    pub(crate) zone_overload: f64,
    max_ejected_percent: u8,
}

impl<N> Topology<N> {
    pub(crate) fn new(
        seats: Vec<Seat<N>>,
        selection: Selection,
        expects_primary: bool,
        policy: &Policy,
        now: Instant,
    ) -> Self {
        let among = |keep: &dyn Fn(&Seat<N>) -> bool| -> NodeSet {
            seats.iter().enumerate().filter(|(_, seat)| keep(seat)).map(|(at, _)| at).collect()
        };
        let fit = among(&|seat| seat.role == Role::Replica && seat.excluded.is_none());
        let ejected = among(&|seat| seat.node.is_ejected());
        let confirmed = among(&|seat| seat.node.is_ejected() && seat.node.is_confirmed());
        let left_out = |whys: &[Exclusion]| {
            among(&|seat| {
                let why = seat.excluded.as_ref();
                seat.role == Role::Replica && why.is_some_and(|why| whys.contains(why))
            })
        };
        let is_primary = |seat: &Seat<N>| {
            let out = matches!(seat.excluded, Some(Exclusion::Fenced | Exclusion::Unknown));
            seat.role == Role::Primary && !out
        };
        let healthy = fit.without(ejected);
        let suspects = fit.intersection(ejected).without(confirmed);
        let percent = usize::from(policy.config.panic_percent);
        let panic = !healthy.is_empty()
            && !suspects.is_empty()
            && healthy.len() * 100 < fit.len() * percent;
        let serving = if panic { healthy.union(suspects) } else { healthy };
        let zone = policy.config.zone.as_deref();
        let local = among(&|seat| zone.is_some() && seat.settings.zone.as_deref() == zone);
        let limited = among(&|seat| seat.settings.max_in_flight.is_some());
        let trials_due = !policy.is_probed() && !fit.intersection(ejected).is_empty();
        let (weights, next_step) = weights(&seats, &selection, policy, now);
        let turns_of = |members: NodeSet| turns(members, &weights, next_step.is_some());
        Self {
            turns: turns_of(serving),
            local_turns: turns_of(serving.intersection(local)),
            everyone: turns_of((0..seats.len()).collect()),
            trials: !policy.is_probed(),
            zone_overload: policy.config.zone_overload,
            weights,
            timed: selection.wants_latency(),
            selection,
            primary: among(&is_primary).iter().next(),
            expects_primary,
            fit,
            lagging: left_out(&[Exclusion::Lag, Exclusion::Silent]),
            unmeasured: left_out(&[Exclusion::Unknown]),
            ejected,
            confirmed,
            serving,
            panic,
            local,
            limited,
            plain: seats.len() > 1
                && !serving.is_empty()
                && !panic
                && !trials_due
                && next_step.is_none()
                && local.is_empty(),
            next_step,
            max_ejected_percent: policy.config.max_ejected_percent,
            seats: seats.into(),
        }
    }
}

impl<N> Topology<N> {
    /// Whether one more replica may be ejected on the evidence of requests alone.
    pub(crate) fn can_spare(&self, node: &Node<N>) -> bool {
        if self.max_ejected_percent == 100 {
            return true;
        }
        // From the nodes themselves: another may have gone since the snapshot was made.
        let others = self.fit.iter().map(|at| &*self.seats[at].node);
        let suspects = others
            .filter(|other| other.id != node.id && other.is_ejected() && !other.is_confirmed());
        let most = self.fit.len() * usize::from(self.max_ejected_percent) / 100;
        suspects.count() < most.max(1)
    }

    /// Those of the nodes with these identities that are still there.
    pub(crate) fn of(&self, ids: &[u64]) -> NodeSet {
        if ids.is_empty() {
            return NodeSet::default();
        }
        let seats = self.seats.iter().enumerate();
        seats.filter(|(_, seat)| ids.contains(&seat.node.id)).map(|(at, _)| at).collect()
    }

    /// As many requests as the node may have at once.
    pub(crate) fn limit(&self, at: usize) -> u64 {
        self.seats[at].settings.max_in_flight.unwrap_or(u64::MAX)
    }

    /// Nodes that have as many requests as they may.
    pub(crate) fn full(&self) -> NodeSet {
        self.full_of(self.limited)
    }

    /// Those of some nodes that have as many requests as they may.
    #[inline]
    pub(crate) fn full_of(&self, nodes: NodeSet) -> NodeSet {
        let is_full = |at: &usize| self.seats[*at].node.in_flight() >= self.limit(*at);
        nodes.iter().filter(is_full).collect()
    }
}

impl<N> Seat<N> {
    /// Takes nothing until a monitor has seen what the node is.
    pub(crate) fn await_word(&mut self) {
        (self.role, self.excluded) = (Role::None, Some(Exclusion::Unknown));
    }
}

impl<N> Clone for Seat<N> {
    // By hand: a derived one would ask for `N: Clone`.
    fn clone(&self) -> Self {
        let Self { node, role, settings, excluded } = self;
        Self {
            node: Arc::clone(node),
            role: *role,
            settings: settings.clone(),
            excluded: *excluded,
        }
    }
}

/// The weights in force, and when they change next. While a node starts slowly all are in tenths.
fn weights<N>(
    seats: &[Seat<N>],
    selection: &Selection,
    policy: &Policy,
    now: Instant,
) -> (Box<[u32]>, Option<Instant>) {
    let slow_start = policy.config.slow_start;
    let tenths: Vec<Option<(u32, Instant)>> = seats
        .iter()
        .map(|seat| {
            let since = seat.node.slow_since().filter(|_| seat.role == Role::Replica)?;
            let tenths = ramp(now.saturating_duration_since(since), slow_start);
            (tenths < TENTHS).then(|| (tenths, since + ramp_reaches(tenths + 1, slow_start)))
        })
        .collect();
    let next_step = tenths.iter().flatten().map(|(_, next)| *next).min();
    let weights = seats.iter().zip(&tenths).map(|(seat, ramping)| {
        let whole = if selection.ignores_weights() { 1 } else { seat.settings.weight };
        match (next_step, ramping) {
            (None, _) => whole,
            (Some(_), None) => whole * TENTHS,
            (Some(_), Some((tenths, _))) => whole * tenths,
        }
    });
    (weights.collect(), next_step)
}

/// Longer tables take too long to make for a step that comes every few seconds.
const MAX_SLOW_TURNS: u32 = 4_096;

/// The turns of some nodes: exact, but for tables that are long and of short life.
fn turns(members: NodeSet, weights: &[u32], slow_start: bool) -> Turns {
    let total: u32 = members.iter().map(|at| weights[at]).sum();
    let divisor = if slow_start { total.div_ceil(MAX_SLOW_TURNS).max(1) } else { 1 };
    let scaled = members.iter().map(|at| (at, (weights[at] / divisor).max(1)));
    Turns::new(&scaled.collect::<Vec<_>>())
}
