//! How a server ends, and what it allows its connections while it runs.

use std::time::Duration;

use crate::ConfigError;

/// No time is longer than a day: longer ones are slips of the unit, and would overflow the clock.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The times of a drain, and the bounds of the server that is drained.
///
/// ```
/// use std::time::Duration;
/// use escala_cluster::DrainConfig;
///
/// // For development: nothing in front has to notice that this process goes.
/// let config = DrainConfig::default().lame_duck(Duration::ZERO);
/// assert_eq!(config.deadline, Duration::from_secs(10));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct DrainConfig {
    /// Time for which the server goes on as before although it says it is not ready, so that load
    /// balancers notice and send their new connections elsewhere. 15 s, the documented pre-stop
    /// time; zero where nothing stands in front.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub lame_duck: Duration,
    /// Time after that for which open requests are waited for, before what is left is cut. 10 s:
    /// with the lame duck 25 s, so that Kubernetes does not kill the process first (30 s).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub deadline: Duration,
    /// Time for which a connection without a request is kept once the server closes, because its
    /// client may be about to send one; that one is answered with `Connection: close`. 500 ms:
    /// clients under load have sent their next request by then. Zero closes them at once.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub idle_linger: Duration,
    /// Connections open at once, upgraded ones included. While there are as many, further ones wait
    /// in the kernel's queue, and connections that have been without a request for a moment are
    /// closed to make room. 10,000: eight times the documented 1,199 users, and below the limit
    /// of descriptors that containers usually set.
    pub max_connections: u32,
    /// Time from the first byte of a request (the first one: from accept) to the end of its head,
    /// then the connection is closed. 10 s: no honest client needs it, and one that sends a byte
    /// now and then holds a place for no longer. While all places are taken and one is wanted, it is
    /// a second at most.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub header_read_timeout: Duration,
    /// Time without a request after which a connection is closed; it may take twice as long. 75 s,
    /// as in nginx, and more than the 60 s for which load balancers keep theirs, so that it is they
    /// who close.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub idle_timeout: Duration,
    /// Time for which a client may take nothing of a response that waits for it, then the
    /// connection is closed; what the kernel holds counts as taken. It is looked at only now and
    /// then: it may take twice as long and an [`idle_timeout`](Self#structfield.idle_timeout)
    /// more. 60 s, as in nginx. Any byte taken begins it anew.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub write_timeout: Duration,
    /// Time for which a handler may wait for a request's body; every 500 bytes that arrive give a
    /// second back. Then its read of the body fails and the connection ends. 20 s, as Apache's
    /// `RequestReadTimeout`: an upload of any length goes through at 500 bytes a second, and one
    /// that sends a byte now and then holds its place for no longer than this. What the handler
    /// itself takes between two reads does not count.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub body_read_timeout: Duration,
    /// Time from the head of a request to the head of its response, then the handler is dropped and
    /// the client answered: 408 and a closed connection if its upload had not ended, else 503 with
    /// `Retry-After`. `None`, the default, as in `axum::serve`: what a route may take is known to its
    /// own layers. The body of a response, and so SSE and WebSocket, may take any time.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub request_timeout: Option<Duration>,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self {
            lame_duck: Duration::from_secs(15),
            deadline: Duration::from_secs(10),
            idle_linger: Duration::from_millis(500),
            max_connections: 10_000,
            header_read_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(60),
            body_read_timeout: Duration::from_secs(20),
            request_timeout: None,
        }
    }
}

impl DrainConfig {
    /// Sets [`lame_duck`](Self#structfield.lame_duck).
    #[must_use]
    pub fn lame_duck(mut self, time: Duration) -> Self {
        self.lame_duck = time;
        self
    }

    /// Sets [`deadline`](Self#structfield.deadline).
    #[must_use]
    pub fn deadline(mut self, time: Duration) -> Self {
        self.deadline = time;
        self
    }

    /// Sets [`idle_linger`](Self#structfield.idle_linger).
    #[must_use]
    pub fn idle_linger(mut self, time: Duration) -> Self {
        self.idle_linger = time;
        self
    }

    /// Sets [`max_connections`](Self#structfield.max_connections).
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets [`header_read_timeout`](Self#structfield.header_read_timeout).
    #[must_use]
    pub fn header_read_timeout(mut self, time: Duration) -> Self {
        self.header_read_timeout = time;
        self
    }

    /// Sets [`idle_timeout`](Self#structfield.idle_timeout).
    #[must_use]
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.idle_timeout = time;
        self
    }

    /// Sets [`write_timeout`](Self#structfield.write_timeout).
    #[must_use]
    pub fn write_timeout(mut self, time: Duration) -> Self {
        self.write_timeout = time;
        self
    }

    /// Sets [`body_read_timeout`](Self#structfield.body_read_timeout).
    #[must_use]
    pub fn body_read_timeout(mut self, time: Duration) -> Self {
        self.body_read_timeout = time;
        self
    }

    /// Sets [`request_timeout`](Self#structfield.request_timeout).
    #[must_use]
    pub fn request_timeout(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.request_timeout = time.into();
        self
    }

    /// Checks every field. [`serve`](crate::serve) does it too.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, time) in [
            ("lame_duck", self.lame_duck),
            ("deadline", self.deadline),
            ("idle_linger", self.idle_linger),
        ] {
            if time > LONGEST {
                let rule = "be at most 24 hours";
                return Err(ConfigError::new(field, &format!("{time:?}"), rule));
            }
        }
        for (field, time) in [
            ("header_read_timeout", self.header_read_timeout),
            ("idle_timeout", self.idle_timeout),
            ("write_timeout", self.write_timeout),
            ("body_read_timeout", self.body_read_timeout),
            ("request_timeout", self.request_timeout.unwrap_or(LONGEST)),
        ] {
            if time.is_zero() || time > LONGEST {
                let rule = "be longer than zero and at most 24 hours";
                return Err(ConfigError::new(field, &format!("{time:?}"), rule));
            }
        }
        if !(1..=1_000_000).contains(&self.max_connections) {
            let rule = "be between 1 and 1000000";
            return Err(ConfigError::new("max_connections", &self.max_connections, rule));
        }
        Ok(())
    }
}
