//! One node with its counters and its health, arranged so that picking it takes no lock.

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::gate::Gate;
use crate::health::{Failure, Health, Policy, Transition};
use crate::latency::{Estimate, PENALTY};
use crate::rota::Rota;
use crate::session::Kicks;
use crate::shared::Shared;
use crate::tally::{Tally, add_below};
use crate::ticket::Ticket;
use crate::topology::Seat;
use crate::{Freshness, Member, Outcome, Reason, Role};

/// A node of a set, for as long as the set or a pick has it.
pub(crate) struct Node<N> {
    pub(crate) value: N,
    pub(crate) name: String,
    /// Never given twice in one set; what an index is not, since nodes come and go.
    pub(crate) id: u64,
    pub(crate) tally: Tally,
    health: Mutex<Health>,
    mirror: Mirror,
    /// An [`Estimate`], kept while requests are timed.
    pub(crate) latency: AtomicU64,
    /// The start of the clock that the times in [`Mirror`] count on.
    born: Instant,
    pub(crate) freshness: ArcSwap<Freshness>,
    /// For its probe task; which also ends when this is dropped.
    pub(crate) notice: watch::Sender<Notice>,
    /// Asks the node's monitor to look at it now.
    pub(crate) kick: Arc<Notify>,
    /// How often reads that wait may do so.
    pub(crate) kicked: Kicks,
    gate: Arc<Gate>,
    policy: Arc<Policy>,
    rota: Arc<Rota>,
    set: Weak<Shared<N>>,
}

/// What a node's probe task must hear of.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Notice {
    pub(crate) ejected_until: Option<Instant>,
    /// Only its requests failed, so far.
    pub(crate) suspected: bool,
    /// Taken out of the set for good.
    pub(crate) removed: bool,
}

/// Parts of the health that picks and successes read without its lock. A reader may see one of
/// them a moment late, which costs a needless lock or one pick of a node just ejected.
#[derive(Debug)]
struct Mirror {
    epoch: AtomicU32,
    ejected: AtomicBool,
    confirmed: AtomicBool,
    spotless: AtomicBool,
    /// Nanoseconds after `born`; never, while in service.
    trial_at: AtomicU64,
    /// When its slow start began, in nanoseconds after `born`; never, if it has none.
    slow_since: AtomicU64,
}

const NEVER: u64 = u64::MAX;

/// Makes nodes for one set.
pub(crate) struct Maker<N> {
    pub(crate) set: Weak<Shared<N>>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) rota: Arc<Rota>,
    pub(crate) ids: AtomicU64,
}

impl<N> Maker<N> {
    /// A node for a set that runs already.
    pub(crate) fn seat(&self, member: Member<N>) -> Seat<N> {
        let seat = self.initial_seat(member);
        seat.node.start_slowly(Instant::now());
        seat
    }

    /// A node of a set that is being built: none of its nodes is warmer than another.
    pub(crate) fn initial_seat(&self, member: Member<N>) -> Seat<N> {
        let Member { name, role, node, settings } = member;
        let now = Instant::now();
        let node = Node {
            value: node,
            name,
            id: self.ids.fetch_add(1, Relaxed),
            tally: Tally::default(),
            health: Mutex::new(Health::new(now)),
            mirror: Mirror {
                epoch: AtomicU32::new(0),
                ejected: AtomicBool::new(false),
                confirmed: AtomicBool::new(false),
                spotless: AtomicBool::new(true),
                trial_at: AtomicU64::new(NEVER),
                slow_since: AtomicU64::new(NEVER),
            },
            latency: AtomicU64::new(Estimate::NONE),
            born: now,
            freshness: ArcSwap::default(),
            notice: watch::Sender::default(),
            kick: Arc::default(),
            kicked: Kicks::default(),
            gate: Arc::clone(&self.gate),
            policy: Arc::clone(&self.policy),
            rota: Arc::clone(&self.rota),
            set: Weak::clone(&self.set),
        };
        Seat { node: Arc::new(node), role, settings, excluded: None }
    }
}

