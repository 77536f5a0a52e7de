//! What can be set: the strategy, and the figures of health checking and ejection.

use std::fmt;
use std::time::Duration;

use crate::member::check_name;

/// No interval, timeout or ejection is longer than a day: longer ones are slips of the unit, and
/// would overflow the clock.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How a read is given to one of the eligible replicas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Strategy {
    /// Each in turn, whatever its weight.
    RoundRobin,
    /// Smooth weighted round robin: with weights 3, 3, 2 every window of eight picks holds exactly
    /// 3, 3 and 2 of them, spread out. Blind to load: a slow replica keeps getting its share.
    Weighted,
    /// Least `(in_flight + 1) / weight`. Replicas that differ by less than the one request to
    /// be placed are tied, and ties go by weighted turns, so an idle set is spread as by
    /// [`Strategy::Weighted`], exactly if one thread picks, while a slow replica gets less. The default, because turns alone
    /// queue without bound in front of a replica that slows down.
    #[default]
    LeastLoaded,
    /// The quicker of two, by `latency * (1 + in_flight / weight)`: the one whose turn it is, and another
    /// at random. The latency is an average that takes peaks as they are and fades, to 1/e in 10 s; a
    /// failure counts as 5 s at least, until the node returns from an ejection. Best
    /// where replicas differ in speed, or where many programs share them and none knows what the
    /// others have in flight. Costs two readings of the clock for each request while they are few, for
    /// one in 32 while they are many.
    PeakEwma,
}

impl Strategy {
    /// The name used in files and in statistics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::Weighted => "weighted",
            Self::LeastLoaded => "least_loaded",
            Self::PeakEwma => "peak_ewma",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When a node is probed, when it is taken out of service, and for how long.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ReplicasConfig {
    /// Time between two probes of a node, lengthened at random by up to [`jitter`](Self::jitter).
    /// 15 s, the documented `REPLICA_HEALTH_CHECK_INTERVAL`; failures of requests are noticed at
    /// once in any case. Only used with a probe.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub health_interval: Duration,
    /// Time a probe may take before it counts as failed. 1 s, as pgcat has it: a healthy node
    /// answers a ping in under a millisecond. Without a probe it is the time after which an ejected
    /// node is offered another trial request although the one before has not ended.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub probe_timeout: Duration,
    /// Failures in a row, of requests or of probes, that eject a node. 3: one or two are
    /// a restarted connection, and a read that fails is tried elsewhere meanwhile.
    pub consecutive_failures: u32,
    /// Share of the requests within [`failure_window`](Self::failure_window), in percent, whose
    /// failure ejects a node even if they were not in a row. 85, as in Envoy.
    pub failure_percent: u8,
    /// Fewer requests than that say nothing about shares. 50, as in Envoy.
    pub failure_min_requests: u32,
    /// How far back shares are looked at. 10 s, as in Envoy and linkerd.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub failure_window: Duration,
    /// Length of the first ejection; the n-th in close succession lasts n times as long. 30 s, as
    /// in Envoy. Each such time served without an ejection takes one off n.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub ejection_base: Duration,
    /// Where the growth of ejections stops (the random part comes on top). 300 s, as in Envoy.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub ejection_max: Duration,
    /// Share of the replicas, in percent, that may be out at once because requests failed on them and
    /// nothing else; one always may. 100: a set with a primary must be able to lose all replicas.
    /// Lower it where requests of one kind may fail everywhere through no fault of the nodes. Nodes
    /// that also failed a probe or a trial are not counted.
    pub max_ejected_percent: u8,
    /// When a smaller share of the replicas than this, in percent, is healthy, ejection by requests
    /// alone is ignored, so that the load of many does not fall on few. A node that fails then, or
    /// fails its probe, stays out all the same. 50, as in Envoy; 0 for never.
    pub panic_percent: u8,
    /// Time in which the weight of a replica that returns, or joins, grows from a tenth to the whole,
    /// because its caches and pools are cold. 30 s; zero for at once.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub slow_start: Duration,
    /// The caller's own zone. Its replicas are preferred until they are overloaded: all out or at
    /// their `max_in_flight`, or with more in flight for their weight than
    /// [`zone_overload`](Self::zone_overload) times the others have. `None`: zones do not matter.
    pub zone: Option<String>,
    /// How many times the load of the other zones makes the caller's own overloaded, at least 1. 2.0:
    /// below that, a round trip to another zone costs more than the queue. Up to 4 requests in
    /// flight on each of its nodes the own zone never is.
    pub zone_overload: f64,
    /// Reads that the primary serves for want of a replica at once, as a share of its
    /// `max_in_flight`, rounded up. 0.2: so that they cannot take the writes' places. Without
    /// `max_in_flight`, there is no bound.
    pub primary_read_share: f64,
    /// How long [`wait_read`](crate::Replicas::wait_read), `wait_write`, `read_with` and the service
    /// wait for a place when every node in question has its `max_in_flight`. Zero, the default:
    /// not at all, for a caller can do more with a rejection than with a queue.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub max_wait: Duration,
    /// How long the same (for the service and `read_with` too) wait for a replica to come as far as
    /// their [session](crate::Session) must see, before the primary reads; not at all where what is
    /// known of the replicas' lag leaves no hope. 50 ms: most replicas take one or two, and past that
    /// the primary is the quicker way. Zero: not at all. With the monitor's help only.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub token_wait: Duration,
    /// How many may wait at once; more are rejected. 1,000.
    pub max_waiters: usize,
    /// Share by which each interval and each ejection is lengthened at random, 0.0 to 1.0. 0.2, so
    /// that many processes do not probe one server in the same instant.
    pub jitter: f64,
}

impl Default for ReplicasConfig {
    fn default() -> Self {
        Self {
            health_interval: Duration::from_secs(15),
            probe_timeout: Duration::from_secs(1),
            consecutive_failures: 3,
            failure_percent: 85,
            failure_min_requests: 50,
            failure_window: Duration::from_secs(10),
            ejection_base: Duration::from_secs(30),
            ejection_max: Duration::from_secs(300),
            max_ejected_percent: 100,
            panic_percent: 50,
            slow_start: Duration::from_secs(30),
            zone: None,
            zone_overload: 2.0,
            primary_read_share: 0.2,
            max_wait: Duration::ZERO,
            token_wait: Duration::from_millis(50),
            max_waiters: 1_000,
            jitter: 0.2,
        }
    }
}

impl ReplicasConfig {
    /// Sets [`health_interval`](Self#structfield.health_interval).
    #[must_use]
    pub fn health_interval(mut self, interval: Duration) -> Self {
        self.health_interval = interval;
        self
    }

