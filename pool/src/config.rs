//! The limits of a pool: one plain struct that is both the file format and the builder.

mod rule;

use std::fmt;
use std::time::Duration;

pub use self::rule::ConfigError;
pub(crate) use self::rule::{LONGEST, count, duration, some};
use self::rule::{SHORTEST, optional};

/// PostgreSQL holds milliseconds in 31 bits.
const LONGEST_AT_SERVER: Duration = Duration::from_secs(24 * 24 * 3600);

/// How PostgreSQL is to know a statement again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Statements {
    /// By a name, prepared once per connection: it is parsed and planned once.
    #[default]
    Named,
    /// Not at all: it is parsed and planned each time, in one message. For poolers that let each
    /// transaction run in another session, as PgBouncer does in transaction mode. Costs some 60 µs
    /// a statement at the server, and a transaction of its own the first time.
    Unnamed,
}

/// Where to connect and the limits of the pool.
///
/// [`Pool::new`](crate::Pool::new) uses what is not PostgreSQL's own: `url`, `pipelines`, all about
/// statements and the settings of a session.
///
/// ```
/// # use escala_pool::PoolConfig;
/// let config = PoolConfig::new("postgres://app@127.0.0.1/shop").max_size(20).min_idle(4);
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct PoolConfig {
    /// Connection string, in both forms and with the meanings of libpq:
    /// `postgres://user:password@host:port,host:port/database?parameter=value`, or pairs
    /// `host=... sslmode=...`. Several hosts, `hostaddr`, Unix sockets (a host that begins with a
    /// slash), `target_session_attrs`, `load_balance_hosts`, `connect_timeout` (for one address;
    /// else each gets its share of the field of that name here), `sslmode`, `sslrootcert`, `sslcert`,
    /// `sslkey`, `sslnegotiation`, `channel_binding`, `options`, `keepalives*` and
    /// `tcp_user_timeout` work; any other is refused by name, password files among them. TLS needs
    /// the feature `tls`; files of certificates and keys are read again when they change. Unlike
    /// libpq, no setting is read from the environment or the home directory, and keepalive begins
    /// after 60 s. Without `user` it is the user of the operating system, as in libpq: name one. Empty by default. It may hold a password: `Debug` hides it and it is never
    /// serialised.
    #[cfg_attr(feature = "serde", serde(skip_serializing))]
    pub url: String,
    /// Most connections open at a time. Default 10 (documented). Twice the cores of the
    /// *server*, divided by the number of processes that share it, is a good start. Beside them are
    /// those of `reserved` and of listeners, and one while callers give up statements often.
    pub max_size: usize,
    /// Connections kept open although idle, and tested meanwhile. Default 2 (documented). Capped
    /// at `max_size`.
    pub min_idle: usize,
    /// Callers that may wait while all connections are in use; one more is rejected at once.
    /// Default 10,000: what ten connections serve within `acquire_timeout` at 5 ms a lease. Zero
    /// means that nobody waits.
    pub max_waiters: usize,
    /// Connections that [`Acquire::reserved`](crate::Acquire::reserved) may open beyond `max_size`,
    /// so that health checks and administration work when all others are in use. Default 1: a
    /// health check takes turns with an operator. Count them when you divide the connections of the
    /// server. Zero puts such callers among all others.
    pub reserved: usize,
    /// Connects under way at a time. Default 4, so that a restarted server is not trampled. While
    /// connects fail it is one at a time.
    pub max_connecting: usize,
    /// Longest time the pool leaves a server alone that refused a connect. It begins with 10 ms,
    /// doubles with each failure, and a part of it by chance is waited. Default 1 s: so late at most
    /// a pool notices that its server is back, and one connect a second tramples nobody.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub max_backoff: Duration,
    /// Longest wait for a lease, connecting and testing included. Default 5 s (documented).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub acquire_timeout: Duration,
    /// Longest time for one whole handshake, with name, TCP, TLS and authentication, over all
    /// addresses that are tried. Default 5 s (documented).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub connect_timeout: Duration,
    /// An idle connection beyond `min_idle` is closed after this time. Default 30 s (documented).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub idle_timeout: Duration,
    /// A connection idle for so long, less up to a tenth by chance, is tested: no firewall forgets
    /// it, and a dead one is found before a caller does. Default 2 min, as in HikariCP. `None` or
    /// zero: never.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub keepalive: Option<Duration>,
    /// A connection is closed at this age, less up to a tenth by chance, so that connections
    /// opened together are not replaced together. Default 30 min, as HikariCP and bb8 have it.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub max_lifetime: Duration,
    /// A connection idle for longer is tested before use. Default 500 ms, as in HikariCP: a busy
    /// pool pays no round trip for tests.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub validate_after: Duration,
    /// A test that takes longer closes the connection. Default 1 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub validation_timeout: Duration,
    /// Longest time to make a dirty connection fit again (cancel, roll back) before it is closed.
    /// Default 5 s, as in PgDog.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub recovery_timeout: Duration,
    /// A lease held for longer is reported once, with the place that acquired it, and reported again
    /// when it comes back. Default `None`: what is too long depends on the application, and each
    /// lease pays for an entry in a list. Take several times your longest transaction. Zero is as
    /// `None`.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub leak_threshold: Option<Duration>,
    /// How long `close` waits for leases. Default 5 s: a third of the documented 15 s stop, since
    /// requests have ended by then.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub close_timeout: Duration,
    /// Prepared statements kept per connection, least recently used out first. Default 256: pgx
    /// keeps 512, sqlx 100.
    pub statement_cache: usize,
    /// Whether statements are prepared under a name. Default named. Behind PgBouncer in transaction
    /// mode they must not be; `COPY` needs a transaction there.
    pub statements: Statements,
    /// The server ends a statement that takes longer. Default `None`, as is zero: what the server
    /// is configured for. This and the two settings below go into the startup message as
    /// `options`, which PgBouncer refuses unless told to ignore it (`ignore_startup_parameters`),
    /// so they cannot be set together with unnamed statements.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub statement_timeout: Option<Duration>,
    /// The server ends a statement that waits longer for a lock. Default `None`, as above.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub lock_timeout: Option<Duration>,
    /// The server ends a session that leaves a transaction idle for longer. Default `None`, as
    /// above.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub idle_in_transaction_timeout: Option<Duration>,
    /// What `pg_stat_activity` and the server's log call these sessions. Default `None`: as the
    /// connection string has it.
    pub application_name: Option<String>,
    /// Connections at a time that serve single reads of all callers together, many under way on
    /// each; at most half of `max_size`, zero for none. One more is opened when each has eight under
    /// way, and one goes back after a second without work. Default 2, which took the least processor
    /// time per read on two cores. Four serve more where other work competes for the processors of
    /// the server, or where it has many.
    pub pipelines: usize,
}

