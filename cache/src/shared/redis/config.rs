//! What can be set on a connection to Redis.

use std::fmt;
use std::time::Duration;

use ::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use super::tls::RedisTls;
use crate::config::{ConfigError, check, check_duration, check_name};

/// Settings of a [`RedisStore`](crate::RedisStore).
///
/// Redis 6 or newer, for the protocol RESP3.
#[derive(Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RedisConfig {
    /// Where the one server of [`Topology::Standalone`] is:
    /// `redis://[user:password@]host[:port][/database]`, `rediss://..` for TLS (feature
    /// `redis-tls`), `unix:///path[?db=database]`. May hold a password and is never shown, nor
    /// serialised. Default: `redis://127.0.0.1:6379`.
    #[cfg_attr(feature = "serde", serde(skip_serializing))]
    pub url: String,
    /// How the servers stand to each other. Default: one server.
    pub topology: Topology,
    /// URLs of the sentinels, or of some nodes of the cluster; one that answers is enough. A
    /// user and password in the first are for all of them. Never shown, nor serialised.
    /// Default: none.
    #[cfg_attr(feature = "serde", serde(skip_serializing))]
    pub nodes: Vec<String>,
    /// User at Redis (ACL), instead of the one in a URL. With Sentinel, URLs name the user at
    /// the sentinels and this the one at the servers. Default: none.
    pub username: Option<String>,
    /// Password at Redis, as [`username`](Self::username). Never shown, nor serialised.
    /// Default: none.
    #[cfg_attr(feature = "serde", serde(skip_serializing))]
    pub password: Option<String>,
    /// Certificates for URLs that begin with `rediss://`. Default: the system's authorities, no
    /// certificate of one's own.
    pub tls: RedisTls,
    /// Whether Redis tells of every change to the keys of a cache (`CLIENT TRACKING`), so that
    /// changes made by programs without this crate are seen too. Default: off, since it costs
    /// the server work for every write and every process. Own writes are not told, except those
    /// under [`When::StartsWith`](crate::When::StartsWith), which are scripts to Redis and so
    /// somebody else's. Not with [`Topology::Cluster`]: a tracking connection to each node, by
    /// which own writes could be told from others', cannot be had.
    pub tracking: bool,
    /// Tells applications, or tenants, on one Redis apart; the first part of every key. 1 to 64
    /// bytes. Default: `escala`, right for a Redis of one application.
    pub namespace: String,
    /// Longest wait for one operation. Default: 50 ms: hundreds of times a healthy answer, and
    /// still less than most sources need.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub operation_timeout: Duration,
    /// Longest wait for a connection, and for the answer that shows it alive. Default: 1 s, room
    /// for one lost packet.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub connect_timeout: Duration,
    /// How often a connection is asked for a sign of life. Default: 3 s: with
    /// [`connect_timeout`](Self::connect_timeout) it bounds how long messages may be missed
    /// unnoticed on a connection that hangs.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub keepalive: Duration,
    /// Failures in a row after which Redis is left alone for a [`pause`](Self::pause).
    /// Default: 5, so that one slow moment costs nothing and a dead server a quarter second.
    pub failures: u32,
    /// How long Redis is left alone before one operation tries it again; up to half as much
    /// again is added at random. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub pause: Duration,
}

/// How the servers of a [`RedisConfig`] stand to each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum Topology {
    /// One server, at [`url`](RedisConfig::url).
    #[default]
    Standalone,
    /// A primary that Sentinel names and replaces; the sentinels are
    /// [`nodes`](RedisConfig::nodes).
    Sentinel {
        /// The name under which Sentinel watches the primary.
        master: String,
    },
    /// Redis Cluster, found by some of its [`nodes`](RedisConfig::nodes).
    Cluster,
}

