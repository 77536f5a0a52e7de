//! How an adaptive limit moves: a pure machine that is told what each window held. Time and chance
//! are arguments.
//!
//! What it takes from where, and what it does otherwise:
//! - `limit × gradient + √limit`, the tolerance and the probe's jitter are Envoy's; Envoy probes at
//!   three calls at once, which its users see as an outage. Here a probe halves the limit, once: at the
//!   point where the limit settles, half of it leaves no queue.
//! - No growth while less than half of the limit is used is Netflix's guard. Their Gradient2 takes a
//!   long average for the latency without a queue, so that under lasting overload it comes to take
//!   the queue for normal and climbs without end. Here that latency rises only by a probe.
//! - That latency which does not fall with the limit is not the limit's doing is failsafe-go's idea
//!   (its correlation window), here without the window: see [`Decline`].

#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::Instant;

use super::AdaptiveConfig;

/// The limit at most halves per window, as in Netflix and Envoy: one odd window is no reason to
/// refuse everybody.
const STEEPEST: f64 = 0.5;

/// What a probe leaves of the limit, after the allowance of its square root is taken off.
const PROBE_SHARE: f64 = 0.5;

/// The callers are what limits, not the limit, if no more than this share of it was in use.
const UNUSED_SHARE: f64 = 0.5;

/// Windows before the first probe, and between probes as long as each finds a lower latency than
/// the one before: the first measurement may have been taken in the middle of an overload.
const SOON: f64 = 5.0;

/// A delay of at most this share of the latency without a queue confirms that: no probe is needed.
const CONFIRMED: f64 = 0.1;

/// What a limit that has halved leaves of a delay which it caused: of a queue, less than half.
const EXPLAINED: f64 = 0.75;

/// A delay that has become longer by this is still on its way up.
const RISING: f64 = 1.1;

/// The longest window, whatever the latency.
const LONGEST_WINDOW: Duration = Duration::from_secs(10);

/// A probe lasts at most this many times as long as it should take.
const PATIENCE: f64 = 2.0;

/// No probe lasts longer, whatever the latency.
const LONGEST_PROBE: Duration = Duration::from_secs(10 * 60);

/// Calls given up per call that ended well, from which on the latter are believed no more.
const OUTNUMBERED: u64 = 10;

/// A call is late when it takes longer than this many times what nine of ten take without a queue.
const LATE: f64 = 2.0;

/// A failure that came sooner than this share of the usual latency without a queue met no queue.
const INSTANT: f64 = 0.5;

/// Two percentiles of the latency, in seconds. A queue delays every call by the same time and moves
/// both; another mixture of fast and slow calls rarely does, so the calmer one is believed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Latency {
    pub(super) median: f64,
    pub(super) ninetieth: f64,
}

/// What happened within a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// Of the calls that ended well; `None` if there were none.
    pub(super) latency: Option<Latency>,
    /// Calls that ended well.
    pub(super) succeeded: u64,
    /// Calls that say that there are too many: failures.
    pub(super) dropped: u64,
    /// Calls given up late, which say the same unless others show that there is no queue.
    pub(super) abandoned: u64,
    /// The most that were under way at once.
    pub(super) peak: u64,
}

/// What holds until the next window ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Plan {
    /// Calls at once.
    pub(super) limit: u32,
    /// The window's shortest length.
    pub(super) window: Duration,
    /// Calls that began earlier say nothing: they were delayed by a limit that is no more.
    pub(super) counts_from: Option<Instant>,
    /// From then on an empty window is to be stepped through, which ends the probe: too few of its
    /// calls tell anything. `None` without a probe.
    pub(super) probe_until: Option<Instant>,
}

impl Window {
    /// A window that tells nothing.
    pub(super) fn empty(peak: u64) -> Self {
        Self { latency: None, succeeded: 0, dropped: 0, abandoned: 0, peak }
    }
}

#[derive(Debug)]
pub(super) struct Gradient {
    config: AdaptiveConfig,
    limit: f64,
    /// The latency without a queue.
    floor: Option<Latency>,
    phase: Phase,
    decline: Option<Decline>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// The next probe is due then; `None` before the first window. A doubtful floor is not
    /// confirmed by a latency that is close to it: it may have a queue in it.
    Steady { probe_at: Option<Instant>, doubtful: bool },
    /// The limit is halved, and the window measures the latency without a queue.
    Probing,
}

/// Where the limit began to fall for a delay. Once it has halved, the delay must have fallen with it:
/// if not, the calls take longer for a reason of their own, and that is the new normal. So a backend
/// that becomes slower does not hold the limit down until the next probe.
#[derive(Debug, Clone, Copy)]
struct Decline {
    limit: f64,
    delay: f64,
}

