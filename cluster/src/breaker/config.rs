//! When a circuit opens, for how long, and what it takes to close it again.

mod rules;

use std::time::Duration;

/// What a [`Breaker`](crate::Breaker) counts as too many failures, and how it recovers.
///
/// Three conditions open the circuit, each of which can be switched off, whichever is met first:
/// failures in a row, the share of failures, and the share of slow calls. The shares are those of
/// the last so many calls, of the last so much time, or of both, each by itself.
///
/// ```
/// use std::time::Duration;
/// use escala_cluster::BreakerConfig;
///
/// // Failures in a row, or 10 of the last 20 calls: the closed circuit then reads no clock.
/// let config = BreakerConfig::default().window(None).count_window(20).minimum_calls(10);
/// assert_eq!(config.open_for, Duration::from_secs(5));
/// config.validate()?;
/// # Ok::<(), escala_cluster::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct BreakerConfig {
    /// Failures in a row that open the circuit; `None` switches the condition off. 5, as in Envoy,
    /// Finagle and failsafe: it notices a dead backend within five calls, at any rate of calls.
    pub consecutive_failures: Option<u32>,
    /// Share of failures (throttled calls among them) that opens the circuit, above 0.0 and at most
    /// 1.0; `None` switches the condition off. 0.5, as in resilience4j: it notices a backend that
    /// fails every other call, which is never five in a row for long.
    pub failure_rate: Option<f64>,
    /// Share of slow calls that opens the circuit, above 0.0 and at most 1.0; `None` switches the
    /// condition off, and with it two clock reads per call. `None`: what is slow only the
    /// application knows.
    ///
    /// Calls under way that are too slow already count as slow calls beside those of the window, so
    /// that a backend that hangs is noticed before any call has ended. They are looked at eight
    /// times per [`slow_call`](Self::slow_call), when the next call, one that waits for its service,
    /// or somebody who reads the state comes by.
    pub slow_call_rate: Option<f64>,
    /// A call that takes this long or longer is slow; 1 ms to 24 h, used with
    /// [`slow_call_rate`](Self::slow_call_rate) only. A trial call that is slow counts as failed. 1 s:
    /// the shortest timeout in common use, after which somebody has given up.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub slow_call: Duration,
    /// Length of the sliding window of time, kept as ten buckets: what happened up to this long ago
    /// counts, give or take a bucket; `None` switches it off, and with it a clock read per call.
    /// 10 s, as in linkerd: an outage is noticed before the fastest documented alert interval has
    /// passed twice.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub window: Option<Duration>,
    /// Length of the sliding window of calls, 1 to 10,000: the last so many count; `None` switches
    /// it off. `None`: at a low rate of calls it holds what happened hours ago.
    pub count_window: Option<u32>,
    /// Calls a window must hold before its rates mean anything, 1 to 100,000, and at most
    /// [`count_window`](Self::count_window), which need not be full. 100, as in resilience4j and
    /// Polly: below, a few unlucky calls make up half.
    pub minimum_calls: u32,
    /// Time the circuit stays open the first time; doubled for each trial that fails after it. 5 s,
    /// as in Polly: long enough for a restart of the backend, short enough to be a hiccup.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub open_for: Duration,
    /// Where the doubling stops (the random part comes on top). 60 s, the fixed time of
    /// resilience4j: a backend that is back is found within a minute.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub open_for_max: Duration,
    /// Longest `Retry-After` of the backend that is obeyed (a longer one counts as this); zero obeys
    /// none. 5 min, as in linkerd: a slip of its unit does not keep the backend away for a day.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub retry_after_max: Duration,
    /// Share by which the open time is lengthened at random, 0.0 to 1.0. 0.2, so that many
    /// processes do not try one backend in the same instant.
    pub jitter: f64,
    /// Calls that are let through to try the backend after the open time, 1 to 1,000. 3: one could
    /// be lucky, ten are a burst for a backend that is just coming up.
    pub half_open_permits: u32,
    /// Share of these calls that must succeed to close the circuit, above 0.0 and at most 1.0. 0.5,
    /// the counterpart of [`failure_rate`](Self::failure_rate): with three calls, two.
    pub half_open_success_ratio: f64,
    /// Time one of these calls may take before it counts as failed and gives way. 5 s, the shortest
    /// timeout of the documented lanes.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub probe_deadline: Duration,
    /// Time over which a circuit that has closed by itself lets a growing share of the calls
    /// through, from a tenth to all; zero lets all through at once. Zero: only a backend that comes
    /// up cold (caches, connections) needs it, and the rejections are felt.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub ramp: Duration,
    /// A call that is given up (its future dropped) after at least this long counts as a failure,
    /// earlier it counts as nothing; `None` never counts it. 500 ms, half of the shortest timeout
    /// in common use, so that a timeout around the breaker can open it. Layers from
    /// `BreakerLayer::http` do not use it: a visitor who leaves a page looks the same, so there a
    /// timeout belongs inside the breaker. See
    /// [`BreakerLayer::count_abandoned`](crate::BreakerLayer::count_abandoned).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub abandoned_after: Option<Duration>,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: Some(5),
            failure_rate: Some(0.5),
            slow_call_rate: None,
            slow_call: Duration::from_secs(1),
            window: Some(Duration::from_secs(10)),
            count_window: None,
            minimum_calls: 100,
            open_for: Duration::from_secs(5),
            open_for_max: Duration::from_secs(60),
            retry_after_max: Duration::from_secs(5 * 60),
            jitter: 0.2,
            half_open_permits: 3,
            half_open_success_ratio: 0.5,
            probe_deadline: Duration::from_secs(5),
            ramp: Duration::ZERO,
            abandoned_after: Some(Duration::from_millis(500)),
        }
    }
}

