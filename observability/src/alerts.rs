//! Thresholds become alerts: levels with hysteresis, hold times, a cooldown, one all-clear.
//!
//! Pure: time is an argument, the result says what to tell whom.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use tokio::time::Instant;

use crate::config::{ObservabilityConfig, Threshold};
use crate::signal::Readings;
use crate::{Signal, clock};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// At or above the warning threshold.
    Warning,
    /// At or above the critical threshold.
    Critical,
}

impl Level {
    /// `warning` or `critical`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// An alert as it stands now.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Alert {
    /// What it is about.
    #[serde(serialize_with = "signal_name")]
    pub signal: Signal,
    /// How bad it is.
    pub level: Level,
    /// The latest value.
    pub value: f64,
    /// The threshold of that level.
    pub threshold: f64,
    /// When the alert was raised.
    #[serde(serialize_with = "stamp")]
    pub since: SystemTime,
    /// All of this in one sentence.
    pub message: String,
}

/// What happened to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Raised, or from warning to critical.
    Raised,
    /// Still there after a cooldown.
    Persists,
    /// Over; told once, and only if the alert was told.
    Resolved,
}

/// What a [`Sink`] is told.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AlertEvent {
    /// What happened.
    pub change: Change,
    /// The alert; when resolved, as it last stood.
    pub alert: Alert,
}

/// Where alert events go besides the log: a closure will do.
///
/// Called on the background task, outside of all locks; hand slow work on. A panic is logged and
/// stops nothing.
pub trait Sink: Send + Sync {
    /// Takes one event.
    fn notify(&self, event: &AlertEvent);
}

impl<F: Fn(&AlertEvent) + Send + Sync> Sink for F {
    fn notify(&self, event: &AlertEvent) {
        self(event);
    }
}

/// The alerts of all signals.
#[derive(Debug)]
pub(crate) struct Engine {
    rules: [Rule; 6],
    timing: Timing,
}

#[derive(Debug)]
struct Rule {
    signal: Signal,
    threshold: Threshold,
    warning: Trigger,
    critical: Trigger,
    active: Option<Alert>,
    /// Last event that was told, and its level.
    told: Option<(Instant, Level)>,
    /// Whether the active alert was told, so that its end is told too.
    open: bool,
}

/// A switch that needs a value to stay on the other side for a while, and goes off lower than it
/// goes on.
#[derive(Debug, Default)]
struct Trigger {
    on: bool,
    /// Since when the value asks for the other state.
    since: Option<Instant>,
}

impl Trigger {
    fn step(&mut self, now: Instant, value: Option<f64>, threshold: f64, timing: &Timing) {
        let level = if self.on { threshold * timing.clear_ratio } else { threshold };
        if value.is_some_and(|value| value >= level) == self.on {
            self.since = None;
        } else if now.saturating_duration_since(*self.since.get_or_insert(now)) >= timing.hold {
            self.on = !self.on;
            self.since = None;
        }
    }
}

#[derive(Debug)]
struct Timing {
    hold: Duration,
    cooldown: Duration,
    clear_ratio: f64,
}

impl Engine {
    pub(crate) fn new(config: &ObservabilityConfig) -> Self {
        Self {
            rules: Signal::ALL.map(|signal| Rule {
                signal,
                threshold: config.thresholds.of(signal),
                warning: Trigger::default(),
                critical: Trigger::default(),
                active: None,
                told: None,
                open: false,
            }),
            timing: Timing {
                hold: config.alert_for,
                cooldown: config.alert_cooldown,
                clear_ratio: config.alert_clear_ratio,
            },
        }
    }

    /// Takes one sample. A signal without a value counts as below its thresholds: no traffic has
    /// no slow answers.
    pub(crate) fn observe(
        &mut self,
        now: Instant,
        wall: SystemTime,
        readings: &Readings,
    ) -> Vec<AlertEvent> {
        let mut events = Vec::new();
        for rule in &mut self.rules {
            let over = rule.step(now, wall, readings.get(rule.signal), &self.timing);
            events.extend(rule.tell(now, over, self.timing.cooldown));
        }
        events
    }

    /// What is active, worst first.
    pub(crate) fn active(&self) -> Vec<Alert> {
        let mut all: Vec<Alert> = self.rules.iter().filter_map(|r| r.active.clone()).collect();
        all.sort_by_key(|alert| std::cmp::Reverse(alert.level));
        all
    }
}

impl Rule {
    /// Moves to the level that has been held long enough; gives back an alert that ended.
    fn step(
        &mut self,
        now: Instant,
        wall: SystemTime,
        value: Option<f64>,
        timing: &Timing,
    ) -> Option<Alert> {
        let Threshold { warning, critical } = self.threshold;
        self.warning.step(now, value, warning, timing);
        self.critical.step(now, value, critical, timing);
        let (level, threshold) = match (self.critical.on, self.warning.on) {
            (true, _) => (Level::Critical, critical),
            (false, true) => (Level::Warning, warning),
            (false, false) => return self.active.take(),
        };
        let before = self.active.as_ref();
        let value = value.or(before.map(|alert| alert.value)).unwrap_or(threshold);
        let since = before.map_or(wall, |alert| alert.since);
        let message = message(self.signal, level, value, threshold);
        self.active = Some(Alert { signal: self.signal, level, value, threshold, since, message });
        None
    }

    /// What to say after a step: at most one event.
    fn tell(
        &mut self,
        now: Instant,
        over: Option<Alert>,
        cooldown: Duration,
    ) -> Option<AlertEvent> {
        if let Some(alert) = over {
            let told = std::mem::replace(&mut self.open, false);
            return told.then_some(AlertEvent { change: Change::Resolved, alert });
        }
        // A value that is on its way out is not worth a reminder.
        let alert = self.active.clone().filter(|_| self.warning.since.is_none())?;
        let escalated = self.told.is_some_and(|(_, level)| alert.level > level);
        let cool = self.told.is_none_or(|(at, _)| now.saturating_duration_since(at) >= cooldown);
        if !cool && !escalated {
            return None;
        }
        let change = if self.open && !escalated { Change::Persists } else { Change::Raised };
        self.told = Some((now, alert.level));
        self.open = true;
        Some(AlertEvent { change, alert })
    }
}

fn message(signal: Signal, level: Level, value: f64, threshold: f64) -> String {
    let (title, level) = (signal.title(), level.name());
    format!("{title} {} (threshold {level} {})", signal.show(value), signal.show(threshold))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn signal_name<S: Serializer>(signal: &Signal, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(signal.name())
}

fn stamp<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&clock::rfc3339(*time))
}

#[cfg(test)]
mod tests;
