//! How many calls may be under way at once, and what happens to those beyond.

use std::time::Duration;

use crate::ConfigError;

/// No time is longer than a day: longer ones are slips of the unit, and would overflow the clock.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// More calls than this at once no single process serves; the words that count them hold far more.
const MOST: u32 = 1_000_000;

/// What a [`ConcurrencyLimit`](crate::ConcurrencyLimit) admits.
///
/// ```
/// use std::time::Duration;
/// use escala_cluster::{AdaptiveConfig, ConcurrencyConfig};
///
/// // At most 100 calls at once; the 101st is refused at once.
/// let config = ConcurrencyConfig::fixed(100);
/// assert_eq!(config.max_waiting, 0);
///
/// // As many as the backend bears; up to 50 more wait, for at most 100 ms each.
/// let config = ConcurrencyConfig::adaptive(AdaptiveConfig::default())
///     .wait(50, Duration::from_millis(100));
/// config.validate()?;
/// # Ok::<(), escala_cluster::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ConcurrencyConfig {
    /// The number of calls at once. Adaptive, with the defaults of [`AdaptiveConfig`]: a number that
    /// was right when it was written is wrong after the next change of the backend.
    pub limit: Concurrency,
    /// Calls that may wait for a place, at most 1,000,000. 0, so that a call is refused at once:
    /// its caller can go elsewhere, and a queue in front of what is overloaded only adds its length
    /// to every answer.
    pub max_waiting: u32,
    /// The longest that one of them waits, longer than zero. 100 ms, which evens out a burst and is
    /// no delay that a visitor notices.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub max_wait: Duration,
    /// What a refused caller is told to wait before it asks again; on the wire in whole seconds,
    /// rounded up. 1 s, the shortest that `Retry-After` can say.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub retry_after: Duration,
}

/// A number of calls at once.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Concurrency {
    /// This many, 1 to 1,000,000. No clock is read then.
    Fixed(u32),
    /// As many as the backend bears, by what its latency and its failures tell.
    Adaptive(AdaptiveConfig),
}

/// How an adaptive limit finds its value.
///
/// At the end of each window the limit becomes `limit × gradient + √limit`, where the gradient
/// compares the latency without a queue to that of the window, and is 1 up to
/// [`tolerance`](Self::tolerance). Failures and calls given up late lower it by their share.
/// For a backend of `C` calls at once the limit settles between 1.3 `C` (many) and 2 `C` (four).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct AdaptiveConfig {
    /// Where it begins, within the two below. 20, as in Netflix's limits and failsafe-go.
    pub initial: u32,
    /// It never falls below this, at least 1. 4: below, the windows fill so slowly and √limit is so
    /// small that a backend which is back is noticed late.
    pub min: u32,
    /// It never climbs above this, at most 1,000,000. 1,000, as in Envoy.
    pub max: u32,
    /// The shortest window, 10 ms to 1 min; it lasts twice the latency if that is longer. 250 ms,
    /// so that a halved capacity is answered within a second.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub window: Duration,
    /// Calls a window must hold before it is judged, 10 to 100,000. 20: the 90th percentile of
    /// fewer is the latency of a single call.
    pub min_samples: u32,
    /// Latency that is taken for normal, as a multiple of that without a queue, 1.0 to 10.0. 1.25,
    /// as in Envoy: percentiles of so few calls vary by a tenth or two by themselves.
    pub tolerance: f64,
    /// Share by which the limit moves towards each window's result, above 0.0 and at most 1.0. 0.5:
    /// one odd window moves it by a quarter at most, and a halved capacity is reached in five.
    pub smoothing: f64,
    /// How often the latency without a queue is measured anew, 1 s to 24 h: for one window the limit
    /// is halved, unless so little is going on anyway. 30 s, so that calls are refused for about
    /// 1 % of the time, and only if the limit is being reached. If the window does not come to hold
    /// [`min_samples`](Self::min_samples) within twice the time that should take, nothing was
    /// measured, and the next call that comes or ends restores the limit.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub probe_interval: Duration,
    /// Share by which this interval is lengthened at random, 0.0 to 1.0. 0.15, as in Envoy: not all
    /// processes shed at the same time.
    pub jitter: f64,
    /// A call that is given up (its future dropped) after at least this long may say that the backend
    /// is too slow, earlier it says nothing; `None`: it never does. It does if it took twice as long
    /// as nine of ten take without a queue, and the calls of the same window that ended well, if there
    /// are any to speak of, were delayed, too. 100 ms: a timeout around the limit that is shorter than
    /// this goes unnoticed, so lower it then.
    ///
    /// Who can give up calls at will can lower the limit when hardly anything else is going on: see
    /// [`ConcurrencyLimitLayer::count_abandoned`](crate::ConcurrencyLimitLayer::count_abandoned).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub abandoned_after: Option<Duration>,
}

impl Default for ConcurrencyConfig {
    fn default() -> Self {
        Self {
            limit: Concurrency::Adaptive(AdaptiveConfig::default()),
            max_waiting: 0,
            max_wait: Duration::from_millis(100),
            retry_after: Duration::from_secs(1),
        }
    }
}

impl Default for AdaptiveConfig {
    fn default() -> Self {
        Self {
            initial: 20,
            min: 4,
            max: 1_000,
            window: Duration::from_millis(250),
            min_samples: 20,
            tolerance: 1.25,
            smoothing: 0.5,
            probe_interval: Duration::from_secs(30),
            jitter: 0.15,
            abandoned_after: Some(Duration::from_millis(100)),
        }
    }
}