impl Latency {
    fn level(self) -> f64 {
        f64::midpoint(self.median, self.ninetieth)
    }

    /// How much longer each call takes than without a queue.
    fn delay_over(self, floor: Self) -> f64 {
        let longer = (self.median - floor.median).min(self.ninetieth - floor.ninetieth);
        longer.max(0.0)
    }

    /// A share of the way down to `other`, each percentile by itself.
    fn sink_to(self, other: Self, share: f64) -> Self {
        let sink = |from: f64, to: f64| from + (to - from).min(0.0) * share;
        Self {
            median: sink(self.median, other.median),
            ninetieth: sink(self.ninetieth, other.ninetieth),
        }
    }
}

impl Gradient {
    pub(super) fn new(config: AdaptiveConfig) -> Self {
        let limit = f64::from(config.initial);
        let phase = Phase::Steady { probe_at: None, doubtful: true };
        Self { config, limit, floor: None, phase, decline: None }
    }

    /// The latency without a queue, as far as known, in seconds.
    pub(super) fn floor(&self) -> Option<f64> {
        self.floor.map(|floor| floor.median)
    }

    /// A call given up sooner than this was no longer under way than others, in seconds; 0 if the
    /// latency without a queue is not known.
    pub(super) fn late(&self) -> f64 {
        self.floor.map_or(0.0, |floor| floor.ninetieth * LATE)
    }

    /// A failure that came sooner than this met no queue, in seconds; 0 as above.
    pub(super) fn instant(&self) -> f64 {
        self.floor.map_or(0.0, |floor| floor.median * INSTANT)
    }

    /// Continues from this limit, within the configured bounds.
    pub(super) fn set(&mut self, limit: u32) -> u32 {
        self.limit = self.bounded(f64::from(limit));
        self.decline = None;
        self.whole(self.limit)
    }

    /// Takes in a window that has ended. `chance` is between 0.0 and 1.0.
    pub(super) fn step(&mut self, now: Instant, window: &Window, chance: f64) -> Plan {
        let length = self.length(window);
        let probed = self.phase == Phase::Probing;
        let limited_by_callers = window.peak as f64 <= self.limit * UNUSED_SHARE;
        if probed {
            self.end_probe(now, window, length, chance);
        } else {
            self.steady(now, window, length, chance, limited_by_callers);
        }
        self.shrink_for_drops(window, limited_by_callers && !probed);
        let (limit, counts_from, probe_until) = match self.phase {
            Phase::Steady { .. } => (self.limit, probed.then_some(now), None),
            Phase::Probing => {
                (self.probing(), Some(now), Some(now + self.patience(window, length)))
            }
        };
        Plan { limit: self.whole(limit), window: length, counts_from, probe_until }
    }

    /// How long a probe that begins now may last. While it does, callers are refused; so it ends in
    /// time even if hardly any of its calls says how long the backend takes.
    fn patience(&self, window: &Window, length: Duration) -> Duration {
        let latency = window.latency.map_or(0.0, |latency| latency.ninetieth);
        let all = f64::from(self.config.min_samples) * latency / self.probing();
        let expected = length.as_secs_f64() + all;
        let patience = Duration::try_from_secs_f64(PATIENCE * expected).unwrap_or(LONGEST_PROBE);
        patience.min(LONGEST_PROBE)
    }

    /// Twice the latency, so that most of a window's calls began under the limit of the last one.
    fn length(&self, window: &Window) -> Duration {
        let latency = window.latency.map_or(0.0, |latency| latency.ninetieth);
        let twice = Duration::try_from_secs_f64(2.0 * latency).unwrap_or(LONGEST_WINDOW);
        self.config.window.max(twice.min(LONGEST_WINDOW))
    }

    fn steady(
        &mut self,
        now: Instant,
        window: &Window,
        length: Duration,
        chance: f64,
        limited_by_callers: bool,
    ) {
        let Some(latency) = window.latency else { return };
        let Some(floor) = self.floor else {
            self.floor = Some(latency);
            self.probe_soon(now, length);
            return;
        };
        // Not at once down to the luckiest window there ever was.
        self.floor = Some(floor.sink_to(latency, 0.25));
        if latency.level() < floor.level() * (1.0 - CONFIRMED) {
            // The floor is out of date, and this may be a latency with a queue in it.
            self.probe_soon(now, length);
        }
        let confirmed = latency.delay_over(floor) <= floor.level() * CONFIRMED;
        if confirmed && !self.is_doubtful() {
            self.probe_later(now, chance);
        } else if self.probe_is_due(now) {
            if limited_by_callers {
                // Half of the limit is not used: that measures what a probe would.
                self.take_floor(now, latency, length, chance);
            } else {
                self.phase = Phase::Probing;
            }
            return;
        }
        if limited_by_callers {
            self.decline = None;
            return;
        }
        self.follow(now, latency, length);
    }