    /// Sets [`probe_timeout`](Self#structfield.probe_timeout).
    #[must_use]
    pub fn probe_timeout(mut self, timeout: Duration) -> Self {
        self.probe_timeout = timeout;
        self
    }

    /// Sets [`consecutive_failures`](Self#structfield.consecutive_failures).
    #[must_use]
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = failures;
        self
    }

    /// Sets [`failure_percent`](Self#structfield.failure_percent).
    #[must_use]
    pub fn failure_percent(mut self, percent: u8) -> Self {
        self.failure_percent = percent;
        self
    }

    /// Sets [`failure_min_requests`](Self#structfield.failure_min_requests).
    #[must_use]
    pub fn failure_min_requests(mut self, requests: u32) -> Self {
        self.failure_min_requests = requests;
        self
    }

    /// Sets [`failure_window`](Self#structfield.failure_window).
    #[must_use]
    pub fn failure_window(mut self, window: Duration) -> Self {
        self.failure_window = window;
        self
    }

    /// Sets [`ejection_base`](Self#structfield.ejection_base).
    #[must_use]
    pub fn ejection_base(mut self, base: Duration) -> Self {
        self.ejection_base = base;
        self
    }

    /// Sets [`ejection_max`](Self#structfield.ejection_max).
    #[must_use]
    pub fn ejection_max(mut self, max: Duration) -> Self {
        self.ejection_max = max;
        self
    }

    /// Sets [`max_ejected_percent`](Self#structfield.max_ejected_percent).
    #[must_use]
    pub fn max_ejected_percent(mut self, percent: u8) -> Self {
        self.max_ejected_percent = percent;
        self
    }

