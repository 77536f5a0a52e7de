//! The health score: 0 to 100 for the whole, always with the reason.
//!
//! Each component gets a score of its own; the whole is
//! `min(weighted mean, worst critical component + 15)`, held inside the band of the status:
//! pass 80 to 100, warn 40 to 79 (to 59 with a failed part), fail 0 to 39. So the score can
//! never contradict the list of what is wrong. Pure: time is an argument.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::config::Threshold;
use crate::{CheckStatus, Signal};

/// A weighted mean hides one bad part among many good ones; a critical part bounds the whole to
/// its own score plus this.
const ABOVE_WORST: f64 = 15.0;
/// Below this share of its warning level a signal is perfect.
const GOOD: f64 = 0.8;
/// A score that rose is shown rising by halves of the way in this time, so that a flapping part
/// does not make a flapping score.
const HALF_LIFE: Duration = Duration::from_secs(30);

/// How the whole is doing, in the words of the health document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing is wrong.
    Pass,
    /// Something is wrong, and the service still serves.
    Warn,
    /// Something the service cannot do without is wrong.
    Fail,
}

impl Status {
    /// `pass`, `warn` or `fail`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// The score of the whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Score {
    /// 0 to 100; at least 80 is pass, at least 40 warn, below is fail.
    pub value: f64,
    /// The band the value lies in.
    pub status: Status,
    /// What keeps the score down most; absent at 100.
    pub limiting: Option<Limiting>,
    /// Every component with its own score.
    pub components: Vec<Component>,
}

/// What keeps the score down most.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Limiting {
    /// The component's name.
    pub component: String,
    /// What is wrong with it, in words.
    pub reason: String,
    /// How many of the 100 points are missing in all.
    pub points: f64,
}

/// One part of the score.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Component {
    /// The signal's or the check's name.
    pub name: String,
    /// 0 to 100; absent while nothing is known, which weighs nothing.
    pub score: Option<f64>,
    /// The component's own status.
    pub status: Status,
    /// Its share in the mean.
    pub weight: f64,
    /// Whether its failure fails the whole.
    pub critical: bool,
    /// What its status rests on, in words.
    pub reason: String,
}

/// 100 up to 80 % of the warning level, then straight lines to 75 at the warning level, 40 at the
/// critical one and 0 at twice the critical one.
fn piecewise(value: f64, threshold: Threshold) -> f64 {
    let Threshold { warning, critical } = threshold;
    let points =
        [(warning * GOOD, 100.0), (warning, 75.0), (critical, 40.0), (critical * 2.0, 0.0)];
    if value <= points[0].0 {
        return 100.0;
    }
    for pair in points.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        if value <= x1 {
            return y0 + (y1 - y0) * (value - x0) / (x1 - x0);
        }
    }
    0.0
}

/// The component of a signal. Never critical: a busy instance that is taken out makes the others
/// busier.
pub(crate) fn of_signal(signal: Signal, value: Option<f64>, threshold: Threshold) -> Component {
    let (status, reason) = match value {
        None => (Status::Pass, format!("{} is not known", signal.title())),
        Some(v) => {
            let (status, word, level) = if v >= threshold.critical {
                (Status::Fail, "at or above critical", threshold.critical)
            } else if v >= threshold.warning {
                (Status::Warn, "at or above warning", threshold.warning)
            } else {
                (Status::Pass, "below warning", threshold.warning)
            };
            let (shown, level) = (signal.show(v), signal.show(level));
            (status, format!("{} {shown} is {word} {level}", signal.title()))
        }
    };
    // Response time and errors are what a user feels; the rest says why.
    let weight = match signal {
        Signal::ResponseTime | Signal::ErrorRate => 2.0,
        _ => 1.0,
    };
    Component {
        name: signal.name().to_owned(),
        score: value.map(|v| piecewise(v, threshold)),
        status,
        weight,
        critical: false,
        reason,
    }
}

/// The component of a health check. One that has no result yet weighs nothing, but warns when it
/// is critical.
pub(crate) fn of_check(name: &str, critical: bool, check: CheckStatus, why: &str) -> Component {
    let (score, status) = match check {
        CheckStatus::Unknown if critical => (None, Status::Warn),
        CheckStatus::Unknown => (None, Status::Pass),
        CheckStatus::Pass => (Some(100.0), Status::Pass),
        CheckStatus::Warn => (Some(75.0), Status::Warn),
        CheckStatus::Fail => (Some(0.0), Status::Fail),
    };
    let reason = format!("check {name}: {why}");
    let weight = if critical { 2.0 } else { 1.0 };
    Component { name: name.to_owned(), score, status, weight, critical, reason }
}

