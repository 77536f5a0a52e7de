//! The limits of an embedded pool.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{ConfigError, count, duration};

/// Which file to open and how.
///
/// ```
/// # use escala_pool::SqliteConfig;
/// let config = SqliteConfig::new("shop.db").readers(4);
/// assert!(config.validate().is_ok());
/// ```
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct SqliteConfig {
    /// The database file; created unless the pool only reads. A database in memory is refused,
    /// since every thread would see another one.
    pub path: PathBuf,
    /// Threads that read, each with a connection. Default 2: reads of a small machine.
    pub readers: usize,
    /// Without a writer, and unable to change the file. Default false.
    pub read_only: bool,
    /// How long SQLite waits for the lock of another process. Default 5 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub busy_timeout: Duration,
    /// Longest wait of a job for its start. Default 5 s (documented for pools).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub acquire_timeout: Duration,
    /// How long `close` waits for the jobs. Default 5 s, as for PostgreSQL.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub close_timeout: Duration,
    /// Jobs that may wait for the readers, and as many for the writer; one more is rejected at
    /// once. Default 10,000: under a second of group commits.
    pub max_waiters: usize,
    /// Prepared statements kept per connection by `prepare_cached`. Default 64: rusqlite's 16 is
    /// less than an application has.
    pub statement_cache: usize,
}

impl SqliteConfig {
    /// The defaults with a file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// Sets the threads that read.
    #[must_use]
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers;
        self
    }

    /// Leaves the writer out.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Sets how long SQLite waits for the lock of another process.
    #[must_use]
    pub fn busy_timeout(mut self, busy_timeout: Duration) -> Self {
        self.busy_timeout = busy_timeout;
        self
    }

    /// Sets the longest wait of a job for its start.
    #[must_use]
    pub fn acquire_timeout(mut self, acquire_timeout: Duration) -> Self {
        self.acquire_timeout = acquire_timeout;
        self
    }

    /// Sets how long `close` waits for the jobs.
    #[must_use]
    pub fn close_timeout(mut self, close_timeout: Duration) -> Self {
        self.close_timeout = close_timeout;
        self
    }

    /// Sets the jobs that may wait.
    #[must_use]
    pub fn max_waiters(mut self, max_waiters: usize) -> Self {
        self.max_waiters = max_waiters;
        self
    }

    /// Sets the prepared statements kept per connection.
    #[must_use]
    pub fn statement_cache(mut self, statement_cache: usize) -> Self {
        self.statement_cache = statement_cache;
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let path = self.path.to_string_lossy();
        if path.is_empty() || path.contains(":memory:") {
            return Err(ConfigError::new("path", path, "must name a file"));
        }
        if !(1..=64).contains(&self.readers) {
            let readers = self.readers.to_string();
            return Err(ConfigError::new("readers", readers, "must be between 1 and 64"));
        }
        count("max_waiters", self.max_waiters)?;
        count("statement_cache", self.statement_cache)?;
        duration("busy_timeout", self.busy_timeout)?;
        duration("acquire_timeout", self.acquire_timeout)?;
        duration("close_timeout", self.close_timeout)
    }
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            readers: 2,
            read_only: false,
            busy_timeout: Duration::from_secs(5),
            acquire_timeout: Duration::from_secs(5),
            close_timeout: Duration::from_secs(5),
            max_waiters: 10_000,
            statement_cache: 64,
        }
    }
}
