//! The limits of an embedded pool.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{ConfigError, count, duration};

/// When a commit is on the disk.
///
/// With either, a commit that was acknowledged survives the end of the process, also by `kill -9`,
/// and no crash corrupts the file. They differ in what a power cut, or a crash of the operating
/// system, may take away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Synchronous {
    /// The log is written through when it is moved into the database, every `checkpoint_pages`: a
    /// power cut may take the commits since then. The default.
    #[default]
    Normal,
    /// The log is written through at every commit, before its callers are answered: nothing is
    /// lost, as far as the disk tells the truth. A group of writes waits for the disk once.
    Full,
}

impl Synchronous {
    /// As the pragma has it.
    pub(super) fn pragma(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::Full => "FULL",
        }
    }
}

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
    /// Instructions of SQLite's machine up to which a `query*` runs on its caller's thread instead
    /// of going to a reader and back. Default 1,000, which take 25 to 50 µs; a point read takes ten.
    /// With 0 all reads go to readers.
    ///
    /// That is tried with a `SELECT`, `WITH` or `VALUES` that was short on a reader before, while a
    /// reader has nothing to do and no job waits. One that takes more instructions after all, or
    /// meets a lock, has no effect, is run on a reader, and is sent there at once for a while; so is
    /// one that took longer than 100 µs. It never waits for a lock, but for a page that is not in
    /// memory it waits as long as the disk takes: turn it off for a large file on a slow disk. A
    /// function of your own with effects may take effect twice.
    pub inline_steps: usize,
    /// When a commit is on the disk. Default `normal`.
    pub synchronous: Synchronous,
    /// Bytes of the database that each connection keeps in memory at most, a multiple of 1,024.
    /// Default 8 MiB: four times SQLite's own, and not much with three connections. The operating
    /// system keeps the file in memory as well.
    pub cache_size: u64,
    /// Bytes of the database that are read through the memory map instead of by system calls.
    /// Default 0, as in SQLite: with a map, a failing disk ends the process.
    pub mmap_size: u64,
    /// Whether temporary tables and large sorts stay in memory. Default false, as in SQLite: they
    /// go to a file when they are large.
    pub temp_in_memory: bool,
    /// Pages of the write-ahead log after which the writer moves it into the database. Default
    /// 1,000, as in SQLite: 4 MiB.
    pub checkpoint_pages: usize,
    /// Bytes of the log past which the writer waits up to 100 ms for those who read, in order to
    /// empty it; it grows on only while one read takes longer than that. Default 64 MiB.
    pub max_log: u64,
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

    /// Sets the instructions up to which a read runs on its caller's thread.
    #[must_use]
    pub fn inline_steps(mut self, inline_steps: usize) -> Self {
        self.inline_steps = inline_steps;
        self
    }

    /// Sets when a commit is on the disk.
    #[must_use]
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Sets the bytes that each connection keeps in memory.
    #[must_use]
    pub fn cache_size(mut self, cache_size: u64) -> Self {
        self.cache_size = cache_size;
        self
    }

    /// Sets the bytes that are read through the memory map.
    #[must_use]
    pub fn mmap_size(mut self, mmap_size: u64) -> Self {
        self.mmap_size = mmap_size;
        self
    }

    /// Keeps temporary tables and large sorts in memory.
    #[must_use]
    pub fn temp_in_memory(mut self) -> Self {
        self.temp_in_memory = true;
        self
    }

    /// Sets the pages after which the log is moved into the database.
    #[must_use]
    pub fn checkpoint_pages(mut self, checkpoint_pages: usize) -> Self {
        self.checkpoint_pages = checkpoint_pages;
        self
    }

    /// Sets the bytes past which the log is emptied.
    #[must_use]
    pub fn max_log(mut self, max_log: u64) -> Self {
        self.max_log = max_log;
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
        count("checkpoint_pages", self.checkpoint_pages)?;
        if self.inline_steps > 100_000 {
            let steps = self.inline_steps.to_string();
            return Err(ConfigError::new("inline_steps", steps, "must be at most 100000"));
        }
        bytes("cache_size", self.cache_size, 1 << 16)?;
        bytes("mmap_size", self.mmap_size, 0)?;
        bytes("max_log", self.max_log, 1 << 16)?;
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
            inline_steps: 1_000,
            synchronous: Synchronous::Normal,
            cache_size: 8 << 20,
            mmap_size: 0,
            temp_in_memory: false,
            checkpoint_pages: 1_000,
            max_log: 64 << 20,
        }
    }
}

/// Refuses what SQLite would not take for a number of bytes, or take for the opposite.
fn bytes(field: &'static str, value: u64, least: u64) -> Result<(), ConfigError> {
    if (least..=1 << 40).contains(&value) {
        return Ok(());
    }
    let rule =
        if least == 0 { "must be at most 1 TiB" } else { "must be between 64 KiB and 1 TiB" };
    Err(ConfigError::new(field, value.to_string(), rule))
}
