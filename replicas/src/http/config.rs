//! What can be set: how an upstream is talked to, and what the proxy in front of several does.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::Network;
use crate::ConfigError;

/// No time is longer than a day: longer ones are slips of the unit, and would overflow the clock.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Far above any useful number; it bounds what one request can cost.
const MOST_ATTEMPTS: u32 = 10;
/// A body held for a retry is memory that a client fills.
const LONGEST_REPLAY: usize = 16 * 1024 * 1024;

/// How one upstream is talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct UpstreamConfig {
    /// Longest time to open a connection. 2 s: one lost packet is sent again after one second.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub connect_timeout: Duration,
    /// Longest silence until the head of the response, counted from the last part of the request
    /// that moved. 60 s, as in nginx.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub response_timeout: Duration,
    /// Longest silence between two parts of the response's body, and of a request that is still being
    /// sent after its response. 60 s, as in nginx.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub body_idle_timeout: Duration,
    /// How long a connection is kept without a request. 4 s: less than the 5 s of Node.js, the
    /// shortest that is common, so that it is mostly this side that closes.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub pool_idle_timeout: Duration,
    /// Connections that are kept without a request, for each runtime. 256.
    pub pool_max_idle: usize,
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(60),
            body_idle_timeout: Duration::from_secs(60),
            pool_idle_timeout: Duration::from_secs(4),
            pool_max_idle: 256,
        }
    }
}

impl UpstreamConfig {
    /// Sets [`connect_timeout`](Self#structfield.connect_timeout).
    #[must_use]
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = time;
        self
    }

    /// Sets [`response_timeout`](Self#structfield.response_timeout).
    #[must_use]
    pub fn response_timeout(mut self, time: Duration) -> Self {
        self.response_timeout = time;
        self
    }

    /// Sets [`body_idle_timeout`](Self#structfield.body_idle_timeout).
    #[must_use]
    pub fn body_idle_timeout(mut self, time: Duration) -> Self {
        self.body_idle_timeout = time;
        self
    }

    /// Sets [`pool_idle_timeout`](Self#structfield.pool_idle_timeout).
    #[must_use]
    pub fn pool_idle_timeout(mut self, time: Duration) -> Self {
        self.pool_idle_timeout = time;
        self
    }

    /// Sets [`pool_max_idle`](Self#structfield.pool_max_idle).
    #[must_use]
    pub fn pool_max_idle(mut self, connections: usize) -> Self {
        self.pool_max_idle = connections;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        time("connect_timeout", self.connect_timeout)?;
        time("response_timeout", self.response_timeout)?;
        time("body_idle_timeout", self.body_idle_timeout)?;
        time("pool_idle_timeout", self.pool_idle_timeout)
    }
}

/// Which `Host` a node sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum HostPolicy {
    /// The client's. The default, as in Envoy and Caddy: links and cookies stay right.
    #[default]
    Preserve,
    /// The node's own address, as in nginx: for servers that tell their sites by it.
    Upstream,
    /// Always this one.
    Fixed(String),
}

/// What a [`ReverseProxy`](super::ReverseProxy) does with each request.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ProxyConfig {
    /// Which `Host` a node sees.
    pub host: HostPolicy,
    /// Proxies in front of this one, whose `X-Forwarded-*` and `Forwarded` are kept and added to.
    /// None by default: everybody else's are replaced.
    pub trusted_proxies: Vec<Network>,
    /// Whether `Forwarded` (RFC 7239) is written beside `X-Forwarded-*`. Off: few read it.
    pub forwarded: bool,
    /// What the proxy calls itself in `Via`. None by default: it is not added.
    pub via: Option<String>,
    /// Protocols that a connection may change to. `websocket` alone: `h2c` would let a client speak
    /// to a node past the proxy.
    pub upgrades: Vec<String>,
    /// Longest time in which nothing moves on an upgraded connection, in either direction. 5 min.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub tunnel_idle_timeout: Duration,
    /// Longest silence of a client within its request's body. 60 s, as in nginx.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub request_idle_timeout: Duration,
    /// Nodes that one request is tried on, the first included. 3; 1 for no retries.
    pub attempts: u32,
    /// Statuses of a response, from 500 on, that are tried again on another node, for idempotent
    /// requests. None by default: an application may mean its 503.
    pub retry_statuses: Vec<u16>,
    /// Statuses of a response, from 500 on, that count as the node's failure. None by default; a 429
    /// and a 503 that is not listed say that the node is full, which is no failure.
    pub failure_statuses: Vec<u16>,
    /// Retries and hedges are at most this share of the requests of the last 10 s. 0.2, as in
    /// Finagle.
    pub retry_ratio: f64,
    /// Retries a second that are allowed beside, so that little traffic has any. 10.
    pub retry_min_per_second: u32,
    /// Longest request body that is held so that an idempotent request can be sent again, in bytes.
    /// 64 KiB. One that is longer, or of unknown length, is streamed, and retried only if no byte
    /// was sent.
    pub replay_bytes: usize,
    /// Sends a safe request (`GET`, `HEAD`, `OPTIONS`) to a second node if the first has not answered
    /// after this time; the first answer wins. None by default: worth it only where requests are cheap.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub hedge_after: Option<Duration>,
    /// The response header that says which node answered and why, such as `x-escala-node`. None by
    /// default: what a site is made of is nobody's business outside.
    pub explain: Option<String>,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            host: HostPolicy::Preserve,
            trusted_proxies: Vec::new(),
            forwarded: false,
            via: None,
            upgrades: vec!["websocket".to_owned()],
            tunnel_idle_timeout: Duration::from_secs(300),
            request_idle_timeout: Duration::from_secs(60),
            attempts: 3,
            retry_statuses: Vec::new(),
            failure_statuses: Vec::new(),
            retry_ratio: 0.2,
            retry_min_per_second: 10,
            replay_bytes: 64 * 1024,
            hedge_after: None,
            explain: None,
        }
    }
}