impl PoolConfig {
    /// The defaults with a connection string.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// Sets the most connections open at a time.
    #[must_use]
    pub fn max_size(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self
    }

    /// Sets the connections kept open although idle.
    #[must_use]
    pub fn min_idle(mut self, min_idle: usize) -> Self {
        self.min_idle = min_idle;
        self
    }

    /// Sets the callers that may wait.
    #[must_use]
    pub fn max_waiters(mut self, max_waiters: usize) -> Self {
        self.max_waiters = max_waiters;
        self
    }

    /// Sets the connections kept for health checks and administration.
    #[must_use]
    pub fn reserved(mut self, reserved: usize) -> Self {
        self.reserved = reserved;
        self
    }

    /// Sets the longest time a failing server is left alone.
    #[must_use]
    pub fn max_backoff(mut self, max_backoff: Duration) -> Self {
        self.max_backoff = max_backoff;
        self
    }

    /// Sets the idle time after which a connection is tested.
    #[must_use]
    pub fn keepalive(mut self, keepalive: impl Into<Option<Duration>>) -> Self {
        self.keepalive = keepalive.into();
        self
    }

    /// Sets the time after which a lease is reported as lost.
    #[must_use]
    pub fn leak_threshold(mut self, leak_threshold: impl Into<Option<Duration>>) -> Self {
        self.leak_threshold = leak_threshold.into();
        self
    }