    /// Moves the limit by the latency of a window that used it.
    fn follow(&mut self, now: Instant, latency: Latency, length: Duration) {
        let Some(floor) = self.floor else { return };
        let delay = latency.delay_over(floor);
        let gradient = self.config.tolerance * floor.level() / (floor.level() + delay);
        let here = Decline { limit: self.limit, delay };
        self.move_to(self.limit * gradient.clamp(STEEPEST, 1.0) + self.limit.sqrt());
        if gradient >= 1.0 {
            self.decline = None;
            return;
        }
        let from = *self.decline.get_or_insert(here);
        if delay > from.delay * RISING {
            self.decline = Some(here);
        } else if self.limit <= from.limit * STEEPEST {
            self.decline = None;
            if delay > from.delay * EXPLAINED {
                self.floor = Some(latency);
                // It may have been wrong.
                self.probe_soon(now, length);
            }
        }
    }

    /// Because the floor is doubtful; unless a probe is due even sooner.
    fn probe_soon(&mut self, now: Instant, length: Duration) {
        let soon = now + length.mul_f64(SOON);
        let at = match self.phase {
            Phase::Steady { probe_at: Some(at), .. } => at.min(soon),
            Phase::Steady { probe_at: None, .. } | Phase::Probing => soon,
        };
        self.phase = Phase::Steady { probe_at: Some(at), doubtful: true };
    }

    fn probe_later(&mut self, now: Instant, chance: f64) {
        let wait = self.config.probe_interval.mul_f64(1.0 + self.config.jitter * chance);
        self.phase = Phase::Steady { probe_at: Some(now + wait), doubtful: false };
    }

    fn probe_is_due(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Steady { probe_at: Some(at), .. } if now >= at)
    }

    fn is_doubtful(&self) -> bool {
        matches!(self.phase, Phase::Steady { doubtful: true, .. })
    }

    fn end_probe(&mut self, now: Instant, window: &Window, length: Duration, chance: f64) {
        self.decline = None;
        match window.latency {
            Some(latency) => self.take_floor(now, latency, length, chance),
            None => self.probe_later(now, chance),
        }
    }

    /// The floor as just measured, be it higher or lower.
    fn take_floor(&mut self, now: Instant, latency: Latency, length: Duration, chance: f64) {
        let fell =
            self.floor.is_some_and(|floor| latency.level() < floor.level() * (1.0 - CONFIRMED));
        self.floor = Some(latency);
        if fell {
            self.probe_soon(now, length);
        } else {
            self.probe_later(now, chance);
        }
    }

    /// Without the allowance first, or else half of a small limit would still queue. Not below half
    /// of the least limit: a window at one call at once could take long.
    fn probing(&self) -> f64 {
        let share = (self.limit - self.limit.sqrt()) * PROBE_SHARE;
        share.max(f64::from(self.config.min) * PROBE_SHARE).max(1.0)
    }

    /// By their share, so that a few failures among many successes are outweighed by √limit.
    fn shrink_for_drops(&mut self, window: &Window, limited_by_callers: bool) {
        let abandoned = if self.shows_no_queue(window) { 0 } else { window.abandoned };
        let dropped = window.dropped + abandoned;
        if dropped == 0 {
            return;
        }
        let share = dropped as f64 / (dropped + window.succeeded) as f64;
        let mut target = self.limit * (1.0 - share).max(STEEPEST);
        if limited_by_callers {
            // What nobody uses did not cause the failures: the unused half may go, not more.
            target = target.max(window.peak as f64 / UNUSED_SHARE).min(self.limit);
        }
        self.move_to(target);
    }

    /// Whether those that ended well took no longer than usual. Then those that were given up waited
    /// for something else than a place: a slow route whose callers lose patience must not take the
    /// limit from all others. If hardly any call ends well, these few are no sign of health.
    fn shows_no_queue(&self, window: &Window) -> bool {
        let Some((latency, floor)) = window.latency.zip(self.floor) else { return false };
        let tolerated = floor.level() * (self.config.tolerance - 1.0);
        latency.delay_over(floor) <= tolerated
            && window.succeeded.saturating_mul(OUTNUMBERED) >= window.abandoned
    }

    fn move_to(&mut self, target: f64) {
        let way = (target - self.limit) * self.config.smoothing;
        self.limit = self.bounded(self.limit + way);
    }

    fn bounded(&self, limit: f64) -> f64 {
        limit.clamp(f64::from(self.config.min), f64::from(self.config.max))
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded by the configuration"
    )]
    fn whole(&self, limit: f64) -> u32 {
        limit.round() as u32
    }
}
