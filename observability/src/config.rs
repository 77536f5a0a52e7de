//! What can be set as plain data; closures and credentials go on the builder.

use std::time::Duration;

use crate::{ConfigError, Signal};

/// How often to look, how much to keep, and when to warn.
///
/// ```
/// use std::time::Duration;
/// use escala_observability::{ObservabilityConfig, Threshold};
///
/// let mut config = ObservabilityConfig::default().metrics_interval(Duration::from_secs(1));
/// config.thresholds.queue_size = Threshold::new(100.0, 500.0);
/// assert!(config.validate().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ObservabilityConfig {
    /// Time between two samples of the background task, 100 ms to 1 h.
    ///
    /// Default 5 s, as documented: twelve samples a minute, at about 50 µs of work each.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub metrics_interval: Duration,
    /// Least time between two notices about one signal. An escalation from warning to critical
    /// and the all-clear are not held back.
    ///
    /// Default 5 min, as documented.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub alert_cooldown: Duration,
    /// How long a signal must stay on the other side of a threshold before its alert changes.
    ///
    /// Default 10 s: three samples in a row, so one odd sample wakes nobody.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub alert_for: Duration,
    /// An alert clears below this share of the threshold that raised it, above 0 and up to 1.
    ///
    /// Default 0.9: a value that sways by a few percent around its threshold raises one alert.
    pub alert_clear_ratio: f64,
    /// When to warn, for each of the six signals.
    pub thresholds: Thresholds,
    /// The stretch over which rate, mean, percentiles and error rate are taken. It counts as at
    /// least one and at most 600 intervals.
    ///
    /// Default 1 min: long enough for a p99 of a quiet service, short enough to see trouble.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub traffic_window: Duration,
    /// Samples kept for the charts, 2 to 3,600.
    ///
    /// Default 60: the last five minutes at the default interval, in under 5 KB.
    pub history_points: usize,
    /// Route templates with series of their own, 1 to 10,000; further ones share the route
    /// `_overflow`. Paths without a route are `_unmatched` and take none of these.
    ///
    /// Default 200: twice what a large service has, and about 4 MB of series at worst.
    pub max_routes: usize,
    /// Series that one source may emit, 1 to 100,000; further ones are left out and counted in
    /// `metrics_dropped_total{reason="series_limit"}`.
    ///
    /// Default 1,000.
    pub max_source_series: usize,
    /// Whether `GET /metrics` is among the endpoints.
    ///
    /// Default true; false where another exporter already speaks for the process.
    pub metrics_endpoint: bool,
}

impl Default for ObservabilityConfig {
    fn default() -> Self {
        Self {
            metrics_interval: Duration::from_secs(5),
            alert_cooldown: Duration::from_secs(300),
            alert_for: Duration::from_secs(10),
            alert_clear_ratio: 0.9,
            thresholds: Thresholds::default(),
            traffic_window: Duration::from_secs(60),
            history_points: 60,
            max_routes: 200,
            max_source_series: 1_000,
            metrics_endpoint: true,
        }
    }
}

impl ObservabilityConfig {
    /// Sets [`metrics_interval`](Self::metrics_interval).
    #[must_use]
    pub const fn metrics_interval(mut self, interval: Duration) -> Self {
        self.metrics_interval = interval;
        self
    }

    /// Sets [`alert_cooldown`](Self::alert_cooldown).
    #[must_use]
    pub const fn alert_cooldown(mut self, cooldown: Duration) -> Self {
        self.alert_cooldown = cooldown;
        self
    }

    /// Sets [`alert_for`](Self::alert_for).
    #[must_use]
    pub const fn alert_for(mut self, hold: Duration) -> Self {
        self.alert_for = hold;
        self
    }

    /// Sets [`thresholds`](Self::thresholds).
    #[must_use]
    pub const fn thresholds(mut self, thresholds: Thresholds) -> Self {
        self.thresholds = thresholds;
        self
    }

    /// Sets [`metrics_endpoint`](Self::metrics_endpoint).
    #[must_use]
    pub const fn metrics_endpoint(mut self, served: bool) -> Self {
        self.metrics_endpoint = served;
        self
    }

    /// Sets [`max_routes`](Self::max_routes).
    #[must_use]
    pub const fn max_routes(mut self, routes: usize) -> Self {
        self.max_routes = routes;
        self
    }

    /// Checks every rule; [`ObservabilityBuilder::build`](crate::ObservabilityBuilder::build)
    /// calls it.
    ///
    /// # Errors
    /// The first broken rule, with the field and its value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let interval = self.metrics_interval;
        if !(Duration::from_millis(100)..=Duration::from_secs(3_600)).contains(&interval) {
            let rule = "must be from 100ms to 1h";
            return Err(ConfigError::new("metrics_interval", format!("{interval:?}"), rule));
        }
        for (field, value) in [
            ("alert_cooldown", self.alert_cooldown),
            ("alert_for", self.alert_for),
            ("traffic_window", self.traffic_window),
        ] {
            // Far beyond any use, and far below where adding it to a clock could overflow.
            if value > Duration::from_secs(30 * 86_400) {
                return Err(ConfigError::new(field, format!("{value:?}"), "must be at most 30d"));
            }
        }
        if !(self.alert_clear_ratio > 0.0 && self.alert_clear_ratio <= 1.0) {
            let rule = "must be above 0 and at most 1";
            return Err(ConfigError::new(
                "alert_clear_ratio",
                self.alert_clear_ratio.to_string(),
                rule,
            ));
        }
        for (field, value, range, rule) in [
            ("history_points", self.history_points, 2..=3_600, "must be from 2 to 3600"),
            ("max_routes", self.max_routes, 1..=10_000, "must be from 1 to 10000"),
            ("max_source_series", self.max_source_series, 1..=100_000, "must be from 1 to 100000"),
        ] {
            if !range.contains(&value) {
                return Err(ConfigError::new(field, value.to_string(), rule));
            }
        }
        self.thresholds.validate()
    }
}

