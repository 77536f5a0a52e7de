//! What all clones of a set share: the snapshot that picks read, and how it is replaced.

mod waiting;

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
    fence,
};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::choose::{Ask, Choice};
use crate::gate::{Gate, Kind};
use crate::health::Policy;
use crate::member::Members;
use crate::node::{Maker, Node};
use crate::probe::{self, Probe};
use crate::rota::Rota;
use crate::session::Waits;
use crate::topology::{Seat, Topology};
use crate::{
    ConfigError, Exclusion, Member, Observation, Observed, Pick, Role, RouteError, Selection,
    Session,
};

/// The set behind a [`Replicas`](crate::Replicas).
pub(crate) struct Shared<N> {
    pub(crate) topology: ArcSwap<Topology<N>>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) gate: Arc<Gate>,
    /// Held while a node is ejected for failed requests, of which only so many may be.
    pub(crate) ejecting: Mutex<()>,
    /// Told when a node's freshness was observed, for those who wait for a position.
    pub(crate) observed: Notify,
    pub(crate) waits: Waits,
    pub(crate) refused: AtomicU64,
    rota: Arc<Rota>,
    maker: Maker<N>,
    /// What the next snapshot is made from. Held until that is in force, so that an older one never
    /// replaces a newer one.
    roster: Mutex<Roster<N>>,
    /// Held while the caller changes the members.
    changing: Mutex<()>,
    probe: Option<(Probe<N>, Handle)>,
    /// Whether a monitor says what nodes are, and what they were declared as does not count.
    monitored: AtomicBool,
    /// Told when nodes come or go, for that monitor.
    pub(crate) members_changed: Arc<Notify>,
}

struct Roster<N> {
    seats: Vec<Seat<N>>,
    selection: Selection,
    expects_primary: bool,
    /// Removed, and perhaps still at work.
    removed: Vec<Weak<Node<N>>>,
    /// Whether somebody observes the nodes, who will find a demoted one's new role.
    watched: bool,
}

/// What wants a node.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need<'a> {
    Write(&'a Session),
    /// A read that has failed on the nodes with these identities.
    Read(&'a Session, &'a [u64]),
}

impl<'a> Need<'a> {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Write(_) => Kind::Primary,
            Self::Read(session, _) if session.is_pinned() => Kind::Primary,
            Self::Read(session, []) if !session.has_needs() => Kind::Replica,
            Self::Read(..) => Kind::Particular,
        }
    }

    fn session(self) -> &'a Session {
        let (Self::Write(session) | Self::Read(session, _)) = self;
        session
    }
}

impl<N> Shared<N> {
    pub(crate) fn new(
        members: Vec<Member<N>>,
        selection: Selection,
        policy: Policy,
        probe: Option<(Probe<N>, Handle)>,
    ) -> Arc<Self> {
        let (policy, gate) = (Arc::new(policy), Arc::new(Gate::default()));
        let rota = Arc::new(Rota::new());
        Arc::new_cyclic(|set| {
            let maker = Maker {
                set: set.clone(),
                gate: Arc::clone(&gate),
                policy: Arc::clone(&policy),
                rota: Arc::clone(&rota),
                ids: AtomicU64::new(0),
            };
            let seats: Vec<Seat<N>> =
                members.into_iter().map(|member| maker.initial_seat(member)).collect();
            let expects_primary = seats.iter().any(|seat| seat.role != Role::Replica);
            let removed = Vec::new();
            let roster = Roster { seats, selection, expects_primary, removed, watched: false };
            Self {
                topology: ArcSwap::from_pointee(roster.topology(&policy)),
                policy,
                gate,
                ejecting: Mutex::new(()),
                observed: Notify::new(),
                waits: Waits::default(),
                refused: AtomicU64::new(0),
                rota,
                maker,
                roster: Mutex::new(roster),
                changing: Mutex::new(()),
                probe,
                monitored: AtomicBool::new(false),
                members_changed: Arc::default(),
            }
        })
    }

