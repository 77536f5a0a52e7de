//! When a node is taken out of service and when it returns: a pure state machine, to which time
//! and chance are arguments.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use self::window::Window;
use crate::ReplicasConfig;

pub(crate) mod window;

/// The rules, fixed when the set is built.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) config: ReplicasConfig,
    /// With a probe, only the probe brings a node back; without, a trial request does. A monitor that
    /// starts or ends changes it.
    probed: AtomicBool,
}

impl Policy {
    pub(crate) fn new(config: ReplicasConfig, probed: bool) -> Self {
        Self { config, probed: AtomicBool::new(probed) }
    }

    pub(crate) fn is_probed(&self) -> bool {
        self.probed.load(Relaxed)
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn set_probed(&self, probed: bool) {
        self.probed.store(probed, Relaxed);
    }

    /// The `n`-th ejection in close succession; `chance` is uniform in 0..1.
    fn ejection(&self, n: u32, chance: f64) -> Duration {
        let grown = self.config.ejection_base.saturating_mul(n).min(self.config.ejection_max);
        self.lengthened(grown, chance)
    }

    /// The time to the next probe; `chance` is uniform in 0..1.
    pub(crate) fn interval(&self, chance: f64) -> Duration {
        self.lengthened(self.config.health_interval, chance)
    }

    fn lengthened(&self, time: Duration, chance: f64) -> Duration {
        time.mul_f64(1.0 + self.config.jitter * chance)
    }
}

/// A change that others must hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transition {
    /// Out of service at least until then.
    Ejected {
        /// When the node may be tried again.
        until: Instant,
    },
    /// Still ejected, and now for certain.
    Confirmed,
    /// Back in service.
    Returned,
}

#[derive(Debug)]
enum State {
    Serving { since: Instant },
    Ejected { until: Instant, next_trial: Instant, confirmed: bool },
}

/// A request that a node failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    pub(crate) now: Instant,
    /// Of the health when the node was picked.
    pub(crate) epoch: u32,
    /// All requests that ever succeeded.
    pub(crate) succeeded: u64,
    /// Uniform in 0..1.
    pub(crate) chance: f64,
    /// Whether the set can spare the node.
    pub(crate) may_eject: bool,
}

/// The health of one node.
#[derive(Debug)]
pub(crate) struct Health {
    state: State,
    /// Grows with each transition. The outcome of a request picked under an older one is ignored:
    /// the hundred requests that were in flight when a node died say nothing new.
    epoch: u32,
    failed_requests: u32,
    /// Apart from requests: a node that answers pings but fails queries must go, too.
    failed_probes: u32,
    window: Window,
    /// Ejections in close succession.
    ejections: u32,
}