impl BreakerConfig {
    /// Sets [`consecutive_failures`](Self#structfield.consecutive_failures).
    #[must_use]
    pub fn consecutive_failures(mut self, failures: impl Into<Option<u32>>) -> Self {
        self.consecutive_failures = failures.into();
        self
    }

    /// Sets [`failure_rate`](Self#structfield.failure_rate).
    #[must_use]
    pub fn failure_rate(mut self, share: impl Into<Option<f64>>) -> Self {
        self.failure_rate = share.into();
        self
    }

    /// Sets [`slow_call_rate`](Self#structfield.slow_call_rate).
    #[must_use]
    pub fn slow_call_rate(mut self, share: impl Into<Option<f64>>) -> Self {
        self.slow_call_rate = share.into();
        self
    }

    /// Sets [`slow_call`](Self#structfield.slow_call).
    #[must_use]
    pub fn slow_call(mut self, time: Duration) -> Self {
        self.slow_call = time;
        self
    }

    /// Sets [`window`](Self#structfield.window).
    #[must_use]
    pub fn window(mut self, length: impl Into<Option<Duration>>) -> Self {
        self.window = length.into();
        self
    }

    /// Sets [`count_window`](Self#structfield.count_window), and lowers
    /// [`minimum_calls`](Self#structfield.minimum_calls) to it if that was more.
    #[must_use]
    pub fn count_window(mut self, calls: impl Into<Option<u32>>) -> Self {
        self.count_window = calls.into();
        self.minimum_calls = self.minimum_calls.min(self.count_window.unwrap_or(u32::MAX));
        self
    }

    /// Sets [`minimum_calls`](Self#structfield.minimum_calls).
    #[must_use]
    pub fn minimum_calls(mut self, calls: u32) -> Self {
        self.minimum_calls = calls;
        self
    }

    /// Sets [`open_for`](Self#structfield.open_for), and raises
    /// [`open_for_max`](Self#structfield.open_for_max) to it if that was shorter.
    #[must_use]
    pub fn open_for(mut self, time: Duration) -> Self {
        self.open_for = time;
        self.open_for_max = self.open_for_max.max(time);
        self
    }

    /// Sets [`open_for_max`](Self#structfield.open_for_max).
    #[must_use]
    pub fn open_for_max(mut self, time: Duration) -> Self {
        self.open_for_max = time;
        self
    }

    /// Sets [`retry_after_max`](Self#structfield.retry_after_max).
    #[must_use]
    pub fn retry_after_max(mut self, time: Duration) -> Self {
        self.retry_after_max = time;
        self
    }

    /// Sets [`jitter`](Self#structfield.jitter).
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// Sets [`half_open_permits`](Self#structfield.half_open_permits).
    #[must_use]
    pub fn half_open_permits(mut self, permits: u32) -> Self {
        self.half_open_permits = permits;
        self
    }

    /// Sets [`half_open_success_ratio`](Self#structfield.half_open_success_ratio).
    #[must_use]
    pub fn half_open_success_ratio(mut self, share: f64) -> Self {
        self.half_open_success_ratio = share;
        self
    }

    /// Sets [`probe_deadline`](Self#structfield.probe_deadline).
    #[must_use]
    pub fn probe_deadline(mut self, time: Duration) -> Self {
        self.probe_deadline = time;
        self
    }

    /// Sets [`ramp`](Self#structfield.ramp).
    #[must_use]
    pub fn ramp(mut self, time: Duration) -> Self {
        self.ramp = time;
        self
    }

    /// Sets [`abandoned_after`](Self#structfield.abandoned_after).
    #[must_use]
    pub fn abandoned_after(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.abandoned_after = age.into();
        self
    }
}
