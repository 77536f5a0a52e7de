//! What can be set on the limits that all processes share.

use std::fmt;
use std::time::Duration;

use ::redis::io::tcp::TcpSettings;
use ::redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use crate::{BreakerConfig, ConfigError};

/// Longer waits are slips of the unit: the request waits as well.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_NAMESPACE: usize = 64;

/// Settings of a [`RedisRateStore`](crate::RedisRateStore).
///
/// One server, or the address under which its primary can be found; Redis 5 or newer. Not Redis
/// Cluster: the limits of one request are one step, and their keys would lie on several nodes.
#[derive(Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RedisRateConfig {
    /// Where the server is: `redis://[user:password@]host[:port][/database]`, `rediss://..` for
    /// TLS (feature `redis-tls`), `unix:///path[?db=database]`. May hold a password and is never
    /// shown, nor serialised. Default: `redis://127.0.0.1:6379`.
    #[cfg_attr(feature = "serde", serde(skip_serializing))]
    pub url: String,
    /// The authorities that may have signed the certificate of a `rediss://` server, as the path of
    /// a PEM file, read when the store is made, or the PEM text itself. The certificate and its
    /// name are always checked. Default: the system's.
    pub authority: Option<String>,
    /// Tells applications on one Redis apart; the first part of every key. 1 to 64 bytes.
    /// Default: `escala`, right for a Redis of one application.
    pub namespace: String,
    /// Longest a request waits for its answer, whatever Redis does: for a connection, for a script
    /// that has to be loaded again, for the answer. 1 ms to 10 s. Default: 50 ms: hundreds of
    /// times a healthy answer, and hardly felt by whoever waits for a page.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub timeout: Duration,
    /// Longest wait for a connection in the background, and longest silence of one before it is
    /// made anew. Default: 1 s, room for one lost packet.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub connect_timeout: Duration,
    /// Keys of which is remembered that Redis has refused them, so that they are refused without
    /// asking again; 0 asks each time. At most a million. Default: 10,000, some 2 MB: a flood
    /// comes from few clients or finds no room, and costs round trips again.
    pub denials: u32,
    /// Longest such memory. Default: 1 s: what was given back in another process, or removed by
    /// hand, is heard of within a second, and a flood asks once a second. A quota that is changed
    /// counts at once.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub denial_max: Duration,
    /// When Redis is left alone, and for how long. Default: after 5 failures in a row for 1 s, and
    /// up to 5 s while trials fail.
    pub breaker: BreakerConfig,
}

impl Default for RedisRateConfig {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".to_owned(),
            authority: None,
            namespace: "escala".to_owned(),
            timeout: Duration::from_millis(50),
            connect_timeout: Duration::from_secs(1),
            denials: 10_000,
            denial_max: Duration::from_secs(1),
            breaker: BreakerConfig::default()
                .failure_rate(None)
                .open_for(Duration::from_secs(1))
                .open_for_max(Duration::from_secs(5))
                .probe_deadline(Duration::from_secs(1)),
        }
    }
}

impl From<&str> for RedisRateConfig {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}

impl RedisRateConfig {
    /// The defaults for this server.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// Sets [`authority`](Self#structfield.authority).
    #[must_use]
    pub fn authority(mut self, pem: impl Into<String>) -> Self {
        self.authority = Some(pem.into());
        self
    }