/// The score of these components.
pub(crate) fn evaluate(components: Vec<Component>) -> Score {
    let mut status = Status::Pass;
    let mut ceiling = 100.0_f64;
    for part in &components {
        let (at_worst, cap) = match (part.status, part.critical) {
            (Status::Pass, _) => continue,
            (Status::Fail, true) => (Status::Fail, 39.0),
            (Status::Fail, false) => (Status::Warn, 59.0),
            (Status::Warn, _) => (Status::Warn, 79.0),
        };
        status = status.max(at_worst);
        ceiling = ceiling.min(cap);
    }
    let known = || components.iter().filter_map(|part| Some((part, part.score?)));
    let weight: f64 = known().map(|(part, _)| part.weight).sum();
    let sum: f64 = known().map(|(part, score)| part.weight * score).sum();
    let mean = if weight > 0.0 { sum / weight } else { 100.0 };
    let worst = known()
        .filter(|(part, _)| part.critical)
        .map(|(_, score)| score + ABOVE_WORST)
        .fold(100.0, f64::min);
    let value = mean.min(worst).min(ceiling).clamp(floor(status), 100.0);
    let limiting = (value < 100.0).then(|| limiting(&components, value)).flatten();
    Score { value, status, limiting, components }
}

const fn floor(status: Status) -> f64 {
    match status {
        Status::Pass => 80.0,
        Status::Warn => 40.0,
        Status::Fail => 0.0,
    }
}

/// The worst part: failed before warned, critical before others, then the most points lost.
fn limiting(components: &[Component], value: f64) -> Option<Limiting> {
    let lost = |part: &Component| part.weight * (100.0 - part.score.unwrap_or(100.0));
    let worst = components
        .iter()
        .filter(|part| part.status > Status::Pass || lost(part) > 0.0)
        .max_by(|a, b| {
            let rank = |part: &Component| (part.status, part.critical);
            rank(a).cmp(&rank(b)).then_with(|| lost(a).total_cmp(&lost(b)))
        })?;
    Some(Limiting {
        component: worst.name.clone(),
        reason: worst.reason.clone(),
        points: 100.0 - value,
    })
}

/// Falls at once and rises by halves of the way.
#[derive(Debug, Default)]
pub(crate) struct Smoother {
    last: Option<(Instant, f64)>,
}

