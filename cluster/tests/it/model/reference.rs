//! What a breaker has to do, restated over lists of everything that has happened. In milliseconds.

use std::time::Duration;

use escala_cluster::{BreakerConfig, Outcome, State};

use super::history::End;

pub(super) type Counts = (u64, u64, u64);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) in_flight: u64,
    pub(super) admitted: u64,
    pub(super) rejected: u64,
    pub(super) shadow_rejected: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) throttled: u64,
    pub(super) ignored: u64,
    pub(super) cancelled: u64,
    pub(super) abandoned: u64,
    pub(super) slow: u64,
    /// Opened, half-opened, closed.
    pub(super) moves: (u64, u64, u64),
}

/// A call that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    id: u64,
    began: u64,
    /// The time between two moves it was let in during; none if it counts in the totals only.
    period: Option<u64>,
    /// Whether it tries the backend.
    probe: bool,
    /// Whether it counts at all.
    seen: bool,
    /// The slow-call threshold it is watched by.
    threshold: u64,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open { until: u64 },
    HalfOpen { probes: Vec<(Call, u64)>, succeeded: u32, failed: u32 },
    Forced(State),
}

pub(super) struct Model {
    config: BreakerConfig,
    phase: Phase,
    pub(super) shadow: bool,
    period: u64,
    calls: u64,
    pub(super) totals: Totals,
    streak: u32,
    hold: u64,
    /// Since the circuit was closed.
    results: Vec<(u64, bool, bool)>,
    pub(super) row: u64,
    /// Results that each window has never seen or has forgotten.
    unseen: (usize, usize),
    under_way: Vec<Call>,
    look_at: u64,
    /// Number of times the threshold for slow calls has changed.
    threshold: u64,
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().expect("small")
}