impl ConcurrencyConfig {
    /// At most this many calls at once, the rest is refused.
    #[must_use]
    pub fn fixed(calls: u32) -> Self {
        Self { limit: Concurrency::Fixed(calls), ..Self::default() }
    }

    /// As many calls as the backend bears, the rest is refused.
    #[must_use]
    pub fn adaptive(config: AdaptiveConfig) -> Self {
        Self { limit: Concurrency::Adaptive(config), ..Self::default() }
    }

    /// Lets up to this many calls wait for a place, each for at most this long.
    #[must_use]
    pub fn wait(mut self, max_waiting: u32, max_wait: Duration) -> Self {
        self.max_waiting = max_waiting;
        self.max_wait = max_wait;
        self
    }

    /// Sets [`retry_after`](Self#structfield.retry_after).
    #[must_use]
    pub fn retry_after(mut self, time: Duration) -> Self {
        self.retry_after = time;
        self
    }

    /// Checks every field. [`ConcurrencyLimit::new`](crate::ConcurrencyLimit::new) does it too.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match &self.limit {
            Concurrency::Fixed(calls) => number("limit", *calls, 1, MOST)?,
            Concurrency::Adaptive(config) => config.validate()?,
        }
        number("max_waiting", self.max_waiting, 0, MOST)?;
        let shortest = Duration::from_nanos(1);
        time("max_wait", self.max_wait, shortest, "be longer than zero and at most 24 hours")?;
        time("retry_after", self.retry_after, Duration::ZERO, "be at most 24 hours")
    }

    pub(super) fn initial(&self) -> u32 {
        match &self.limit {
            Concurrency::Fixed(calls) => *calls,
            Concurrency::Adaptive(config) => config.initial,
        }
    }
}

impl AdaptiveConfig {
    /// Sets [`initial`](Self#structfield.initial).
    #[must_use]
    pub fn initial(mut self, calls: u32) -> Self {
        self.initial = calls;
        self
    }

    /// Sets [`min`](Self#structfield.min) and [`max`](Self#structfield.max), and moves
    /// [`initial`](Self#structfield.initial) between them.
    #[must_use]
    pub fn between(mut self, min: u32, max: u32) -> Self {
        self.min = min;
        self.max = max;
        self.initial = self.initial.min(max).max(min);
        self
    }

    /// Sets [`window`](Self#structfield.window) and [`min_samples`](Self#structfield.min_samples).
    #[must_use]
    pub fn window(mut self, length: Duration, min_samples: u32) -> Self {
        self.window = length;
        self.min_samples = min_samples;
        self
    }

    /// Sets [`tolerance`](Self#structfield.tolerance).
    #[must_use]
    pub fn tolerance(mut self, multiple: f64) -> Self {
        self.tolerance = multiple;
        self
    }

    /// Sets [`smoothing`](Self#structfield.smoothing).
    #[must_use]
    pub fn smoothing(mut self, share: f64) -> Self {
        self.smoothing = share;
        self
    }

    /// Sets [`probe_interval`](Self#structfield.probe_interval).
    #[must_use]
    pub fn probe_interval(mut self, time: Duration) -> Self {
        self.probe_interval = time;
        self
    }

    /// Sets [`jitter`](Self#structfield.jitter).
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// Sets [`abandoned_after`](Self#structfield.abandoned_after).
    #[must_use]
    pub fn abandoned_after(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.abandoned_after = age.into();
        self
    }

    fn validate(&self) -> Result<(), ConfigError> {
        number("min", self.min, 1, MOST)?;
        number("max", self.max, 1, MOST)?;
        if self.max < self.min {
            return Err(ConfigError::new("max", &self.max, "be at least min"));
        }
        if !(self.min..=self.max).contains(&self.initial) {
            return Err(ConfigError::new("initial", &self.initial, "be between min and max"));
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&self.window) {
            let rule = "be between 10 ms and 1 minute";
            return Err(ConfigError::new("window", &format!("{:?}", self.window), rule));
        }
        number("min_samples", self.min_samples, 10, 100_000)?;
        if !(1.0..=10.0).contains(&self.tolerance) {
            return Err(ConfigError::new("tolerance", &self.tolerance, "be between 1.0 and 10.0"));
        }
        if !(self.smoothing > 0.0 && self.smoothing <= 1.0) {
            let rule = "be above 0.0 and at most 1.0";
            return Err(ConfigError::new("smoothing", &self.smoothing, rule));
        }
        let rule = "be between 1 s and 24 hours";
        time("probe_interval", self.probe_interval, Duration::from_secs(1), rule)?;
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(ConfigError::new("jitter", &self.jitter, "be between 0.0 and 1.0"));
        }
        Ok(())
    }
}

fn number(field: &'static str, value: u32, least: u32, most: u32) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let rule = match (least, most) {
        (0, _) => "be at most 1000000",
        (1, _) => "be between 1 and 1000000",
        _ => "be between 10 and 100000",
    };
    Err(ConfigError::new(field, &value, rule))
}

fn time(
    field: &'static str,
    value: Duration,
    least: Duration,
    rule: &'static str,
) -> Result<(), ConfigError> {
    if (least..=LONGEST).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::new(field, &format!("{value:?}"), rule))
}
