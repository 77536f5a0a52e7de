//! The states of a circuit and what moves it from one to the next. Pure: the time (since the
//! breaker was made) and a random share come in as arguments.
//!
//! Every move starts a new epoch. A call carries the epoch it was let in under, and a result from
//! another epoch changes nothing: neither a slow call from before the circuit opened nor a probe
//! that outlived its deadline decides anything.

mod rules;
mod trial;

use std::num::NonZeroU32;
use std::time::Duration;

use self::rules::Rules;
use self::trial::Trial;
use super::{BreakerConfig, Figures, Reason, State};

pub(super) use self::rules::ramp_share;

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
    pub(super) probe: Option<NonZeroU32>,
}

/// How often the circuit has moved, by hand or by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moves {
    pub(super) opened: u64,
    pub(super) half_opened: u64,
    pub(super) closed: u64,
}

/// One move, to be told to whoever wants to know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Move {
    pub(super) from: State,
    pub(super) to: State,
    pub(super) reason: Reason,
    pub(super) sequence: u64,
    pub(super) open_for: Duration,
    pub(super) figures: Figures,
}

#[derive(Debug)]
pub(super) struct Machine {
    rules: Rules,
    epoch: u64,
    phase: Phase,
    /// Whether the epoch of the last time of being closed was an odd number: each is the other way
    /// round than the one before, so that whoever counts in two places can tell them apart.
    odd: bool,
    /// Times the circuit has opened since it was last closed: the exponent of the open time.
    streak: u32,
    /// Until when the backend has asked to be left alone since the circuit was last closed.
    hold_until: Duration,
    moves: Moves,
    sequence: u64,
    /// Moves that were not told yet.
    untold: Vec<Move>,
}

#[derive(Debug)]
enum Phase {
    /// With the beginning of the ramp, while there is one.
    Closed {
        ramp: Option<Duration>,
    },
    ForcedClosed,
    HalfOpen(Trial),
    Open {
        until: Duration,
    },
    ForcedOpen,
    Disabled,
}

impl Phase {
    fn state(&self) -> State {
        match self {
            Self::Closed { .. } => State::Closed,
            Self::ForcedClosed => State::ForcedClosed,
            Self::HalfOpen(_) => State::HalfOpen,
            Self::Open { .. } => State::Open,
            Self::ForcedOpen => State::ForcedOpen,
            Self::Disabled => State::Disabled,
        }
    }
}