impl Model {
    pub(super) fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            phase: Phase::Closed,
            shadow: false,
            period: 0,
            calls: 0,
            totals: Totals::default(),
            streak: 0,
            hold: 0,
            results: Vec::new(),
            row: 0,
            unseen: (0, 0),
            under_way: Vec::new(),
            look_at: 0,
            threshold: 0,
        }
    }

    pub(super) fn state(&self, now: u64) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { until } if now < until => State::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => State::HalfOpen,
            Phase::Forced(state) => state,
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.period += 1;
        if matches!(phase, Phase::Closed) {
            (self.results, self.row, self.unseen) = (Vec::new(), 0, (0, 0));
        }
        if matches!(phase, Phase::Closed | Phase::Forced(State::ForcedClosed | State::Disabled)) {
            self.hold = 0;
        }
        self.phase = phase;
    }

    fn open(&mut self, at: u64) {
        let doubled = (millis(self.config.open_for) << self.streak.min(9))
            .min(millis(self.config.open_for_max));
        let asked = self.hold.saturating_sub(at);
        self.streak += 1;
        self.totals.moves.0 += 1;
        self.enter(Phase::Open { until: at + doubled.max(asked) });
    }

    // ===== calls =====

    pub(super) fn admit(&mut self, now: u64) -> Result<Call, u64> {
        self.look(now);
        self.expire(now);
        if matches!(self.phase, Phase::Open { until } if now >= until) {
            self.totals.moves.1 += 1;
            self.enter(Phase::HalfOpen { probes: Vec::new(), succeeded: 0, failed: 0 });
        }
        self.calls += 1;
        let mut call = Call {
            id: self.calls,
            began: now,
            period: Some(self.period),
            probe: matches!(self.phase, Phase::HalfOpen { .. }),
            seen: true,
            threshold: self.threshold,
        };
        let permits = self.config.half_open_permits as usize;
        let deadline = now + millis(self.config.probe_deadline);
        let wait = match &mut self.phase {
            Phase::Forced(State::Disabled) => {
                call.seen = false;
                return Ok(call);
            }
            Phase::Closed | Phase::Forced(State::ForcedClosed) => None,
            Phase::Forced(_) => Some(millis(self.config.open_for)),
            Phase::Open { until } => Some(*until - now),
            Phase::HalfOpen { probes, succeeded, failed } => {
                if probes.len() + ((*succeeded + *failed) as usize) < permits {
                    probes.push((call, deadline));
                    None
                } else {
                    let next = probes.iter().map(|(_, deadline)| *deadline).min();
                    Some(next.unwrap_or(0).saturating_sub(now))
                }
            }
        };
        if let Some(wait) = wait {
            if !self.shadow {
                self.totals.rejected += 1;
                return Err(wait);
            }
            self.totals.shadow_rejected += 1;
            (call.period, call.probe) = (None, false);
        }
        self.totals.admitted += 1;
        self.totals.in_flight += 1;
        if matches!(self.phase, Phase::Closed) {
            self.under_way.push(call);
        }
        Ok(call)
    }

    pub(super) fn end(&mut self, call: &Call, end: End, now: u64) {
        self.under_way.retain(|other| other != call);
        if !call.seen {
            return;
        }
        let age = now - call.began;
        let (outcome, retry) = match end {
            End::Judged(outcome, seconds) => (Some(outcome), seconds.map(|time| time * 1_000)),
            End::Dropped => (None, None),
        };
        let abandoned = outcome.is_none() && age >= 250;
        let slow = self.config.slow_call_rate.is_some()
            && age >= millis(self.config.slow_call)
            && outcome != Some(Outcome::Ignored);
        self.count(outcome, abandoned, slow);
        let failed = matches!(outcome, Some(Outcome::Failure | Outcome::Throttled)) || abandoned;
        let retry = retry.filter(|_| failed);
        if call.probe {
            self.probe(call, outcome, failed || slow, retry, now);
        } else if call.period == Some(self.period) && matches!(self.phase, Phase::Closed) {
            self.result(outcome, failed, slow, retry, now);
        }
    }

    fn count(&mut self, outcome: Option<Outcome>, abandoned: bool, slow: bool) {
        let totals = &mut self.totals;
        totals.in_flight -= 1;
        totals.slow += u64::from(slow);
        *match outcome {
            Some(Outcome::Success) => &mut totals.succeeded,
            Some(Outcome::Failure) => &mut totals.failed,
            Some(Outcome::Throttled) => &mut totals.throttled,
            Some(_) => &mut totals.ignored,
            None if abandoned => &mut totals.abandoned,
            None => &mut totals.cancelled,
        } += 1;
    }

    fn hold(&mut self, retry: Option<u64>, now: u64) {
        let asked = retry.map(|time| now + time.min(millis(self.config.retry_after_max)));
        self.hold = self.hold.max(asked.unwrap_or(0));
    }

    // ===== closed =====

    fn result(
        &mut self,
        outcome: Option<Outcome>,
        failed: bool,
        slow: bool,
        retry: Option<u64>,
        now: u64,
    ) {
        if outcome == Some(Outcome::Success) {
            self.row = 0;
        } else if failed && outcome != Some(Outcome::Throttled) {
            self.row += 1;
        }
        if failed || slow || outcome == Some(Outcome::Success) {
            self.results.push((now, failed, slow));
        }
        self.hold(retry, now);
        if failed || slow {
            self.judge(now);
        }
    }

    fn judge(&mut self, now: u64) {
        let in_a_row =
            self.config.consecutive_failures.is_some_and(|limit| self.row >= limit.into());
        let hung = self.in_flight_slow(now);
        let (time, calls) = self.windows(now);
        let too_high = |(calls, failures, slow): Counts| {
            let minimum = u64::from(self.config.minimum_calls);
            let rate = |share: Option<f64>, part: u64, calls: u64| {
                share.is_some_and(|share| part * 10_000 >= parts(share) * calls)
                    && part > 0
                    && calls >= minimum
            };
            rate(self.config.failure_rate, failures, calls)
                || rate(self.config.slow_call_rate, slow + hung, calls + hung)
        };
        let time = self.config.window.is_some() && too_high(time);
        let calls = self.config.count_window.is_some() && too_high(calls);
        if in_a_row || time || calls {
            self.open(now);
        }
    }

    /// The window of time, and that of calls.
    pub(super) fn windows(&mut self, now: u64) -> (Counts, Counts) {
        let sum = |results: &mut dyn Iterator<Item = &(u64, bool, bool)>| {
            results.fold((0, 0, 0), |sum: Counts, (_, failed, slow)| {
                (sum.0 + 1, sum.1 + u64::from(*failed), sum.2 + u64::from(*slow))
            })
        };
        let used = self.config.failure_rate.is_some() || self.config.slow_call_rate.is_some();
        let time = self.config.window.filter(|_| used).map_or((0, 0, 0), |_| {
            let young = |(then, ..): &&(u64, bool, bool)| now / 100 - then / 100 < 10;
            sum(&mut self.results.iter().skip(self.unseen.0).filter(young))
        });
        let calls = self.config.count_window.filter(|_| used).map_or((0, 0, 0), |size| {
            let outside = self.results.len().saturating_sub(size as usize);
            self.unseen.1 = self.unseen.1.max(outside);
            sum(&mut self.results.iter().skip(self.unseen.1))
        });
        (time, calls)
    }

    /// Calls under way that began nine eighths of the threshold ago, counted in whole eighths.
    pub(super) fn in_flight_slow(&self, now: u64) -> u64 {
        if self.config.slow_call_rate.is_none() {
            return 0;
        }
        let eighth = millis(self.config.slow_call) / 8;
        let hung = self.under_way.iter().filter(|call| {
            call.period == Some(self.period)
                && call.threshold == self.threshold
                && now / eighth - call.began / eighth >= 9
        });
        hung.count() as u64
    }

    /// Once in each eighth of the threshold: nothing that ends meanwhile makes it worse, but a
    /// success may complete the minimum of calls.
    pub(super) fn look(&mut self, now: u64) {
        if self.config.slow_call_rate.is_none() || now < self.look_at {
            return;
        }
        let eighth = millis(self.config.slow_call) / 8;
        self.look_at = (now / eighth + 1) * eighth;
        if matches!(self.phase, Phase::Closed) && self.in_flight_slow(now) > 0 {
            self.judge(now);
        }
    }

    // ===== half-open =====

    fn needed(&self) -> u32 {
        let permits = self.config.half_open_permits;
        let parts = parts(self.config.half_open_success_ratio);
        (u64::from(permits) * parts).div_ceil(10_000) as u32
    }

    fn decide(&mut self, now: u64) {
        let Phase::HalfOpen { succeeded, failed, .. } = self.phase else { return };
        if succeeded >= self.needed() {
            self.streak = 0;
            self.totals.moves.2 += 1;
            self.enter(Phase::Closed);
        } else if failed > self.config.half_open_permits - self.needed() {
            self.open(now);
        }
    }

    fn expire(&mut self, now: u64) {
        while let Phase::HalfOpen { probes, failed, .. } = &mut self.phase {
            let overdue = probes.iter().filter(|(_, deadline)| *deadline <= now);
            let Some((call, at)) = overdue.min_by_key(|(call, at)| (*at, call.id)).copied() else {
                return;
            };
            probes.retain(|(other, _)| *other != call);
            *failed += 1;
            self.decide(at);
        }
    }

    fn probe(
        &mut self,
        call: &Call,
        outcome: Option<Outcome>,
        bad: bool,
        retry: Option<u64>,
        now: u64,
    ) {
        self.expire(now);
        let Phase::HalfOpen { probes, succeeded, failed } = &mut self.phase else { return };
        if !probes.iter().any(|(other, _)| other == call) {
            return;
        }
        probes.retain(|(other, _)| other != call);
        if bad {
            *failed += 1;
        } else if outcome == Some(Outcome::Success) {
            *succeeded += 1;
        }
        self.hold(retry, now);
        self.decide(now);
    }

    // ===== by hand =====

    pub(super) fn force(&mut self, state: Option<State>) {
        self.shadow = state.is_none();
        let Some(state) = state else {
            if matches!(self.phase, Phase::Forced(_)) {
                self.force(Some(State::Closed));
                self.shadow = true;
            }
            return;
        };
        if matches!(self.phase, Phase::Forced(current) if current == state) {
            return;
        }
        let open = !matches!(
            self.phase,
            Phase::Closed | Phase::Forced(State::ForcedClosed | State::Disabled)
        );
        self.streak = 0;
        if state == State::ForcedOpen {
            self.totals.moves.0 += 1;
        } else {
            self.totals.moves.2 += u64::from(open);
        }
        self.enter(if state == State::Closed { Phase::Closed } else { Phase::Forced(state) });
    }

    pub(super) fn reconfigure(&mut self, config: BreakerConfig, now: u64) {
        self.windows(now);
        let used = |config: &BreakerConfig| {
            config.failure_rate.is_some() || config.slow_call_rate.is_some()
        };
        let before = used(&self.config);
        if !before || self.config.window.is_none() {
            self.unseen.0 = self.results.len();
        }
        if !before || self.config.count_window.is_none() {
            self.unseen.1 = self.results.len();
        }
        let threshold = |config: &BreakerConfig| config.slow_call_rate.map(|_| config.slow_call);
        self.threshold += u64::from(threshold(&self.config) != threshold(&config));
        self.config = config;
        self.look_at = 0;
        self.decide(now);
    }
}

/// A share in ten thousandths, for sums without fractions.
fn parts(share: f64) -> u64 {
    (share * 10_000.0).round() as u64
}
