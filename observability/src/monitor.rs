//! What the background task knows from its samples: readings, history, alerts, the score.
//!
//! Holds state only; `tick` gathers outside of the lock and hands the results in.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use crate::alerts::{Alert, AlertEvent, Change, Engine, Level};
use crate::config::{ObservabilityConfig, Thresholds};
use crate::health::View;
use crate::history::{History, Point, Window, rate};
use crate::observability::Inner;
use crate::score::{Score, Smoother, evaluate, of_check, of_signal};
use crate::signal::Readings;
use crate::system::{CpuMeter, Sample};
use crate::traffic::Totals;
use crate::{Signal, quiet};

/// With fewer requests in the window, mean and error rate say nothing about the service.
const ENOUGH: u64 = 20;

/// State between two samples.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) window: Window,
    pub(crate) history: History,
    /// CPU in percent at the last sample.
    pub(crate) cpu: Option<f64>,
    pub(crate) readings: Readings,
    meter: CpuMeter,
    engine: Engine,
    smoother: Smoother,
}

impl Monitor {
    pub(crate) fn new(config: &ObservabilityConfig, start: Instant) -> Self {
        Self {
            window: Window::new(start, config.traffic_window),
            history: History::new(config.history_points),
            cpu: None,
            readings: Readings::default(),
            meter: CpuMeter::default(),
            engine: Engine::new(config),
            smoother: Smoother::default(),
        }
    }

    pub(crate) fn alerts(&self) -> Vec<Alert> {
        self.engine.active()
    }

    /// The score from the latest readings and these checks.
    pub(crate) fn score(&mut self, now: Instant, limits: &Thresholds, checks: &[View]) -> Score {
        let signals = Signal::ALL.map(|s| of_signal(s, self.readings.get(s), limits.of(s)));
        // The doubt before a check's first result is not an illness to recover from.
        let settled = checks.iter().all(|check| check.known);
        let checks = checks.iter().map(|c| of_check(&c.name, c.critical, c.status, &c.why));
        let mut score = evaluate(signals.into_iter().chain(checks).collect());
        if settled {
            self.smoother.smooth(now, &mut score);
        }
        score
    }

    /// What this crate measures by itself; the meter moves on.
    fn measure(&mut self, now: Instant, sample: &Sample, totals: &Totals) -> Readings {
        if let Some(percent) = self.meter.percent(now, sample) {
            self.cpu = Some(percent);
        }
        let (_, traffic) = self.window.until(now, totals);
        let enough = traffic.finished + traffic.panicked >= ENOUGH;
        let mut readings = Readings::default();
        readings.set(Signal::Cpu, self.cpu);
        readings.set(Signal::Memory, sample.memory_percent());
        readings.set(Signal::ResponseTime, traffic.mean_ms().filter(|_| enough));
        readings.set(Signal::ErrorRate, traffic.error_percent().filter(|_| enough));
        readings.set(Signal::ConcurrentUsers, Some(totals.active as f64));
        readings
    }

    fn point(&self, now: Instant, totals: &Totals, score: f64) -> Point {
        let (elapsed, traffic) = self.window.since_last(now, totals);
        Point {
            requests_per_second: rate(traffic.finished, elapsed) as f32,
            mean_ms: traffic.mean_ms().map(|v| v as f32),
            p99_ms: traffic.quantile_ms(0.99).map(|v| v as f32),
            error_rate_percent: traffic.error_percent().map(|v| v as f32),
            active: totals.active as f32,
            cpu_percent: self.readings.get(Signal::Cpu).map(|v| v as f32),
            memory_percent: self.readings.get(Signal::Memory).map(|v| v as f32),
            score: score as f32,
        }
    }
}

/// One sample: looks, remembers, alerts.
pub(crate) fn tick(inner: &Arc<Inner>, now: Instant) {
    inner.http.recorder().upkeep();
    let sample = inner.system.sample();
    let totals = inner.http.totals();
    let checks = inner.checks.views(now);
    // The application's closures run before the lock is taken.
    let given = Signal::ALL.map(|signal| (signal, inner.given(signal)));
    let events = {
        let mut monitor = inner.monitor.lock();
        let mut readings = monitor.measure(now, &sample, &totals);
        for (signal, value) in given {
            if let Some(value) = value {
                readings.set(signal, value);
            }
        }
        monitor.readings = readings;
        let score = monitor.score(now, &inner.config.thresholds, &checks).value;
        let point = monitor.point(now, &totals, score);
        monitor.history.push(point);
        monitor.window.push(now, totals);
        monitor.engine.observe(now, SystemTime::now(), &readings)
    };
    for event in events {
        log(&event);
        for sink in &inner.sinks {
            quiet::call("alert sink", "", || sink.notify(&event));
        }
    }
}

fn log(event: &AlertEvent) {
    let AlertEvent { change, alert } = event;
    let (signal, message) = (alert.signal.name(), &alert.message);
    match (change, alert.level) {
        (Change::Resolved, _) => tracing::warn!(signal, message, "alert resolved"),
        (_, Level::Critical) => tracing::error!(signal, message, "alert critical"),
        (_, Level::Warning) => tracing::warn!(signal, message, "alert warning"),
    }
}
