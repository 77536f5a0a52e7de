//! One node with its counters and its health, arranged so that picking it takes no lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::health::{Health, Policy, Transition};
use crate::select::Load;
use crate::{NodeStats, Outcome, Role};

/// A member of a set.
pub(crate) struct Node<N> {
    pub(crate) value: N,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) weight: u32,
    pub(crate) tally: Tally,
    health: Mutex<Health>,
    mirror: Mirror,
    /// The start of the clock that [`Mirror::trial_at`] counts on.
    born: Instant,
    /// Until when the node is ejected, for its probe task; which also ends when this is dropped.
    pub(crate) ejected_until: watch::Sender<Option<Instant>>,
}

/// What happened on a node. Each is only ever added to, apart from `in_flight`.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) in_flight: AtomicU64,
    pub(crate) started: AtomicU64,
    pub(crate) succeeded: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) ejections: AtomicU64,
    pub(crate) returns: AtomicU64,
    pub(crate) probes: AtomicU64,
    pub(crate) probes_failed: AtomicU64,
}

/// Parts of the health that picks and successes read without its lock. A reader may see one of
/// them a moment late, which costs a needless lock or one pick of a node just ejected.
#[derive(Debug)]
struct Mirror {
    epoch: AtomicU64,
    ejected: AtomicBool,
    spotless: AtomicBool,
    /// Nanoseconds after `born`; never, while in service.
    trial_at: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl<N> Node<N> {
    pub(crate) fn new(value: N, name: String, role: Role, weight: u32, now: Instant) -> Self {
        Self {
            value,
            name,
            role,
            weight,
            tally: Tally::default(),
            health: Mutex::new(Health::new(now)),
            mirror: Mirror {
                epoch: AtomicU64::new(0),
                ejected: AtomicBool::new(false),
                spotless: AtomicBool::new(true),
                trial_at: AtomicU64::new(NEVER),
            },
            born: now,
            ejected_until: watch::Sender::new(None),
        }
    }

    pub(crate) fn load(&self) -> Load {
        Load { in_flight: self.tally.in_flight.load(Relaxed), weight: self.weight }
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.mirror.ejected.load(Relaxed)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.mirror.epoch.load(Relaxed)
    }

    /// Counts a request in; [`Self::end`] counts it out.
    pub(crate) fn start(&self) {
        self.tally.started.fetch_add(1, Relaxed);
        self.tally.in_flight.fetch_add(1, Relaxed);
    }

    /// Counts a request out, `None` for one without a verdict, and draws the conclusions.
    pub(crate) fn end(
        &self,
        outcome: Option<Outcome>,
        epoch: u64,
        policy: &Policy,
    ) -> Option<Transition> {
        let counter = match outcome {
            Some(Outcome::Success | Outcome::Neutral) => &self.tally.succeeded,
            Some(Outcome::Failure) => &self.tally.failed,
            None => &self.tally.cancelled,
        };
        counter.fetch_add(1, Relaxed);
        self.tally.in_flight.fetch_sub(1, Relaxed);
        match outcome {
            // The usual case: no lock, no clock.
            Some(Outcome::Success) if self.mirror.spotless.load(Relaxed) => None,
            Some(Outcome::Success) => {
                self.judge(policy, |health, now| health.request_succeeded(now, epoch, policy))
            }
            Some(Outcome::Failure) => self.judge(policy, |health, now| {
                health.request_failed(now, epoch, fastrand::f64(), policy)
            }),
            Some(Outcome::Neutral) | None => None,
        }
    }

    /// Takes the right to try this ejected node with one request, if it is due.
    pub(crate) fn begin_trial(&self, now: Instant, policy: &Policy) -> bool {
        if self.since_birth(now) < self.mirror.trial_at.load(Relaxed) {
            return false;
        }
        let mut health = self.health.lock();
        let begun = health.begin_trial(now, policy);
        self.reflect(&health, policy);
        begun
    }

    pub(crate) fn abandon_trial(&self, epoch: u64, policy: &Policy) {
        self.judge(policy, |health, now| {
            health.abandon_trial(now, epoch);
            None
        });
    }

    pub(crate) fn probed(&self, healthy: bool, policy: &Policy) -> Option<Transition> {
        self.tally.probes.fetch_add(1, Relaxed);
        if !healthy {
            self.tally.probes_failed.fetch_add(1, Relaxed);
        }
        self.judge(policy, |health, now| {
            if healthy {
                health.probe_succeeded(now)
            } else {
                health.probe_failed(now, fastrand::f64(), policy)
            }
        })
    }

    fn judge(
        &self,
        policy: &Policy,
        step: impl FnOnce(&mut Health, Instant) -> Option<Transition>,
    ) -> Option<Transition> {
        let mut health = self.health.lock();
        let transition = step(&mut health, Instant::now());
        self.reflect(&health, policy);
        match transition {
            Some(Transition::Ejected { until }) => {
                self.tally.ejections.fetch_add(1, Relaxed);
                self.ejected_until.send_replace(Some(until));
            }
            Some(Transition::Returned) => {
                self.tally.returns.fetch_add(1, Relaxed);
                self.ejected_until.send_replace(None);
            }
            None => {}
        }
        transition
    }

    /// Under the lock of `health`, so that the mirror never goes back.
    fn reflect(&self, health: &Health, policy: &Policy) {
        let trial_at = health.next_trial(policy).map_or(NEVER, |at| self.since_birth(at));
        self.mirror.epoch.store(health.epoch(), Relaxed);
        self.mirror.ejected.store(health.is_ejected(), Relaxed);
        self.mirror.spotless.store(health.is_spotless(), Relaxed);
        self.mirror.trial_at.store(trial_at, Relaxed);
    }

    fn since_birth(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.born).as_nanos();
        u64::try_from(since).unwrap_or(NEVER - 1)
    }

    pub(crate) fn stats(&self) -> NodeStats {
        let Tally {
            in_flight,
            started,
            succeeded,
            failed,
            cancelled,
            ejections,
            returns,
            probes,
            probes_failed,
        } = &self.tally;
        NodeStats {
            name: self.name.clone(),
            role: self.role,
            weight: self.weight,
            healthy: !self.is_ejected(),
            in_flight: in_flight.load(Relaxed),
            started_total: started.load(Relaxed),
            succeeded_total: succeeded.load(Relaxed),
            failed_total: failed.load(Relaxed),
            cancelled_total: cancelled.load(Relaxed),
            ejections_total: ejections.load(Relaxed),
            returns_total: returns.load(Relaxed),
            probes_total: probes.load(Relaxed),
            probes_failed_total: probes_failed.load(Relaxed),
        }
    }
}