    /// A node for a read that has failed nowhere yet, in the usual case: the session needs nothing, and
    /// any replica that serves may be taken by the strategy alone. Otherwise it is for
    /// [`pick`](Self::pick).
    ///
    /// Made part of the caller, as is all that it calls but the choice itself: a pick that is handed on
    /// through memory costs as much as its counters do.
    #[inline]
    pub(crate) fn pick_plain(&self, session: &Session) -> Option<Pick<N>> {
        let topology = self.topology.load();
        if !topology.plain || session.is_pinned() || session.has_needs() {
            return None;
        }
        let choice = topology.choose_plain(&self.rota)?;
        Pick::enter(&topology, choice, u64::MAX, &self.rota)
    }

    /// A node for `need`; `None` when the read has failed on all that there are.
    pub(crate) fn pick(&self, need: Need<'_>) -> Result<Option<Pick<N>>, RouteError> {
        let topology = self.topology.load();
        if topology.next_step.is_some_and(|at| Instant::now() >= at) {
            drop(topology);
            self.step();
            return self.pick_from(&self.topology.load(), need);
        }
        self.pick_from(&topology, need)
    }

    fn pick_from(
        &self,
        topology: &Topology<N>,
        need: Need<'_>,
    ) -> Result<Option<Pick<N>>, RouteError> {
        let mut full = topology.full();
        // Each round finds a node that was taken meanwhile, so there are few.
        loop {
            let choice = match need {
                Need::Write(session) => topology.choose_for_write(session, full)?,
                Need::Read(session, tried) => {
                    let tried = topology.of(tried);
                    let ask = Ask { session, tried, full };
                    match topology.choose_read(&ask, &self.rota)? {
                        Some(choice) => choice,
                        None => return Ok(None),
                    }
                }
            };
            let limit = topology.limit(choice.at);
            let budget = self.budget(&choice, limit);
            match Pick::enter(topology, choice, budget, &self.rota) {
                Some(pick) => return Ok(Some(pick)),
                None => full.insert(choice.at),
            }
        }
    }

    /// How many reads the primary may serve at once for want of a replica.
    fn budget(&self, choice: &Choice, limit: u64) -> u64 {
        if !choice.substituting || limit == u64::MAX {
            return u64::MAX;
        }
        // Less what the product may be off by: a fifth of 15 is 3, not 4.
        (self.policy.config.primary_read_share * limit as f64 - 1e-9).ceil() as u64
    }

    /// Counts a request that gets no node; once, however often it was tried.
    pub(crate) fn refuse(&self, error: RouteError) -> RouteError {
        self.refused.fetch_add(1, Relaxed);
        error
    }

