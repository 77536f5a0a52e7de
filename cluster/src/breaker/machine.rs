//! The states of a circuit and what moves it from one to the next. Pure: the time (since the
//! breaker was made) and a random share come in as arguments.
//!
//! Every move starts a new epoch. A call carries the epoch it was let in under, and a result from
//! another epoch changes nothing: neither a slow call from before the circuit opened nor a probe
//! that outlived its deadline decides anything.

use std::fmt;
use std::time::Duration;

use super::BreakerConfig;

/// Where a circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum State {
    /// Calls go through and their results are counted.
    Closed,
    /// Calls go through and nothing opens the circuit, until it is reset.
    ForcedClosed,
    /// The backend is being tried: a few calls go through, the others are rejected. An open
    /// circuit whose time is over reads as half-open: its next call goes through.
    HalfOpen,
    /// Calls are rejected until the open time is over.
    Open,
    /// Calls are rejected until the circuit is reset.
    ForcedOpen,
}

impl State {
    /// The name used in logs and in statistics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ForcedClosed => "forced_closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
            Self::ForcedOpen => "forced_open",
        }
    }

    /// Whether every call goes through.
    #[must_use]
    pub fn is_closed(self) -> bool {
        matches!(self, Self::Closed | Self::ForcedClosed)
    }

    /// The state as a gauge: 0 closed, 1 half-open, 2 open, the forced ones as what they force.
    #[must_use]
    pub fn as_gauge(self) -> f64 {
        match self {
            Self::Closed | Self::ForcedClosed => 0.0,
            Self::HalfOpen => 1.0,
            Self::Open | Self::ForcedOpen => 2.0,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a finished call says about the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Success,
    Failure,
    Neutral,
}

/// The right to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) epoch: u64,
    /// Set for a call that tries the backend while the circuit is half-open.
    pub(super) probe: Option<u64>,
}

/// How often the circuit has moved, by hand or by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moves {
    pub(super) opened: u64,
    pub(super) half_opened: u64,
    pub(super) closed: u64,
}

#[derive(Debug)]
pub(super) struct Machine {
    rules: Rules,
    epoch: u64,
    phase: Phase,
    /// Times the circuit has opened since it was last closed: the exponent of the open time.
    streak: u32,
    moves: Moves,
}

#[derive(Debug)]
struct Rules {
    open_for: Duration,
    open_for_max: Duration,
    jitter: f64,
    permits: u32,
    /// Successes among `permits` calls that close the circuit, at least one.
    needed: u32,
    probe_deadline: Duration,
}

#[derive(Debug)]
enum Phase {
    Closed,
    ForcedClosed,
    HalfOpen(Trial),
    Open { until: Duration },
    ForcedOpen,
}

/// One half-open period: calls under way plus calls decided never exceed the permits.
#[derive(Debug, Default)]
struct Trial {
    probes: Vec<Probe>,
    next: u64,
    succeeded: u32,
    failed: u32,
}

#[derive(Debug)]
struct Probe {
    id: u64,
    deadline: Duration,
}