impl<N> Node<N> {
    #[inline]
    pub(crate) fn in_flight(&self) -> u64 {
        self.tally.in_flight.load(Relaxed)
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.mirror.ejected.load(Relaxed)
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        self.mirror.confirmed.load(Relaxed)
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u32 {
        self.mirror.epoch.load(Relaxed)
    }

    /// When the node's slow start began, if it had one.
    pub(crate) fn slow_since(&self) -> Option<Instant> {
        let since = self.mirror.slow_since.load(Relaxed);
        (since != NEVER).then(|| self.born + Duration::from_nanos(since))
    }

    /// Begins a slow start; the next snapshot reckons with it. How slow the node was before it was away
    /// is forgotten, or it would get nothing until its slow start is over.
    pub(crate) fn start_slowly(&self, now: Instant) {
        self.mirror.slow_since.store(self.since_birth(now), Relaxed);
        self.latency.store(Estimate::NONE, Relaxed);
    }

    /// Counts a request in, if there are fewer than `limit`; [`Self::end`] counts it out.
    #[inline]
    pub(crate) fn enter(&self, limit: u64, reason: Reason) -> bool {
        self.tally.enter(limit, reason)
    }

    /// As [`enter`](Self::enter), for a read for want of a replica; of these, at most `budget`.
    #[inline(never)]
    pub(crate) fn enter_substituting(&self, limit: u64, budget: u64, reason: Reason) -> bool {
        if !add_below(&self.tally.substituting, budget) {
            return false;
        }
        let entered = self.enter(limit, reason);
        if !entered {
            self.tally.substituting.fetch_sub(1, SeqCst);
            self.gate.freed();
        }
        entered
    }

    /// Counts a request out and draws the conclusions.
    #[inline]
    pub(crate) fn end(&self, ticket: Ticket, outcome: Outcome) {
        if outcome != Outcome::Success || ticket.is_substituting() {
            self.end_with_care(ticket, Some(outcome));
            return;
        }
        self.tally.leave(None);
        self.gate.freed();
        if ticket.is_timed() {
            self.learn(ticket, Some(outcome));
        }
        self.proved(ticket.epoch());
    }

    /// Counts a request out that ended without a verdict.
    #[inline(never)]
    pub(crate) fn abandon(&self, ticket: Ticket) {
        self.end_with_care(ticket, None);
    }

    #[inline(never)]
    fn end_with_care(&self, ticket: Ticket, outcome: Option<Outcome>) {
        self.tally.leave(match outcome {
            Some(Outcome::Success | Outcome::Overloaded { .. } | Outcome::Neutral) => None,
            Some(Outcome::Failure | Outcome::NotPrimary) => Some(&self.tally.failed),
            None => Some(&self.tally.cancelled),
        });
        // After it, so that no more are seen in flight than may be.
        if ticket.is_substituting() {
            self.tally.substituting.fetch_sub(1, SeqCst);
        }
        self.gate.freed();
        if ticket.is_measured() {
            self.learn(ticket, outcome);
        }
        match outcome {
            Some(Outcome::Success) => self.proved(ticket.epoch()),
            Some(Outcome::Failure) => self.failed(ticket),
            // What it refused before it was promoted says nothing of now.
            Some(Outcome::NotPrimary) if ticket.role() != Role::Primary => self.kick.notify_one(),
            Some(Outcome::NotPrimary) => {
                if let Some(set) = self.set.upgrade() {
                    set.demote(self);
                }
            }
            Some(Outcome::Overloaded { .. } | Outcome::Neutral) | None => {}
        }
        let undecided = !matches!(outcome, Some(Outcome::Success | Outcome::Failure));
        if ticket.reason() == Reason::Trial && undecided {
            self.judge(|health, now| {
                health.abandon_trial(now, ticket.epoch());
                None
            });
            self.gate.freed();
        }
    }

    /// Draws the conclusions of a success.
    #[inline]
    pub(crate) fn proved(&self, epoch: u32) {
        // The usual case: no lock, no clock.
        if !self.mirror.spotless.load(Relaxed) {
            self.forgive(epoch);
        }
    }

    #[inline(never)]
    fn forgive(&self, epoch: u32) {
        self.judge(|health, now| health.request_succeeded(now, epoch, &self.policy));
    }

    /// Draws the conclusions for the node's latency.
    #[inline(never)]
    pub(crate) fn learn(&self, ticket: Ticket, outcome: Option<Outcome>) {
        let refused = match outcome {
            Some(Outcome::Failure) => Some(PENALTY),
            Some(Outcome::Overloaded { retry_after }) => Some(retry_after.unwrap_or(PENALTY)),
            Some(Outcome::Success | Outcome::NotPrimary | Outcome::Neutral) | None => None,
        };
        // A request from before an ejection or a return says nothing of the node as it is.
        if !ticket.is_timed() && refused.is_none() || ticket.epoch() != self.epoch() {
            return;
        }
        let (now, millis) = self.rota.now();
        // Nothing for one that is not timed.
        let took = Duration::from_nanos(now.saturating_sub(ticket.since()));
        let took = took.max(refused.unwrap_or_default());
        // One without an answer took at least so long, and says nothing if others took longer.
        let answered = refused.is_some() || outcome == Some(Outcome::Success);
        let update = |bits| {
            let estimate = Estimate::from_bits(bits);
            let slower = estimate.at(millis) < took.as_nanos() as f32;
            (answered || slower).then(|| estimate.with(took, millis).to_bits())
        };
        // `Err` only says that there was nothing to learn.
        let _ = self.latency.fetch_update(Relaxed, Relaxed, update);
    }

    fn failed(&self, ticket: Ticket) {
        let Some(set) = self.set.upgrade() else { return };
        if ticket.role() == Role::Primary {
            // It may have failed because it is no longer the primary.
            self.kick.notify_one();
        } else {
            set.forget_node(self.id);
        }
        // Held until the ejection is visible, so that two do not use the same allowance.
        let _one_at_a_time = set.ejecting.lock();
        let may_eject = ticket.role() == Role::Primary || set.topology.load().can_spare(self);
        self.judge(|health, now| {
            let (succeeded, chance) = (self.tally.succeeded(), fastrand::f64());
            let failure = Failure { now, epoch: ticket.epoch(), succeeded, chance, may_eject };
            health.request_failed(failure, &self.policy)
        });
    }

    /// What the node has shown it may show no more: a server that crashes comes back with less than it
    /// had replayed. So nobody relies on it until it is looked at again, which is at once. Its history
    /// is remembered: should it have become the primary, that tells which of two is the older one.
    pub(crate) fn forget(&self) {
        let forgotten = |seen: &Arc<Freshness>| Freshness {
            system: seen.system,
            timeline: seen.timeline,
            ..Freshness::default()
        };
        if self.freshness.rcu(forgotten).observed_at.is_some() {
            self.kick.notify_one();
        }
    }

    /// When one request may next try this node, if it is ejected.
    pub(crate) fn next_trial(&self) -> Option<Instant> {
        let at = self.mirror.trial_at.load(Relaxed);
        (at != NEVER).then(|| self.born + Duration::from_nanos(at))
    }

    /// Takes the right to try this ejected node with one request, if it is due.
    pub(crate) fn begin_trial(&self, now: Instant) -> bool {
        if self.since_birth(now) < self.mirror.trial_at.load(Relaxed) {
            return false;
        }
        let mut health = self.health.lock();
        let begun = health.begin_trial(now, &self.policy);
        self.reflect(&health);
        begun
    }

    pub(crate) fn probed(&self, healthy: bool) {
        self.tally.probes.fetch_add(1, Relaxed);
        if !healthy {
            self.tally.probes_failed.fetch_add(1, Relaxed);
        }
        self.judge(|health, now| {
            if healthy {
                health.probe_succeeded(now)
            } else {
                health.probe_failed(now, fastrand::f64(), &self.policy)
            }
        });
    }

    /// What it failed as a replica says little of it as the primary, and whoever says that it is the
    /// primary has just had its answer.
    pub(crate) fn promoted(&self) {
        if self.is_ejected() {
            self.judge(Health::promoted);
        }
    }

    /// What brings it back is another thing now.
    #[cfg(feature = "postgres")]
    pub(crate) fn policy_changed(&self) {
        self.reflect(&self.health.lock());
    }

    fn judge(&self, step: impl FnOnce(&mut Health, Instant) -> Option<Transition>) {
        let transition = {
            let mut health = self.health.lock();
            let now = Instant::now();
            let transition = step(&mut health, now);
            if transition == Some(Transition::Returned) {
                self.start_slowly(now);
            }
            self.reflect(&health);
            match transition {
                Some(Transition::Ejected { until }) => {
                    self.tally.ejections.fetch_add(1, Relaxed);
                    let suspected = !health.is_confirmed();
                    self.notice.send_modify(|notice| {
                        (notice.ejected_until, notice.suspected) = (Some(until), suspected);
                    });
                }
                Some(Transition::Returned) => {
                    self.tally.returns.fetch_add(1, Relaxed);
                    self.notice.send_modify(|notice| notice.ejected_until = None);
                }
                Some(Transition::Confirmed) | None => {}
            }
            transition
        };
        let Some(transition) = transition else { return };
        announce(&self.name, transition);
        if let Some(set) = self.set.upgrade() {
            set.refresh();
        }
    }

    /// Under the lock of `health`, so that the mirror never goes back.
    fn reflect(&self, health: &Health) {
        let trial_at = health.next_trial(&self.policy).map_or(NEVER, |at| self.since_birth(at));
        self.mirror.epoch.store(health.epoch(), Relaxed);
        self.mirror.ejected.store(health.is_ejected(), Relaxed);
        self.mirror.confirmed.store(health.is_confirmed(), Relaxed);
        self.mirror.spotless.store(health.is_spotless(), Relaxed);
        self.mirror.trial_at.store(trial_at, Relaxed);
    }

    pub(crate) fn since_birth(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.born).as_nanos();
        u64::try_from(since).unwrap_or(NEVER - 1)
    }
}

#[cfg(feature = "tracing")]
fn announce(node: &str, transition: Transition) {
    match transition {
        Transition::Ejected { until } => {
            let seconds = until.saturating_duration_since(Instant::now()).as_secs_f64();
            tracing::warn!(node, seconds, "node ejected");
        }
        Transition::Confirmed => tracing::info!(node, "ejected node failed again"),
        Transition::Returned => tracing::info!(node, "node returned"),
    }
}

#[cfg(not(feature = "tracing"))]
fn announce(_: &str, _: Transition) {}