    /// Sets the connects under way at a time.
    #[must_use]
    pub fn max_connecting(mut self, max_connecting: usize) -> Self {
        self.max_connecting = max_connecting;
        self
    }

    /// Sets the longest wait for a lease.
    #[must_use]
    pub fn acquire_timeout(mut self, acquire_timeout: Duration) -> Self {
        self.acquire_timeout = acquire_timeout;
        self
    }

    /// Sets the longest time for one handshake.
    #[must_use]
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// Sets the time after which an idle connection beyond `min_idle` is closed.
    #[must_use]
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.idle_timeout = idle_timeout;
        self
    }

    /// Sets the age at which a connection is replaced.
    #[must_use]
    pub fn max_lifetime(mut self, max_lifetime: Duration) -> Self {
        self.max_lifetime = max_lifetime;
        self
    }

    /// Sets the idle time after which a connection is tested before use.
    #[must_use]
    pub fn validate_after(mut self, validate_after: Duration) -> Self {
        self.validate_after = validate_after;
        self
    }

    /// Sets the longest time for one test.
    #[must_use]
    pub fn validation_timeout(mut self, validation_timeout: Duration) -> Self {
        self.validation_timeout = validation_timeout;
        self
    }

    /// Sets the longest time to make a dirty connection fit again.
    #[must_use]
    pub fn recovery_timeout(mut self, recovery_timeout: Duration) -> Self {
        self.recovery_timeout = recovery_timeout;
        self
    }

    /// Sets how long `close` waits for leases.
    #[must_use]
    pub fn close_timeout(mut self, close_timeout: Duration) -> Self {
        self.close_timeout = close_timeout;
        self
    }

    /// Sets the prepared statements kept per connection.
    #[must_use]
    pub fn statement_cache(mut self, statement_cache: usize) -> Self {
        self.statement_cache = statement_cache;
        self
    }

    /// Sets whether statements are prepared under a name.
    #[must_use]
    pub fn statements(mut self, statements: Statements) -> Self {
        self.statements = statements;
        self
    }

    /// Sets how long a statement may take at the server.
    #[must_use]
    pub fn statement_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.statement_timeout = timeout.into();
        self
    }

    /// Sets how long a statement may wait for a lock.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.lock_timeout = timeout.into();
        self
    }

    /// Sets how long a transaction may stay idle.
    #[must_use]
    pub fn idle_in_transaction_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_in_transaction_timeout = timeout.into();
        self
    }

    /// Sets what the server calls these sessions.
    #[must_use]
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = Some(name.into());
        self
    }

    /// Sets the connections that serve single reads of all callers together.
    #[must_use]
    pub fn pipelines(mut self, pipelines: usize) -> Self {
        self.pipelines = pipelines;
        self
    }

    /// Checks every limit.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        count("max_size", self.max_size)?;
        count("max_connecting", self.max_connecting)?;
        count("statement_cache", self.statement_cache)?;
        if self.reserved > 100_000 {
            let rule = "must be at most 100000";
            return Err(ConfigError::new("reserved", self.reserved.to_string(), rule));
        }
        if self.pipelines > 1_000 {
            let rule = "must be at most 1000";
            return Err(ConfigError::new("pipelines", self.pipelines.to_string(), rule));
        }
        duration("max_backoff", self.max_backoff)?;
        optional("keepalive", self.keepalive)?;
        optional("leak_threshold", self.leak_threshold)?;
        self.validate_session()?;
        duration("acquire_timeout", self.acquire_timeout)?;
        duration("connect_timeout", self.connect_timeout)?;
        duration("idle_timeout", self.idle_timeout)?;
        duration("max_lifetime", self.max_lifetime)?;
        duration("validation_timeout", self.validation_timeout)?;
        duration("recovery_timeout", self.recovery_timeout)?;
        duration("close_timeout", self.close_timeout)
    }

    fn validate_session(&self) -> Result<(), ConfigError> {
        for (field, value) in [
            ("statement_timeout", self.statement_timeout),
            ("lock_timeout", self.lock_timeout),
            ("idle_in_transaction_timeout", self.idle_in_transaction_timeout),
        ] {
            let Some(value) = value.filter(|value| !value.is_zero()) else { continue };
            let rule = if !(SHORTEST..=LONGEST_AT_SERVER).contains(&value) {
                "must be between 1 ms and 24 days"
            } else if self.statements == Statements::Unnamed {
                "cannot be set behind a pooler: set it for the role, at the server"
            } else {
                continue;
            };
            return Err(ConfigError::new(field, format!("{value:?}"), rule));
        }
        match &self.application_name {
            Some(name) if name.contains('\0') || name.len() > 63 => {
                let rule = "must be at most 63 bytes, without zeros";
                Err(ConfigError::new("application_name", name.clone(), rule))
            }
            _ => Ok(()),
        }
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            max_size: 10,
            min_idle: 2,
            max_waiters: 10_000,
            reserved: 1,
            max_connecting: 4,
            max_backoff: Duration::from_secs(1),
            acquire_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            keepalive: Some(Duration::from_secs(2 * 60)),
            max_lifetime: Duration::from_secs(30 * 60),
            validate_after: Duration::from_millis(500),
            validation_timeout: Duration::from_secs(1),
            recovery_timeout: Duration::from_secs(5),
            leak_threshold: None,
            close_timeout: Duration::from_secs(5),
            statement_cache: 256,
            statements: Statements::Named,
            statement_timeout: None,
            lock_timeout: None,
            idle_in_transaction_timeout: None,
            application_name: None,
            pipelines: 2,
        }
    }
}