impl Health {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: State::Serving { since: now },
            epoch: 0,
            failed_requests: 0,
            failed_probes: 0,
            window: Window::default(),
            ejections: 0,
        }
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(crate) fn is_ejected(&self) -> bool {
        matches!(self.state, State::Ejected { .. })
    }

    /// Whether the node has failed a request or a probe since it was ejected, or was ejected because
    /// of a probe. Panic mode gives those that are not another chance.
    pub(crate) fn is_confirmed(&self) -> bool {
        matches!(self.state, State::Ejected { confirmed: true, .. })
    }

    /// Whether a success would change nothing.
    pub(crate) fn is_spotless(&self) -> bool {
        !self.is_ejected() && self.failed_requests == 0 && self.failed_probes == 0
    }

    pub(crate) fn request_succeeded(
        &mut self,
        now: Instant,
        epoch: u32,
        policy: &Policy,
    ) -> Option<Transition> {
        if epoch != self.epoch {
            return None;
        }
        match self.state {
            State::Serving { .. } => {
                // A request is better evidence than a probe, which load alone can starve.
                self.failed_requests = 0;
                self.failed_probes = 0;
                None
            }
            State::Ejected { until, .. } if !policy.is_probed() && now >= until => {
                Some(self.return_to_service(now))
            }
            State::Ejected { .. } => None,
        }
    }

    pub(crate) fn request_failed(
        &mut self,
        failure: Failure,
        policy: &Policy,
    ) -> Option<Transition> {
        let Failure { now, epoch, succeeded, chance, may_eject } = failure;
        if epoch != self.epoch {
            return None;
        }
        match &mut self.state {
            State::Serving { since } => {
                let since = *since;
                self.failed_requests = self.failed_requests.saturating_add(1);
                let in_a_row = self.failed_requests >= policy.config.consecutive_failures;
                // Asked in any case, because it also takes note.
                let too_many = self.window.failed(now, succeeded, &policy.config);
                let eject = (in_a_row || too_many) && may_eject;
                eject.then(|| self.eject(now, since, false, chance, policy))
            }
            // Each trial costs somebody's request, so they become rarer.
            State::Ejected { until, .. } if !policy.is_probed() && now >= *until => {
                Some(self.eject(now, now, true, chance, policy))
            }
            State::Ejected { confirmed, .. } => {
                (!std::mem::replace(confirmed, true)).then_some(Transition::Confirmed)
            }
        }
    }

    pub(crate) fn probe_succeeded(&mut self, now: Instant) -> Option<Transition> {
        self.failed_probes = 0;
        match self.state {
            State::Ejected { until, .. } if now >= until => Some(self.return_to_service(now)),
            State::Ejected { .. } | State::Serving { .. } => None,
        }
    }

    /// A probe that fails on an ejected node does not prolong its ejection: probes are cheap, and
    /// a node that was down for an hour shall be back one interval after it is up.
    pub(crate) fn probe_failed(
        &mut self,
        now: Instant,
        chance: f64,
        policy: &Policy,
    ) -> Option<Transition> {
        match &mut self.state {
            State::Serving { since } => {
                let since = *since;
                self.failed_probes = self.failed_probes.saturating_add(1);
                let enough = self.failed_probes >= policy.config.consecutive_failures;
                enough.then(|| self.eject(now, since, true, chance, policy))
            }
            State::Ejected { confirmed, .. } => {
                (!std::mem::replace(confirmed, true)).then_some(Transition::Confirmed)
            }
        }
    }

    /// The node has a new task, at which it has not failed yet.
    pub(crate) fn promoted(&mut self, now: Instant) -> Option<Transition> {
        self.is_ejected().then(|| self.return_to_service(now))
    }

    /// Takes the right to try an ejected node with one request. Another is granted when the trial
    /// is abandoned, or after the probe timeout, so that a trial that hangs blocks nothing.
    pub(crate) fn begin_trial(&mut self, now: Instant, policy: &Policy) -> bool {
        let due = self.next_trial(policy).is_some_and(|at| now >= at);
        if let State::Ejected { next_trial, .. } = &mut self.state
            && due
        {
            *next_trial = now + policy.config.probe_timeout;
        }
        due
    }

    /// When a request may next try this node, if requests may at all.
    pub(crate) fn next_trial(&self, policy: &Policy) -> Option<Instant> {
        match self.state {
            State::Ejected { next_trial, .. } if !policy.is_probed() => Some(next_trial),
            State::Ejected { .. } | State::Serving { .. } => None,
        }
    }

    /// A trial ended without a verdict.
    pub(crate) fn abandon_trial(&mut self, now: Instant, epoch: u32) {
        if let State::Ejected { next_trial, .. } = &mut self.state
            && epoch == self.epoch
        {
            *next_trial = now;
        }
    }

    fn eject(
        &mut self,
        now: Instant,
        serving_since: Instant,
        confirmed: bool,
        chance: f64,
        policy: &Policy,
    ) -> Transition {
        let served = now.saturating_duration_since(serving_since);
        let forgiven = served.as_nanos() / policy.config.ejection_base.as_nanos().max(1);
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        self.ejections = self.ejections.saturating_sub(forgiven).saturating_add(1);
        let until = now + policy.ejection(self.ejections, chance);
        self.enter(State::Ejected { until, next_trial: until, confirmed });
        Transition::Ejected { until }
    }

    fn return_to_service(&mut self, now: Instant) -> Transition {
        self.enter(State::Serving { since: now });
        Transition::Returned
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.epoch = self.epoch.wrapping_add(1);
        self.failed_requests = 0;
        self.failed_probes = 0;
        self.window = Window::default();
    }
}

/// The share of its weight, in tenths, that a node has so long after its return: from one tenth up,
/// in proportion to the time.
pub(crate) fn ramp(since_return: Duration, slow_start: Duration) -> u32 {
    if since_return >= slow_start {
        return TENTHS;
    }
    // Below `TENTHS`, since the quotient is below one.
    let tenths = since_return.as_nanos() * u128::from(TENTHS) / slow_start.as_nanos();
    u32::try_from(tenths).unwrap_or(TENTHS).max(1)
}

/// How long after its return a node's share reaches so many tenths.
pub(crate) fn ramp_reaches(tenths: u32, slow_start: Duration) -> Duration {
    slow_start * tenths.min(TENTHS) / TENTHS
}

/// The steps of a slow start. A step costs a new snapshot, and finer ones could not be told apart.
pub(crate) const TENTHS: u32 = 10;

#[cfg(test)]
mod tests;