    /// Sets [`panic_percent`](Self#structfield.panic_percent).
    #[must_use]
    pub fn panic_percent(mut self, percent: u8) -> Self {
        self.panic_percent = percent;
        self
    }

    /// Sets [`slow_start`](Self#structfield.slow_start).
    #[must_use]
    pub fn slow_start(mut self, time: Duration) -> Self {
        self.slow_start = time;
        self
    }

    /// Sets [`zone`](Self#structfield.zone).
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets [`zone_overload`](Self#structfield.zone_overload).
    #[must_use]
    pub fn zone_overload(mut self, times: f64) -> Self {
        self.zone_overload = times;
        self
    }

    /// Sets [`primary_read_share`](Self#structfield.primary_read_share).
    #[must_use]
    pub fn primary_read_share(mut self, share: f64) -> Self {
        self.primary_read_share = share;
        self
    }

    /// Sets [`max_wait`](Self#structfield.max_wait).
    #[must_use]
    pub fn max_wait(mut self, time: Duration) -> Self {
        self.max_wait = time;
        self
    }

    /// Sets [`token_wait`](Self#structfield.token_wait).
    #[must_use]
    pub fn token_wait(mut self, time: Duration) -> Self {
        self.token_wait = time;
        self
    }

    /// Sets [`max_waiters`](Self#structfield.max_waiters).
    #[must_use]
    pub fn max_waiters(mut self, waiters: usize) -> Self {
        self.max_waiters = waiters;
        self
    }

    /// Sets [`jitter`](Self#structfield.jitter).
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, duration) in [
            ("health_interval", self.health_interval),
            ("probe_timeout", self.probe_timeout),
            ("failure_window", self.failure_window),
            ("ejection_base", self.ejection_base),
            ("ejection_max", self.ejection_max),
        ] {
            let rule = "be longer than zero and at most 24 hours";
            check(
                !duration.is_zero() && duration <= LONGEST,
                field,
                format_args!("{duration:?}"),
                rule,
            )?;
        }
        for (field, duration) in [
            ("slow_start", self.slow_start),
            ("max_wait", self.max_wait),
            ("token_wait", self.token_wait),
        ] {
            check(duration <= LONGEST, field, format_args!("{duration:?}"), "be at most 24 hours")?;
        }
        for (field, count) in [
            ("consecutive_failures", self.consecutive_failures),
            ("failure_min_requests", self.failure_min_requests),
        ] {
            check(count > 0, field, count, "be at least 1")?;
        }
        check(
            self.ejection_max >= self.ejection_base,
            "ejection_max",
            format_args!("{:?}", self.ejection_max),
            "be at least ejection_base",
        )?;
        let percent = self.failure_percent;
        check((1..=100).contains(&percent), "failure_percent", percent, "be from 1 to 100")?;
        for (field, percent) in [
            ("max_ejected_percent", self.max_ejected_percent),
            ("panic_percent", self.panic_percent),
        ] {
            check(percent <= 100, field, percent, "be at most 100")?;
        }
        if let Some(zone) = &self.zone {
            check_name("zone", zone)?;
        }
        let times = self.zone_overload;
        check((1.0..=1_000.0).contains(&times), "zone_overload", times, "be from 1.0 to 1000.0")?;
        for (field, share) in
            [("primary_read_share", self.primary_read_share), ("jitter", self.jitter)]
        {
            check((0.0..=1.0).contains(&share), field, share, "be from 0.0 to 1.0")?;
        }
        Ok(())
    }
}

fn check(
    kept: bool,
    field: &str,
    value: impl fmt::Display,
    rule: &'static str,
) -> Result<(), ConfigError> {
    if kept { Ok(()) } else { Err(ConfigError::new(field, value.to_string(), rule)) }
}

/// A setting that breaks its rule; says which, what it was, and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value:?}, but must {rule}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The field, as it is called in the configuration or in the builder.
    pub field: String,
    /// The value that was given.
    pub value: String,
    /// What the field must do, continuing "must".
    pub rule: &'static str,
}

impl ConfigError {
    pub(crate) fn new(
        field: impl Into<String>,
        value: impl Into<String>,
        rule: &'static str,
    ) -> Self {
        Self { field: field.into(), value: value.into(), rule }
    }
}