impl ProxyConfig {
    /// Sets [`host`](Self#structfield.host).
    #[must_use]
    pub fn host(mut self, policy: HostPolicy) -> Self {
        self.host = policy;
        self
    }

    /// Sets [`trusted_proxies`](Self#structfield.trusted_proxies).
    #[must_use]
    pub fn trusted_proxies(mut self, networks: impl IntoIterator<Item = Network>) -> Self {
        self.trusted_proxies = networks.into_iter().collect();
        self
    }

    /// Sets [`forwarded`](Self#structfield.forwarded).
    #[must_use]
    pub fn forwarded(mut self, written: bool) -> Self {
        self.forwarded = written;
        self
    }

    /// Sets [`via`](Self#structfield.via).
    #[must_use]
    pub fn via(mut self, name: impl Into<String>) -> Self {
        self.via = Some(name.into());
        self
    }

    /// Sets [`upgrades`](Self#structfield.upgrades).
    #[must_use]
    pub fn upgrades(mut self, protocols: impl IntoIterator<Item = String>) -> Self {
        self.upgrades = protocols.into_iter().collect();
        self
    }

    /// Sets [`tunnel_idle_timeout`](Self#structfield.tunnel_idle_timeout).
    #[must_use]
    pub fn tunnel_idle_timeout(mut self, time: Duration) -> Self {
        self.tunnel_idle_timeout = time;
        self
    }

    /// Sets [`request_idle_timeout`](Self#structfield.request_idle_timeout).
    #[must_use]
    pub fn request_idle_timeout(mut self, time: Duration) -> Self {
        self.request_idle_timeout = time;
        self
    }

    /// Sets [`attempts`](Self#structfield.attempts).
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets [`retry_statuses`](Self#structfield.retry_statuses).
    #[must_use]
    pub fn retry_statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.retry_statuses = statuses.into_iter().collect();
        self
    }

    /// Sets [`failure_statuses`](Self#structfield.failure_statuses).
    #[must_use]
    pub fn failure_statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.failure_statuses = statuses.into_iter().collect();
        self
    }

    /// Sets [`retry_ratio`](Self#structfield.retry_ratio) and
    /// [`retry_min_per_second`](Self#structfield.retry_min_per_second).
    #[must_use]
    pub fn retry_budget(mut self, ratio: f64, min_per_second: u32) -> Self {
        self.retry_ratio = ratio;
        self.retry_min_per_second = min_per_second;
        self
    }

    /// Sets [`replay_bytes`](Self#structfield.replay_bytes).
    #[must_use]
    pub fn replay_bytes(mut self, bytes: usize) -> Self {
        self.replay_bytes = bytes;
        self
    }

    /// Sets [`hedge_after`](Self#structfield.hedge_after).
    #[must_use]
    pub fn hedge_after(mut self, time: Duration) -> Self {
        self.hedge_after = Some(time);
        self
    }

    /// Sets [`explain`](Self#structfield.explain).
    #[must_use]
    pub fn explain(mut self, header: impl Into<String>) -> Self {
        self.explain = Some(header.into());
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if let HostPolicy::Fixed(host) = &self.host {
            value("host", host)?;
        }
        if let Some(name) = &self.via {
            value("via", name)?;
        }
        if let Some(header) = &self.explain
            && HeaderName::from_bytes(header.as_bytes()).is_err()
        {
            return Err(ConfigError::new("explain", header, "be the name of a header"));
        }
        for protocol in &self.upgrades {
            value("upgrades", protocol)?;
        }
        time("tunnel_idle_timeout", self.tunnel_idle_timeout)?;
        time("request_idle_timeout", self.request_idle_timeout)?;
        if let Some(after) = self.hedge_after {
            time("hedge_after", after)?;
        }
        if !(1..=MOST_ATTEMPTS).contains(&self.attempts) {
            let attempts = self.attempts.to_string();
            return Err(ConfigError::new("attempts", attempts, "be from 1 to 10"));
        }
        statuses("retry_statuses", &self.retry_statuses)?;
        statuses("failure_statuses", &self.failure_statuses)?;
        if !(0.0..=1.0).contains(&self.retry_ratio) {
            let ratio = self.retry_ratio.to_string();
            return Err(ConfigError::new("retry_ratio", ratio, "be from 0.0 to 1.0"));
        }
        if self.replay_bytes > LONGEST_REPLAY {
            let bytes = self.replay_bytes.to_string();
            return Err(ConfigError::new("replay_bytes", bytes, "be at most 16777216"));
        }
        Ok(())
    }
}

fn time(field: &str, time: Duration) -> Result<(), ConfigError> {
    if time.is_zero() || time > LONGEST {
        let rule = "be longer than zero and at most 24 hours";
        return Err(ConfigError::new(field, format!("{time:?}"), rule));
    }
    Ok(())
}

fn value(field: &str, text: &str) -> Result<(), ConfigError> {
    if text.is_empty() || HeaderValue::from_str(text).is_err() {
        return Err(ConfigError::new(field, text, "be what a header can hold"));
    }
    Ok(())
}

fn statuses(field: &str, statuses: &[u16]) -> Result<(), ConfigError> {
    let fits =
        |&&status: &&u16| StatusCode::from_u16(status).is_ok_and(|status| status.is_server_error());
    match statuses.iter().find(|status| !fits(status)) {
        Some(status) => {
            let rule = "hold statuses from 500 to 599";
            Err(ConfigError::new(field, status.to_string(), rule))
        }
        None => Ok(()),
    }
}