impl fmt::Debug for PoolConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Destructured whole, so that a new field cannot be forgotten here.
        let Self {
            url: _,
            max_size,
            min_idle,
            max_waiters,
            reserved,
            max_connecting,
            max_backoff,
            acquire_timeout,
            connect_timeout,
            idle_timeout,
            keepalive,
            max_lifetime,
            validate_after,
            validation_timeout,
            recovery_timeout,
            leak_threshold,
            close_timeout,
            statement_cache,
            statements,
            statement_timeout,
            lock_timeout,
            idle_in_transaction_timeout,
            application_name,
            pipelines,
        } = self;
        f.debug_struct("PoolConfig")
            .field("url", &"[hidden]")
            .field("max_size", max_size)
            .field("min_idle", min_idle)
            .field("max_waiters", max_waiters)
            .field("reserved", reserved)
            .field("max_connecting", max_connecting)
            .field("max_backoff", max_backoff)
            .field("acquire_timeout", acquire_timeout)
            .field("connect_timeout", connect_timeout)
            .field("idle_timeout", idle_timeout)
            .field("keepalive", keepalive)
            .field("max_lifetime", max_lifetime)
            .field("validate_after", validate_after)
            .field("validation_timeout", validation_timeout)
            .field("recovery_timeout", recovery_timeout)
            .field("leak_threshold", leak_threshold)
            .field("close_timeout", close_timeout)
            .field("statement_cache", statement_cache)
            .field("statements", statements)
            .field("statement_timeout", statement_timeout)
            .field("lock_timeout", lock_timeout)
            .field("idle_in_transaction_timeout", idle_in_transaction_timeout)
            .field("application_name", application_name)
            .field("pipelines", pipelines)
            .finish()
    }
}
