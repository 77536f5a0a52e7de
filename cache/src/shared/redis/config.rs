//! What can be set on a connection to Redis.

use std::fmt;
use std::time::Duration;

use ::redis::IntoConnectionInfo;

use crate::config::{ConfigError, check, check_duration, check_name};

/// Settings of a [`RedisStore`](crate::RedisStore).
#[derive(Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RedisConfig {
    /// Where Redis is: `redis://[user:password@]host[:port][/database]`. May hold a password and
    /// is never shown, nor serialised. Default: `redis://127.0.0.1:6379`.
    #[cfg_attr(feature = "serde", serde(skip_serializing))]
    pub url: String,
    /// Tells applications, or tenants, on one Redis apart; the first part of every key. 1 to 64
    /// bytes. Default: `escala`, right for a Redis of one application.
    pub namespace: String,
    /// Longest wait for one operation. Default: 50 ms: hundreds of times a healthy answer, and
    /// still less than most sources need.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub operation_timeout: Duration,
    /// Longest wait for a connection. Default: 1 s, room for one lost packet.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub connect_timeout: Duration,
    /// Failures in a row after which Redis is left alone for a [`pause`](Self::pause).
    /// Default: 5, so that one slow moment costs nothing and a dead server a quarter second.
    pub failures: u32,
    /// How long Redis is left alone before one operation tries it again; up to half as much
    /// again is added at random. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub pause: Duration,
}

impl RedisConfig {
    /// The defaults for one server.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// Sets [`namespace`](Self::namespace).
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets [`operation_timeout`](Self::operation_timeout).
    #[must_use]
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// Sets [`connect_timeout`](Self::connect_timeout).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets [`failures`](Self::failures).
    #[must_use]
    pub fn failures(mut self, failures: u32) -> Self {
        self.failures = failures;
        self
    }

    /// Sets [`pause`](Self::pause).
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// The first field whose value breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self { url, namespace, operation_timeout, connect_timeout, failures, pause } = self;
        let readable = url.as_str().into_connection_info().is_ok();
        check("url", Hidden, readable, "must be redis://[user:password@]host[:port][/database]")?;
        check_name("namespace", namespace)?;
        check_duration("operation_timeout", *operation_timeout)?;
        check_duration("connect_timeout", *connect_timeout)?;
        check("failures", failures, *failures > 0, "must be at least 1")?;
        check_duration("pause", *pause)
    }
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".to_owned(),
            namespace: "escala".to_owned(),
            operation_timeout: Duration::from_millis(50),
            connect_timeout: Duration::from_secs(1),
            failures: 5,
            pause: Duration::from_secs(1),
        }
    }
}

impl From<&str> for RedisConfig {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}

impl From<String> for RedisConfig {
    fn from(url: String) -> Self {
        Self::new(url)
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url: _, namespace, operation_timeout, connect_timeout, failures, pause } = self;
        f.debug_struct("RedisConfig")
            .field("url", &Hidden)
            .field("namespace", namespace)
            .field("operation_timeout", operation_timeout)
            .field("connect_timeout", connect_timeout)
            .field("failures", failures)
            .field("pause", pause)
            .finish()
    }
}

/// Stands for a value that may hold a password.
struct Hidden;

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}