impl RedisConfig {
    /// The defaults for one server.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// The defaults for the primary that these sentinels know as `master`.
    ///
    /// User and password of the servers are set by [`username`](Self::username) and
    /// [`password`](Self::password); the URLs' are for the sentinels. A database is taken from
    /// the first URL.
    #[must_use]
    pub fn sentinel(
        urls: impl IntoIterator<Item = impl Into<String>>,
        master: impl Into<String>,
    ) -> Self {
        let topology = Topology::Sentinel { master: master.into() };
        Self { topology, nodes: urls.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// The defaults for the cluster to which these nodes belong.
    #[must_use]
    pub fn cluster(urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let nodes = urls.into_iter().map(Into::into).collect();
        Self { topology: Topology::Cluster, nodes, ..Self::default() }
    }

    /// Sets [`username`](Self::username).
    #[must_use]
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// Sets [`password`](Self::password).
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Sets [`tls`](Self::tls).
    #[must_use]
    pub fn tls(mut self, tls: RedisTls) -> Self {
        self.tls = tls;
        self
    }

    /// Sets [`tracking`](Self::tracking).
    #[must_use]
    pub fn tracking(mut self, tracking: bool) -> Self {
        self.tracking = tracking;
        self
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

    /// Sets [`keepalive`](Self::keepalive).
    #[must_use]
    pub fn keepalive(mut self, keepalive: Duration) -> Self {
        self.keepalive = keepalive;
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
        let Self {
            url,
            topology,
            nodes,
            username: _,
            password: _,
            tls,
            tracking,
            namespace,
            operation_timeout,
            connect_timeout,
            keepalive,
            failures,
            pause,
        } = self;
        match topology {
            Topology::Standalone => check_url("url", url)?,
            Topology::Sentinel { master } => {
                check("topology.master", master, !master.is_empty(), "must not be empty")?;
                check_nodes(nodes)?;
            }
            Topology::Cluster => {
                check_nodes(nodes)?;
                check("tracking", tracking, !tracking, "must be off with a cluster")?;
            }
        }
        tls.validate()?;
        check_name("namespace", namespace)?;
        check_duration("operation_timeout", *operation_timeout)?;
        check_duration("connect_timeout", *connect_timeout)?;
        check_duration("keepalive", *keepalive)?;
        check("failures", failures, *failures > 0, "must be at least 1")?;
        check_duration("pause", *pause)
    }
}

fn check_nodes(nodes: &[String]) -> Result<(), ConfigError> {
    check("nodes", nodes.len(), !nodes.is_empty(), "must name at least one node")?;
    nodes.iter().try_for_each(|url| check_url("nodes", url))?;
    let infos: Vec<_> = nodes.iter().filter_map(|url| parse(url)).collect();
    let remote = infos.iter().all(|info| !matches!(info.addr(), ConnectionAddr::Unix(_)));
    check("nodes", Hidden, remote, "must not be unix sockets, since other nodes are not")?;
    let encrypted = infos.iter().filter(|info| is_encrypted(info)).count();
    let equal = encrypted == 0 || encrypted == nodes.len();
    check("nodes", Hidden, equal, "must all begin with redis:// or all with rediss://")
}

fn check_url(field: &'static str, url: &str) -> Result<(), ConfigError> {
    let info = parse(url);
    let readable = "must be redis://[user:password@]host[:port][/database], rediss:// or unix://";
    check(field, Hidden, info.is_some(), readable)?;
    let supported = info.as_ref().is_none_or(|info| info.addr().is_supported());
    check(field, Hidden, supported, "needs the feature redis-tls for rediss://")?;
    let insecure = info
        .as_ref()
        .is_some_and(|info| matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }));
    check(field, Hidden, !insecure, "must not switch off the check of certificates")
}

pub(super) fn parse(url: &str) -> Option<ConnectionInfo> {
    url.into_connection_info().ok()
}

pub(super) fn is_encrypted(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".to_owned(),
            topology: Topology::Standalone,
            nodes: Vec::new(),
            username: None,
            password: None,
            tls: RedisTls::default(),
            tracking: false,
            namespace: "escala".to_owned(),
            operation_timeout: Duration::from_millis(50),
            connect_timeout: Duration::from_secs(1),
            keepalive: Duration::from_secs(3),
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
        let Self {
            url: _,
            topology,
            nodes,
            username,
            password,
            tls,
            tracking,
            namespace,
            operation_timeout,
            connect_timeout,
            keepalive,
            failures,
            pause,
        } = self;
        f.debug_struct("RedisConfig")
            .field("url", &Hidden)
            .field("topology", topology)
            .field("nodes", &vec![Hidden; nodes.len()])
            .field("username", username)
            .field("password", &password.as_ref().map(|_| Hidden))
            .field("tls", tls)
            .field("tracking", tracking)
            .field("namespace", namespace)
            .field("operation_timeout", operation_timeout)
            .field("connect_timeout", connect_timeout)
            .field("keepalive", keepalive)
            .field("failures", failures)
            .field("pause", pause)
            .finish()
    }
}

/// Stands for a value that may hold a secret.
#[derive(Clone, Copy)]
pub(super) struct Hidden;

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}