impl Machine {
    pub(super) fn new(config: &BreakerConfig) -> Self {
        let permits = config.half_open_permits;
        let needed = (config.half_open_success_ratio * f64::from(permits)).ceil();
        let rules = Rules {
            open_for: config.open_for,
            open_for_max: config.open_for_max,
            jitter: config.jitter,
            permits,
            needed: (needed as u32).clamp(1, permits),
            probe_deadline: config.probe_deadline,
        };
        Self { rules, epoch: 0, phase: Phase::Closed, streak: 0, moves: Moves::default() }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn moves(&self) -> Moves {
        self.moves
    }

    /// When the open time ends; zero in every other state.
    pub(super) fn open_until(&self) -> Duration {
        match self.phase {
            Phase::Open { until } => until,
            _ => Duration::ZERO,
        }
    }

    /// The state as of the last move; see [`State::HalfOpen`] for what an ended open time reads as.
    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::ForcedClosed => State::ForcedClosed,
            Phase::HalfOpen(_) => State::HalfOpen,
            Phase::Open { .. } => State::Open,
            Phase::ForcedOpen => State::ForcedOpen,
        }
    }

    /// Lets a call in, or says after what time to ask again.
    pub(super) fn admit(&mut self, now: Duration, chance: f64) -> Result<Ticket, Duration> {
        self.expire(now, chance);
        if let Phase::Open { until } = self.phase
            && now >= until
        {
            self.moves.half_opened += 1;
            self.enter(Phase::HalfOpen(Trial::default()));
        }
        let epoch = self.epoch;
        match &mut self.phase {
            Phase::Closed | Phase::ForcedClosed => Ok(Ticket { epoch, probe: None }),
            Phase::Open { until } => Err(*until - now),
            Phase::ForcedOpen => Err(self.rules.open_for),
            Phase::HalfOpen(trial) => {
                let deadline = now.saturating_add(self.rules.probe_deadline);
                match trial.admit(self.rules.permits, deadline) {
                    Some(id) => Ok(Ticket { epoch, probe: Some(id) }),
                    None => Err(trial.next_deadline().saturating_sub(now)),
                }
            }
        }
    }

    /// Takes the result of a probe.
    pub(super) fn settle(&mut self, ticket: Ticket, verdict: Verdict, now: Duration, chance: f64) {
        self.expire(now, chance);
        let Some(probe) = ticket.probe.filter(|_| ticket.epoch == self.epoch) else { return };
        let Phase::HalfOpen(trial) = &mut self.phase else { return };
        if !trial.release(probe) {
            return;
        }
        match verdict {
            Verdict::Success => {
                trial.succeeded += 1;
                if trial.succeeded >= self.rules.needed {
                    self.close();
                }
            }
            Verdict::Failure => {
                trial.failed += 1;
                if trial.failed > self.rules.permits - self.rules.needed {
                    self.open(now, chance);
                }
            }
            Verdict::Neutral => {}
        }
    }

    /// Opens a closed circuit, unless it has moved since `epoch`.
    pub(super) fn trip(&mut self, epoch: u64, now: Duration, chance: f64) {
        if epoch == self.epoch && matches!(self.phase, Phase::Closed) {
            self.open(now, chance);
        }
    }

    pub(super) fn force_open(&mut self) {
        if !matches!(self.phase, Phase::ForcedOpen) {
            self.moves.opened += 1;
            self.enter(Phase::ForcedOpen);
        }
    }

    pub(super) fn force_close(&mut self) {
        if !matches!(self.phase, Phase::ForcedClosed) {
            self.moves.closed += u64::from(!matches!(self.phase, Phase::Closed));
            self.streak = 0;
            self.enter(Phase::ForcedClosed);
        }
    }

    /// Closed, with nothing counted, whatever was before.
    pub(super) fn reset(&mut self) {
        if self.state().is_closed() {
            self.streak = 0;
            self.enter(Phase::Closed);
        } else {
            self.close();
        }
    }

    /// Counts probes past their deadline as failed, as of that deadline: an open time that follows
    /// from it began then, even if nobody called in between.
    fn expire(&mut self, now: Duration, chance: f64) {
        let Phase::HalfOpen(trial) = &mut self.phase else { return };
        while let Some(deadline) = trial.pop_overdue(now) {
            trial.failed += 1;
            if trial.failed > self.rules.permits - self.rules.needed {
                self.open(deadline, chance);
                return;
            }
        }
    }

    fn open(&mut self, at: Duration, chance: f64) {
        let doublings = self.streak.min(31);
        let time = self.rules.open_for.saturating_mul(1 << doublings).min(self.rules.open_for_max);
        let time = time.mul_f64(1.0 + self.rules.jitter * chance);
        self.streak = self.streak.saturating_add(1);
        self.moves.opened += 1;
        self.enter(Phase::Open { until: at.saturating_add(time) });
    }

    fn close(&mut self) {
        self.streak = 0;
        self.moves.closed += 1;
        self.enter(Phase::Closed);
    }

    fn enter(&mut self, phase: Phase) {
        self.epoch += 1;
        self.phase = phase;
    }
}

impl Trial {
    fn admit(&mut self, permits: u32, deadline: Duration) -> Option<u64> {
        let decided = (self.succeeded + self.failed) as usize;
        if self.probes.len() + decided >= permits as usize {
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.probes.push(Probe { id, deadline });
        Some(id)
    }

    /// False if the probe is no longer there: it has outlived its deadline.
    fn release(&mut self, id: u64) -> bool {
        let before = self.probes.len();
        self.probes.retain(|probe| probe.id != id);
        self.probes.len() < before
    }

    /// Removes the probe whose deadline passed first.
    fn pop_overdue(&mut self, now: Duration) -> Option<Duration> {
        let overdue = self.probes.iter().enumerate().filter(|(_, probe)| probe.deadline <= now);
        let (index, _) = overdue.min_by_key(|(_, probe)| probe.deadline)?;
        Some(self.probes.swap_remove(index).deadline)
    }

    fn next_deadline(&self) -> Duration {
        self.probes.iter().map(|probe| probe.deadline).min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