/// The two levels of one signal, in the signal's own unit.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[derive(serde::Serialize)]
pub struct Threshold {
    /// At or above this value the signal warns.
    pub warning: f64,
    /// At or above this value the signal is critical.
    pub critical: f64,
}

impl Threshold {
    /// Both levels.
    #[must_use]
    pub const fn new(warning: f64, critical: f64) -> Self {
        Self { warning, critical }
    }
}

/// The thresholds of the six signals.
///
/// The defaults are the documented ones.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Thresholds {
    /// CPU in percent of what this process may use: 70 and 90.
    pub cpu: Threshold,
    /// Memory in percent of the limit: 80 and 95.
    pub memory: Threshold,
    /// Mean response time in milliseconds: 1,000 and 3,000.
    pub response_time: Threshold,
    /// Requests that failed, in percent: 1 and 5.
    pub error_rate: Threshold,
    /// Users served at once: 800 and 950.
    pub concurrent_users: Threshold,
    /// Jobs waiting: 1,000 and 5,000.
    pub queue_size: Threshold,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            cpu: Threshold::new(70.0, 90.0),
            memory: Threshold::new(80.0, 95.0),
            response_time: Threshold::new(1_000.0, 3_000.0),
            error_rate: Threshold::new(1.0, 5.0),
            concurrent_users: Threshold::new(800.0, 950.0),
            queue_size: Threshold::new(1_000.0, 5_000.0),
        }
    }
}

impl Thresholds {
    /// The threshold of one signal.
    #[must_use]
    pub const fn of(&self, signal: Signal) -> Threshold {
        match signal {
            Signal::Cpu => self.cpu,
            Signal::Memory => self.memory,
            Signal::ResponseTime => self.response_time,
            Signal::ErrorRate => self.error_rate,
            Signal::ConcurrentUsers => self.concurrent_users,
            Signal::QueueSize => self.queue_size,
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        for (field, Threshold { warning, critical }) in [
            ("thresholds.cpu", self.cpu),
            ("thresholds.memory", self.memory),
            ("thresholds.response_time", self.response_time),
            ("thresholds.error_rate", self.error_rate),
            ("thresholds.concurrent_users", self.concurrent_users),
            ("thresholds.queue_size", self.queue_size),
        ] {
            // Written so that NaN fails too.
            if !(warning > 0.0 && warning < critical && critical.is_finite()) {
                let value = format!("warning {warning}, critical {critical}");
                let rule = "must be positive, with warning below critical";
                return Err(ConfigError::new(field, value, rule));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_documented_ones_and_valid() {
        let config = ObservabilityConfig::default();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.metrics_interval, Duration::from_millis(5_000));
        assert_eq!(config.alert_cooldown, Duration::from_millis(300_000));
        let all = Signal::ALL.map(|s| {
            let Threshold { warning, critical } = config.thresholds.of(s);
            (warning, critical)
        });
        let documented = [
            (70.0, 90.0),
            (80.0, 95.0),
            (1_000.0, 3_000.0),
            (1.0, 5.0),
            (800.0, 950.0),
            (1_000.0, 5_000.0),
        ];
        assert_eq!(all, documented);
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_file_may_leave_out_what_it_does_not_change_but_not_misspell_it() {
        let text =
            r#"{"metrics_interval": "2s", "thresholds": {"cpu": {"warning": 50, "critical": 60}}}"#;
        let config: ObservabilityConfig = serde_json::from_str(text).unwrap();
        let mut expected = ObservabilityConfig::default().metrics_interval(Duration::from_secs(2));
        expected.thresholds.cpu = Threshold::new(50.0, 60.0);
        assert_eq!(config, expected);
        let written = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ObservabilityConfig>(&written).unwrap(), config);
        for bad in [r#"{"metric_interval": "2s"}"#, r#"{"thresholds": {"cpus": {}}}"#] {
            assert!(serde_json::from_str::<ObservabilityConfig>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_broken_rule_names_field_value_and_rule() {
        let check = |change: fn(&mut ObservabilityConfig), text: &str| {
            let mut config = ObservabilityConfig::default();
            change(&mut config);
            let error = config.validate().expect_err(text);
            assert_eq!(error.to_string(), text);
        };
        check(
            |c| c.metrics_interval = Duration::from_millis(50),
            "metrics_interval: 50ms must be from 100ms to 1h",
        );
        check(
            |c| c.alert_cooldown = Duration::MAX,
            &format!("alert_cooldown: {:?} must be at most 30d", Duration::MAX),
        );
        check(
            |c| c.alert_clear_ratio = f64::NAN,
            "alert_clear_ratio: NaN must be above 0 and at most 1",
        );
        check(|c| c.max_routes = 0, "max_routes: 0 must be from 1 to 10000");
        check(|c| c.history_points = 1, "history_points: 1 must be from 2 to 3600");
        for bad in [
            Threshold::new(90.0, 70.0),
            Threshold::new(70.0, 70.0),
            Threshold::new(0.0, 1.0),
            Threshold::new(f64::NAN, 1.0),
            Threshold::new(1.0, f64::INFINITY),
        ] {
            let mut config = ObservabilityConfig::default();
            config.thresholds.error_rate = bad;
            let error = config.validate().expect_err("must be refused");
            assert_eq!(error.field, "thresholds.error_rate");
        }
    }
}
