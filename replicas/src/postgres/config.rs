//! How often servers are asked, and how far behind a replica may be.

use std::time::Duration;

use crate::ConfigError;

/// Longer times are slips of the unit.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The figures of a [`Monitor`](super::Monitor).
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct MonitorConfig {
    /// Longest time between two questions to the primary; each is drawn from the upper half at
    /// random. 100 ms: it is the error of every replica's lag, and a dozen small statements a second
    /// are little to a server.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub primary_interval: Duration,
    /// Longest time between two questions to a replica, drawn in the same way. 200 ms: that late it is
    /// noticed that it begins to lag, or was promoted, when nobody needs to know sooner.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub replica_interval: Duration,
    /// The same for all nodes while there is no primary that answers. 50 ms, since writes wait.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub search_interval: Duration,
    /// Time for a connection: name lookup, TCP, TLS and authentication together. 2 s: with a server
    /// that hangs in its handshake it is what a failed probe takes, and three of them eject it.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub connect_timeout: Duration,
    /// Time for an answer; a server that takes longer hangs, and its connection is given up. 1 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub sample_timeout: Duration,
    /// How long, from the first answer on, the first decision waits for nodes that have not answered.
    /// 1 s. Until then no node takes anything: the one that answers first may be an old primary.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub settle_timeout: Duration,
    /// Further behind than this, a replica is excluded; at half of it, it is admitted again. So is one of
    /// which there was no word for so long, until there is. 10 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub max_lag: Duration,
    /// The same in bytes of log; either excludes. 16 MiB, one segment of PostgreSQL's log.
    pub max_lag_bytes: u64,
    /// The only `system_identifier` to accept. `None`: that of the declared primary if it answers
    /// at first, else that of most nodes.
    pub system: Option<u64>,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self {
            primary_interval: Duration::from_millis(100),
            replica_interval: Duration::from_millis(200),
            search_interval: Duration::from_millis(50),
            connect_timeout: Duration::from_secs(2),
            sample_timeout: Duration::from_secs(1),
            settle_timeout: Duration::from_secs(1),
            max_lag: Duration::from_secs(10),
            max_lag_bytes: 16 << 20,
            system: None,
        }
    }
}

impl MonitorConfig {
    /// Sets [`primary_interval`](Self#structfield.primary_interval).
    #[must_use]
    pub fn primary_interval(mut self, interval: Duration) -> Self {
        self.primary_interval = interval;
        self
    }

    /// Sets [`replica_interval`](Self#structfield.replica_interval).
    #[must_use]
    pub fn replica_interval(mut self, interval: Duration) -> Self {
        self.replica_interval = interval;
        self
    }

    /// Sets [`search_interval`](Self#structfield.search_interval).
    #[must_use]
    pub fn search_interval(mut self, interval: Duration) -> Self {
        self.search_interval = interval;
        self
    }

    /// Sets [`connect_timeout`](Self#structfield.connect_timeout).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets [`sample_timeout`](Self#structfield.sample_timeout).
    #[must_use]
    pub fn sample_timeout(mut self, timeout: Duration) -> Self {
        self.sample_timeout = timeout;
        self
    }

    /// Sets [`settle_timeout`](Self#structfield.settle_timeout).
    #[must_use]
    pub fn settle_timeout(mut self, timeout: Duration) -> Self {
        self.settle_timeout = timeout;
        self
    }

    /// Sets [`max_lag`](Self#structfield.max_lag).
    #[must_use]
    pub fn max_lag(mut self, lag: Duration) -> Self {
        self.max_lag = lag;
        self
    }

    /// Sets [`max_lag_bytes`](Self#structfield.max_lag_bytes).
    #[must_use]
    pub fn max_lag_bytes(mut self, bytes: u64) -> Self {
        self.max_lag_bytes = bytes;
        self
    }

    /// Sets [`system`](Self#structfield.system).
    #[must_use]
    pub fn system(mut self, system: u64) -> Self {
        self.system = Some(system);
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, duration) in [
            ("primary_interval", self.primary_interval),
            ("replica_interval", self.replica_interval),
            ("search_interval", self.search_interval),
            ("connect_timeout", self.connect_timeout),
            ("sample_timeout", self.sample_timeout),
            ("settle_timeout", self.settle_timeout),
            ("max_lag", self.max_lag),
        ] {
            // A tenth of a millisecond is what a statement takes: less would be a busy loop.
            if duration < Duration::from_millis(1) || duration > LONGEST {
                let rule = "be from 1 ms to 1 hour";
                return Err(ConfigError::new(field, format!("{duration:?}"), rule));
            }
        }
        if self.max_lag_bytes == 0 {
            return Err(ConfigError::new("max_lag_bytes", "0", "be at least 1"));
        }
        Ok(())
    }
}