    /// Changes the members as a whole or not at all.
    pub(crate) fn change<T, E: From<ConfigError>>(
        &self,
        change: impl FnOnce(&mut Members<'_, N>) -> Result<T, E>,
    ) -> Result<T, E>
    where
        N: Send + Sync + 'static,
    {
        // Declared before the locks, so dropped after them: the drop of a node is the caller's code,
        // which may use this set.
        let (before, mut members);
        // The caller's code runs without the roster's lock, which the end of a pick may need.
        let _one_at_a_time = self.changing.lock();
        members = Members::new(self.roster.lock().seats.clone(), &self.maker);
        let result = change(&mut members)?;
        let mut roster = self.roster.lock();
        members.adopt_roles(&roster.seats);
        members.validate()?;
        before = std::mem::replace(&mut roster.seats, members.seats);
        roster.expects_primary |= roster.seats.iter().any(|seat| seat.role != Role::Replica);
        let is_in = |seats: &[Seat<N>], id| seats.iter().any(|seat| seat.node.id == id);
        let Roster { seats, removed, .. } = &mut *roster;
        removed.retain(|node| node.strong_count() > 0);
        for seat in before.iter().filter(|seat| !is_in(seats, seat.node.id)) {
            seat.node.notice.send_modify(|notice| notice.removed = true);
            removed.push(Arc::downgrade(&seat.node));
        }
        let monitored = self.monitored.load(Relaxed);
        for seat in roster.seats.iter_mut().filter(|seat| !is_in(&before, seat.node.id)) {
            self.watch(&seat.node);
            if monitored {
                seat.await_word();
            }
        }
        self.publish(&roster);
        drop(roster);
        self.members_changed.notify_one();
        Ok(result)
    }

    pub(crate) fn set_selection(&self, selection: Selection) {
        let mut roster = self.roster.lock();
        roster.selection = selection;
        self.publish(&roster);
    }

    /// Takes note of what a node's monitor saw.
    pub(crate) fn observe(&self, name: &str, observation: Observation) -> Observed {
        self.observe_where(|node| node.name == name, observation)
    }

    fn observe_where(
        &self,
        is_it: impl Fn(&Node<N>) -> bool,
        observation: Observation,
    ) -> Observed {
        let now = Instant::now();
        let mut roster = self.roster.lock();
        let Some(at) = roster.seats.iter().position(|seat| is_it(&seat.node)) else {
            return Observed::NoSuchNode;
        };
        roster.watched = true;
        let mut role = observation.role;
        let mut observed = Observed::Applied;
        let rival = roster.seats.iter().enumerate().position(|(other, seat)| {
            other != at && role == Role::Primary && seat.role == Role::Primary
        });
        if let Some(rival) = rival {
            let seat = &mut roster.seats[rival];
            if observation.timeline > seat.node.freshness.load().timeline {
                // It has been overtaken, and nothing more is known of it.
                seat.role = Role::None;
                seat.node.kick.notify_one();
            } else {
                role = Role::None;
                observed = Observed::SecondPrimary;
            }
        }
        let seat = &mut roster.seats[at];
        seat.node.freshness.store(Arc::new(observation.freshness(now)));
        let changed = rival.is_some() || seat.role != role || seat.excluded != observation.excluded;
        let promoted = seat.role != role && role == Role::Primary;
        if starts_anew(seat.excluded, observation.excluded) {
            seat.node.start_slowly(now);
        }
        (seat.role, seat.excluded) = (role, observation.excluded);
        let promoted = promoted.then(|| Arc::clone(&seat.node));
        if changed {
            roster.expects_primary |= role != Role::Replica;
            self.publish(&roster);
        }
        drop(roster);
        if let Some(node) = promoted {
            node.promoted();
        }
        self.observed.notify_waiters();
        // A place that was free may now be one for somebody who waits at the gate.
        fence(SeqCst);
        self.gate.freed();
        observed
    }

    /// A node has failed, or could not be looked at: nothing that a replica was known to show counts
    /// any more.
    pub(crate) fn forget_node(&self, id: u64) {
        let topology = self.topology.load();
        let seat = topology.seats.iter().find(|seat| seat.node.id == id);
        if let Some(seat) = seat.filter(|seat| seat.role == Role::Replica) {
            seat.node.forget();
        }
    }

    /// As [`Self::observe`], for the node with this identity: a name may be given anew.
    #[cfg(feature = "postgres")]
    pub(crate) fn observe_node(&self, id: u64, observation: Observation) {
        self.observe_where(|node| node.id == id, observation);
    }

    /// From now on a monitor says what nodes are. Returns which was declared the primary, or `None`
    /// if the set has a monitor already.
    #[cfg(feature = "postgres")]
    pub(crate) fn begin_monitoring(&self) -> Option<Option<String>> {
        let mut roster = self.roster.lock();
        if self.monitored.swap(true, Relaxed) {
            return None;
        }
        self.set_probed(&roster, true);
        roster.watched = true;
        let declared = roster.seats.iter().find(|seat| seat.role == Role::Primary);
        let declared = declared.map(|seat| seat.node.name.clone());
        roster.expects_primary = true;
        roster.seats.iter_mut().for_each(Seat::await_word);
        self.publish(&roster);
        Some(declared)
    }

    /// The monitor has ended; what it said last holds on.
    #[cfg(feature = "postgres")]
    pub(crate) fn end_monitoring(&self) {
        let mut roster = self.roster.lock();
        self.monitored.store(false, Relaxed);
        self.set_probed(&roster, self.probe.is_some());
        roster.watched = false;
        self.publish(&roster);
    }

    /// Whether probes, and not requests, bring ejected nodes back: those that are out, too.
    #[cfg(feature = "postgres")]
    fn set_probed(&self, roster: &Roster<N>, probed: bool) {
        self.policy.set_probed(probed);
        roster.seats.iter().for_each(|seat| seat.node.policy_changed());
    }

    /// A node has said that it is not the primary. Where nobody would find out what it is instead, and
    /// who the primary is, it stays what it was declared as: it alone may take writes again.
    pub(crate) fn demote(&self, node: &Node<N>) {
        let mut roster = self.roster.lock();
        if roster.watched {
            let seat = roster.seats.iter_mut().find(|seat| seat.node.id == node.id);
            if let Some(seat) = seat.filter(|seat| seat.role == Role::Primary) {
                seat.role = Role::None;
                self.publish(&roster);
            }
        }
        drop(roster);
        node.kick.notify_one();
    }

    pub(crate) fn node(&self, name: &str) -> Option<Arc<Node<N>>> {
        let topology = self.topology.load();
        let seat = topology.seats.iter().find(|seat| seat.node.name == name)?;
        Some(Arc::clone(&seat.node))
    }

    /// Makes a new snapshot because some node's health has changed.
    pub(crate) fn refresh(&self) {
        self.publish(&self.roster.lock());
    }

    /// Makes a new snapshot because a slow start has gone on, unless somebody else is about to.
    fn step(&self) {
        if let Some(roster) = self.roster.try_lock() {
            self.publish(&roster);
        }
    }

    fn publish(&self, roster: &Roster<N>) {
        self.topology.store(Arc::new(roster.topology(&self.policy)));
        // What waiters could not get from the old snapshot, they may from the new one.
        fence(SeqCst);
        self.gate.freed();
    }

    /// Starts the probes of the nodes that are there.
    pub(crate) fn watch_all(&self)
    where
        N: Send + Sync + 'static,
    {
        for seat in &self.topology.load().seats {
            self.watch(&seat.node);
        }
    }

    fn watch(&self, node: &Arc<Node<N>>)
    where
        N: Send + Sync + 'static,
    {
        if let Some((probe, runtime)) = &self.probe {
            probe::spawn(node, probe, &self.policy, runtime);
        }
    }

    /// Picks that have not ended on nodes that are no longer in the set.
    pub(crate) fn draining(&self) -> u64 {
        let removed: Vec<_> = self.roster.lock().removed.iter().filter_map(Weak::upgrade).collect();
        // Without the lock: each may be the last one to hold its node, whose drop is the caller's code.
        removed.iter().map(|node| node.in_flight()).sum()
    }
}

/// Whether a node has been away for as long as its caches take to grow cold. One that nobody could
/// measure for a moment has not.
fn starts_anew(before: Option<Exclusion>, after: Option<Exclusion>) -> bool {
    let is_away = |why| matches!(why, Some(Exclusion::Lag | Exclusion::Silent | Exclusion::Fenced));
    is_away(before) && !is_away(after)
}

impl<N> Roster<N> {
    fn topology(&self, policy: &Policy) -> Topology<N> {
        let seats = self.seats.clone();
        Topology::new(seats, self.selection.clone(), self.expects_primary, policy, Instant::now())
    }
}

#[cfg(all(test, feature = "postgres"))]
mod tests;