    /// Sets [`namespace`](Self#structfield.namespace).
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets [`timeout`](Self#structfield.timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets [`connect_timeout`](Self#structfield.connect_timeout).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets [`denials`](Self#structfield.denials).
    #[must_use]
    pub fn denials(mut self, keys: u32) -> Self {
        self.denials = keys;
        self
    }

    /// Sets [`denial_max`](Self#structfield.denial_max).
    #[must_use]
    pub fn denial_max(mut self, time: Duration) -> Self {
        self.denial_max = time;
        self
    }

    /// Sets [`breaker`](Self#structfield.breaker).
    #[must_use]
    pub fn breaker(mut self, breaker: BreakerConfig) -> Self {
        self.breaker = breaker;
        self
    }

    /// Checks every field. [`RedisRateStore::new`](crate::RedisRateStore::new) does it too.
    ///
    /// # Errors
    /// The first field that breaks its rule. The URL is never repeated in it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.connection_info()?;
        let namespace = &self.namespace;
        if namespace.is_empty() || namespace.len() > LONGEST_NAMESPACE {
            return Err(ConfigError::new("namespace", namespace, "have 1 to 64 bytes"));
        }
        for (field, time) in [("timeout", self.timeout), ("connect_timeout", self.connect_timeout)]
        {
            if !(Duration::from_millis(1)..=LONGEST_TIMEOUT).contains(&time) {
                let rule = "be between 1 ms and 10 s";
                return Err(ConfigError::new(field, &format!("{time:?}"), rule));
            }
        }
        if self.denials > 1_000_000 {
            return Err(ConfigError::new("denials", &self.denials, "be at most 1000000"));
        }
        if self.denial_max > Duration::from_secs(3_600) {
            let value = format!("{:?}", self.denial_max);
            return Err(ConfigError::new("denial_max", &value, "be at most an hour"));
        }
        self.breaker.validate()
    }

    /// A client, which connects when it is told to.
    pub(super) fn client(&self) -> Result<Client, ConfigError> {
        let info = self.connection_info()?.set_tcp_settings(tcp_settings(self.connect_timeout));
        let fail = |_| ConfigError::new("url", &"(hidden)", "lead to a server");
        #[cfg(feature = "redis-tls")]
        if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            install_provider();
            let root_cert = self.authority.as_deref().map(pem).transpose()?;
            let certificates = ::redis::TlsCertificates { client_tls: None, root_cert };
            let fail = |_| ConfigError::new("authority", &"(hidden)", "hold certificates as PEM");
            return Client::build_with_tls(info, certificates).map_err(fail);
        }
        Client::open(info).map_err(fail)
    }

    fn connection_info(&self) -> Result<ConnectionInfo, ConfigError> {
        let fail = |rule| ConfigError::new("url", &"(hidden)", rule);
        let rule = if cfg!(not(feature = "redis-tls")) && self.url.starts_with("rediss:") {
            "have the feature redis-tls for rediss://"
        } else {
            "be redis://[user:password@]host[:port][/database], rediss:// or unix://"
        };
        let info = self.url.as_str().into_connection_info().map_err(|_| fail(rule))?;
        match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                Err(fail("not switch off the check of certificates"))
            }
            addr if !addr.is_supported() => Err(fail("be supported on this system")),
            _ => Ok(info),
        }
    }
}

/// Answers are small and waited for, so Nagle's algorithm (on by default in this client) would
/// only hold them back. Data without an acknowledgement for that long ends the connection: a way
/// that swallows packets otherwise stays open for a quarter of an hour.
fn tcp_settings(patience: Duration) -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(patience);
    #[cfg(not(target_os = "linux"))]
    let _ = patience;
    settings
}

/// rustls panics when it finds no provider of cryptography, or two. The application's choice
/// comes first.
#[cfg(feature = "redis-tls")]
fn install_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may have been faster, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

#[cfg(feature = "redis-tls")]
fn pem(source: &str) -> Result<Vec<u8>, ConfigError> {
    if source.contains("-----BEGIN ") {
        return Ok(source.as_bytes().to_vec());
    }
    std::fs::read(source).map_err(|_| ConfigError::new("authority", &source, "be readable"))
}

impl fmt::Debug for RedisRateConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            url: _,
            authority,
            namespace,
            timeout,
            connect_timeout,
            denials,
            denial_max,
            breaker,
        } = self;
        f.debug_struct("RedisRateConfig")
            .field("url", &format_args!("(hidden)"))
            .field("authority", authority)
            .field("namespace", namespace)
            .field("timeout", timeout)
            .field("connect_timeout", connect_timeout)
            .field("denials", denials)
            .field("denial_max", denial_max)
            .field("breaker", breaker)
            .finish()
    }
}