impl Smoother {
    /// Replaces the score's value by the smoothed one, still inside the band of its status.
    pub(crate) fn smooth(&mut self, now: Instant, score: &mut Score) {
        if let Some((at, before)) = self.last
            && score.value > before
        {
            let elapsed = now.saturating_duration_since(at).as_secs_f64();
            let left = 0.5_f64.powf(elapsed / HALF_LIFE.as_secs_f64());
            let eased = score.value - (score.value - before) * left;
            // A way that never ends would show 99.99 for ever.
            let eased = if score.value - eased < 0.05 { score.value } else { eased };
            score.value = eased.clamp(floor(score.status), score.value);
        }
        self.last = Some((now, score.value));
        if score.value < 100.0 && score.limiting.is_none() {
            score.limiting = Some(Limiting {
                component: "recovery".to_owned(),
                reason: "everything is well again; the score rises to 100 within minutes"
                    .to_owned(),
                points: 0.0,
            });
        }
        if let Some(limiting) = &mut score.limiting {
            limiting.points = 100.0 - score.value;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(score: Option<f64>, status: Status, weight: f64, critical: bool) -> Component {
        Component {
            name: format!("{status:?}-{critical}"),
            score,
            status,
            weight,
            critical,
            reason: "because".to_owned(),
        }
    }

    fn band(value: f64) -> Status {
        match value {
            v if v >= 80.0 => Status::Pass,
            v if v >= 40.0 => Status::Warn,
            _ => Status::Fail,
        }
    }

    #[test]
    fn the_curve_goes_through_its_four_points() {
        let threshold = Threshold::new(70.0, 90.0);
        for (value, score) in [
            (0.0, 100.0),
            (56.0, 100.0),
            (63.0, 87.5),
            (70.0, 75.0),
            (80.0, 57.5),
            (90.0, 40.0),
            (135.0, 20.0),
            (180.0, 0.0),
            (1e9, 0.0),
        ] {
            assert!((piecewise(value, threshold) - score).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn a_quiet_healthy_service_has_all_points_and_no_limit() {
        let signals = Signal::ALL.map(|s| of_signal(s, Some(0.0), Threshold::new(1.0, 2.0)));
        let mut parts = signals.to_vec();
        parts.push(of_check("database", true, CheckStatus::Pass, "fine"));
        let score = evaluate(parts);
        assert_eq!((score.value, score.status, score.limiting), (100.0, Status::Pass, None));
    }

    #[test]
    fn nothing_known_is_not_held_against_the_service() {
        let score = evaluate(vec![of_signal(Signal::QueueSize, None, Threshold::new(1.0, 2.0))]);
        assert_eq!((score.value, score.status), (100.0, Status::Pass));
        assert_eq!(evaluate(Vec::new()).value, 100.0);
    }

    #[test]
    fn one_failed_critical_check_fails_the_whole_and_is_named() {
        let mut parts: Vec<_> =
            (0..20).map(|_| part(Some(100.0), Status::Pass, 1.0, false)).collect();
        parts.push(of_check("database", true, CheckStatus::Fail, "connection refused"));
        let score = evaluate(parts);
        assert_eq!((score.value, score.status), (15.0, Status::Fail));
        let limiting = score.limiting.unwrap();
        assert_eq!(limiting.component, "database");
        assert_eq!(limiting.reason, "check database: connection refused");
        assert_eq!(limiting.points, 85.0);
    }

    #[test]
    fn a_saturated_signal_warns_but_does_not_fail_the_whole() {
        let all = Signal::ALL.map(|s| of_signal(s, Some(1e9), Threshold::new(1.0, 2.0)));
        let score = evaluate(all.to_vec());
        assert_eq!((score.value, score.status), (40.0, Status::Warn));
    }

    #[test]
    fn it_falls_at_once_and_recovers_by_halves() {
        let mut smoother = Smoother::default();
        let start = Instant::now();
        let mut at = |seconds, value: f64| {
            let part = part(Some(value), Status::Pass, 1.0, false);
            let mut score = evaluate(vec![part]);
            smoother.smooth(start + Duration::from_secs(seconds), &mut score);
            score.value
        };
        assert_eq!(at(0, 100.0), 100.0);
        assert_eq!(at(5, 80.0), 80.0);
        assert!((at(35, 100.0) - 90.0).abs() < 1e-9);
        assert!((at(65, 100.0) - 95.0).abs() < 1e-9);
        assert_eq!(at(900, 100.0), 100.0);
    }

    #[test]
    fn recovery_never_shows_a_band_that_is_over() {
        let mut smoother = Smoother::default();
        let now = Instant::now();
        let mut failed = evaluate(vec![of_check("db", true, CheckStatus::Fail, "down")]);
        smoother.smooth(now, &mut failed);
        let mut well = evaluate(vec![of_check("db", true, CheckStatus::Pass, "fine")]);
        smoother.smooth(now + Duration::from_secs(1), &mut well);
        assert_eq!((well.value, well.status), (80.0, Status::Pass));
        assert_eq!(well.limiting.unwrap().component, "recovery");
    }

    /// A known part this bad, from 0 to 3; as the two constructors make them, the score lies in
    /// the stretch of its status.
    fn this_bad(badness: f64, weight: f64, critical: bool) -> Component {
        let (status, score) = match badness {
            b if b < 1.0 => (Status::Pass, 100.0 - 25.0 * b),
            b if b < 2.0 => (Status::Warn, 75.0 - 35.0 * (b - 1.0)),
            b => (Status::Fail, 40.0 - 40.0 * (b - 2.0)),
        };
        part(Some(score), status, weight, critical)
    }

    fn any_part() -> impl Strategy<Value = Component> {
        (0.0..3.0_f64, any::<bool>(), 0.1..5.0_f64, any::<bool>()).prop_map(
            |(badness, critical, weight, known)| {
                let made = this_bad(badness, weight, critical);
                // Only what passes or is in doubt can be without a score.
                let score = made.score.filter(|_| known || made.status == Status::Fail);
                Component { score, ..made }
            },
        )
    }

    proptest! {
        #[test]
        fn score_and_status_never_contradict(
            rounds in proptest::collection::vec(
                (proptest::collection::vec(any_part(), 0..8), 0..120_u64), 1..10),
        ) {
            let mut smoother = Smoother::default();
            let mut now = Instant::now();
            let mut last = None;
            for (parts, seconds) in rounds {
                now += Duration::from_secs(seconds);
                let mut score = evaluate(parts);
                prop_assert_eq!(band(score.value), score.status);
                let raw = score.value;
                smoother.smooth(now, &mut score);
                prop_assert_eq!(band(score.value), score.status);
                prop_assert!(score.value <= raw);
                if last.is_some_and(|last| raw <= last) {
                    prop_assert_eq!(score.value, raw, "falls at once");
                }
                prop_assert_eq!(score.limiting.is_some(), score.value < 100.0);
                last = Some(score.value);
            }
        }

        #[test]
        fn a_part_that_gets_worse_never_raises_the_score(
            mut parts in proptest::collection::vec(any_part(), 0..8),
            (a, b) in (0.0..3.0_f64, 0.0..3.0_f64), weight in 0.1..5.0_f64, critical in any::<bool>(),
        ) {
            parts.push(this_bad(a.min(b), weight, critical));
            let before = evaluate(parts.clone()).value;
            parts.pop();
            parts.push(this_bad(a.max(b), weight, critical));
            prop_assert!(evaluate(parts).value <= before);
        }

        #[test]
        fn the_curve_never_rises(
            warning in 1.0..1_000.0_f64, gap in 1.1..5.0_f64,
            a in 0.0..10_000.0_f64, b in 0.0..10_000.0_f64,
        ) {
            let threshold = Threshold::new(warning, warning * gap);
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(piecewise(high, threshold) <= piecewise(low, threshold));
            prop_assert!((0.0..=100.0).contains(&piecewise(a, threshold)));
        }
    }
}