impl Machine {
    pub(super) fn new(config: &BreakerConfig) -> Self {
        Self {
            rules: Rules::new(config),
            epoch: 0,
            phase: Phase::Closed { ramp: None },
            odd: false,
            streak: 0,
            hold_until: Duration::ZERO,
            moves: Moves::default(),
            sequence: 0,
            untold: Vec::new(),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn moves(&self) -> Moves {
        self.moves
    }

    pub(super) fn take_untold(&mut self) -> Vec<Move> {
        std::mem::take(&mut self.untold)
    }

    /// When the open time ends; zero in every other state.
    pub(super) fn open_until(&self) -> Duration {
        match self.phase {
            Phase::Open { until } => until,
            _ => Duration::ZERO,
        }
    }

    /// When the ramp began, if the circuit is in one.
    pub(super) fn ramp(&self) -> Option<Duration> {
        match self.phase {
            Phase::Closed { ramp } => ramp,
            _ => None,
        }
    }

    /// The state as of the last move; see [`State::HalfOpen`] for what an ended open time reads as.
    pub(super) fn state(&self) -> State {
        self.phase.state()
    }

    /// Whether it stays where it is until somebody says otherwise.
    pub(super) fn is_forced(&self) -> bool {
        matches!(self.phase, Phase::ForcedClosed | Phase::ForcedOpen | Phase::Disabled)
    }

    /// Obeys another configuration. The state stays, and so does an open time or a ramp that has
    /// begun; a trial is decided by the new numbers.
    pub(super) fn set_rules(&mut self, config: &BreakerConfig, now: Duration, chance: f64) {
        self.rules = Rules::new(config);
        self.decide(now, chance);
    }

    /// Lets a call in, or says after what time to ask again.
    pub(super) fn admit(&mut self, now: Duration, chance: f64) -> Result<Ticket, Duration> {
        self.expire(now, chance);
        if let Phase::Open { until } = self.phase
            && now >= until
        {
            self.moves.half_opened += 1;
            let trial = Phase::HalfOpen(Trial::default());
            self.enter(trial, Reason::OpenTimeOver, Figures::default());
        }
        let epoch = self.epoch;
        match &mut self.phase {
            Phase::Closed { ramp: Some(began) } => {
                let age = now.saturating_sub(*began);
                if age >= self.rules.ramp {
                    self.phase = Phase::Closed { ramp: None };
                } else if chance >= ramp_share(age, self.rules.ramp) {
                    // When the chance that was drawn would do. With the end of the ramp for an
                    // answer, all of them would be back at once.
                    let passes_at = self.rules.ramp.mul_f64(chance);
                    return Err(passes_at.saturating_sub(age).max(Duration::from_millis(1)));
                }
                Ok(Ticket { epoch, probe: None })
            }
            Phase::Closed { ramp: None } | Phase::ForcedClosed | Phase::Disabled => {
                Ok(Ticket { epoch, probe: None })
            }
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

    /// After what time to ask again, if no call at all is let in now.
    pub(super) fn refusal(&mut self, now: Duration, chance: f64) -> Option<Duration> {
        self.expire(now, chance);
        let until = match &self.phase {
            Phase::Open { until } => *until,
            Phase::ForcedOpen => return Some(self.rules.open_for),
            Phase::HalfOpen(trial) if trial.is_full(self.rules.permits) => trial.next_deadline(),
            _ => return None,
        };
        until.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Takes the result of a probe, which may say after what time to come back.
    pub(super) fn settle(
        &mut self,
        ticket: Ticket,
        (verdict, retry_after): (Verdict, Option<Duration>),
        now: Duration,
        chance: f64,
    ) {
        self.expire(now, chance);
        let Some(probe) = ticket.probe.filter(|_| ticket.epoch == self.epoch) else { return };
        let Phase::HalfOpen(trial) = &mut self.phase else { return };
        if !trial.release(probe) {
            return;
        }
        match verdict {
            Verdict::Success => trial.succeeded += 1,
            Verdict::Failure => trial.failed += 1,
            Verdict::Neutral => {}
        }
        self.hold(ticket.epoch, now, retry_after);
        self.decide(now, chance);
    }

    /// Notes that a call of this epoch was told to come back after so much time.
    pub(super) fn hold(&mut self, epoch: u64, now: Duration, retry_after: Option<Duration>) {
        if let Some(time) = retry_after
            && epoch == self.epoch
        {
            let until = now.saturating_add(time.min(self.rules.retry_after_max));
            self.hold_until = self.hold_until.max(until);
        }
    }

    /// Opens a closed circuit, unless it has moved since `epoch`.
    pub(super) fn trip(&mut self, epoch: u64, now: Duration, chance: f64, why: (Reason, Figures)) {
        if epoch == self.epoch && matches!(self.phase, Phase::Closed { .. }) {
            self.open(now, chance, why);
        }
    }

    pub(super) fn force_open(&mut self) {
        if !matches!(self.phase, Phase::ForcedOpen) {
            self.moves.opened += 1;
            self.by_hand(Phase::ForcedOpen);
        }
    }

    pub(super) fn force_close(&mut self) {
        if !matches!(self.phase, Phase::ForcedClosed) {
            self.moves.closed += u64::from(!self.state().is_closed());
            self.by_hand(Phase::ForcedClosed);
        }
    }

    pub(super) fn disable(&mut self) {
        if !matches!(self.phase, Phase::Disabled) {
            self.moves.closed += u64::from(!self.state().is_closed());
            self.by_hand(Phase::Disabled);
        }
    }

    /// Closed, with nothing counted and at once for all, whatever was before.
    pub(super) fn reset(&mut self) {
        self.moves.closed += u64::from(!self.state().is_closed());
        self.by_hand(Phase::Closed { ramp: None });
    }

    fn by_hand(&mut self, phase: Phase) {
        self.streak = 0;
        self.enter(phase, Reason::ByHand, Figures::default());
    }

    /// Counts probes past their deadline as failed, as of that deadline: an open time that follows
    /// from it began then, even if nobody called in between.
    fn expire(&mut self, now: Duration, chance: f64) {
        while let Phase::HalfOpen(trial) = &mut self.phase
            && let Some(deadline) = trial.pop_overdue(now)
        {
            trial.failed += 1;
            self.decide(deadline, chance);
        }
    }

    /// Ends a trial whose calls have said enough.
    fn decide(&mut self, now: Duration, chance: f64) {
        let Phase::HalfOpen(trial) = &self.phase else { return };
        let figures = trial.figures();
        if trial.succeeded >= self.rules.needed {
            self.streak = 0;
            self.moves.closed += 1;
            let ramp = (!self.rules.ramp.is_zero()).then_some(now);
            self.enter(Phase::Closed { ramp }, Reason::TrialSucceeded, figures);
        } else if trial.failed > self.rules.permits - self.rules.needed {
            self.open(now, chance, (Reason::TrialFailed, figures));
        }
    }

    fn open(&mut self, at: Duration, chance: f64, (reason, figures): (Reason, Figures)) {
        let asked = self.hold_until.saturating_sub(at);
        let time = self.rules.open_time(self.streak, asked, chance);
        self.streak = self.streak.saturating_add(1);
        self.moves.opened += 1;
        self.enter(Phase::Open { until: at.saturating_add(time) }, reason, figures);
        if let Some(told) = self.untold.last_mut() {
            told.open_for = time;
        }
    }

    fn enter(&mut self, phase: Phase, reason: Reason, figures: Figures) {
        let (from, to) = (self.state(), phase.state());
        self.epoch += 1;
        if to == State::Closed {
            self.odd = !self.odd;
            self.epoch += u64::from((self.epoch % 2 == 1) != self.odd);
        }
        if to.is_closed() {
            self.hold_until = Duration::ZERO;
        }
        self.phase = phase;
        if from != to {
            self.sequence += 1;
            let sequence = self.sequence;
            let open_for = Duration::ZERO;
            self.untold.push(Move { from, to, reason, sequence, open_for, figures });
        }
    }
}
