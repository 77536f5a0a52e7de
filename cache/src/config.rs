//! What can be set on a cache, and the rules each value must keep.

use std::time::Duration;

use crate::codec::Encoding;
use crate::compression::Compression;
use crate::freshness::EarlyRefresh;

/// Settings of one cache.
///
/// Every lifetime is a bound: a copy in a layer lives the shortest of the value's own lifetime
/// ([`ttl`](Self::ttl) or the one given per call) and the lifetime of that layer.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct CacheConfig {
    /// Tells this cache from others in statistics, events and the shared layer. 1 to 64 bytes.
    ///
    /// Two caches on one shared store must not bear the same name, unless they are the same
    /// cache in two processes. Default: empty, which is refused, so that nobody forgets it.
    pub name: String,
    /// Lifetime of a value when the call gives none. Default: 5 min, the documented system's.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub ttl: Duration,
    /// Lifetime of "there is nothing under this key", if a load says so. Default: 30 s: long
    /// enough to spare the source a flood of questions for what does not exist, short enough for
    /// what is about to exist.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub absent_ttl: Duration,
    /// How long after its lifetime a value may stand in for a load that fails or is slow. Zero:
    /// never. Default: zero, since only the application knows whether an old value beats an
    /// error.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub stale: Duration,
    /// How long after its lifetime a value is served at once while one load renews it. Zero:
    /// never. Default: zero; early refresh does the same without serving anything old.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub stale_while_revalidate: Duration,
    /// How long a value that stood in for a failed load is served before the source is asked
    /// again. Default: 10 s, so that a source in trouble is asked six times a minute a key.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub stale_throttle: Duration,
    /// When a hit renews a value before it expires. Default: XFetch with a beta of 1, the
    /// optimum of its authors: only values that are slow to load are renewed noticeably early.
    pub early_refresh: EarlyRefresh,
    /// The layer in the memory of this process.
    pub memory: Memory,
    /// Lifetime of a copy in the shared layer. Default: 1 min, the documented system's: if no
    /// message between processes arrives, it bounds how long one may read what another removed.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub shared_ttl: Duration,
    /// Share of a lifetime, from 0 to 0.5, that is taken off at random, so that entries written
    /// together do not expire together. Never lengthens a lifetime. Default: 0.1, which spreads
    /// reloads over a tenth of the lifetime and costs 5 % of it on average.
    pub jitter: f64,
    /// Longest time a load may take before its callers get
    /// [`LoadError::TimedOut`](crate::LoadError::TimedOut) and its task is dropped.
    /// Default: 30 s, longer than any request should wait, so that only a hung source meets it.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub load_timeout: Duration,
    /// Longest time a caller waits for a load if an old value can stand in; the load goes on.
    /// Default: none: it waits until the load succeeds or fails.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub soft_timeout: Option<Duration>,
    /// Longest time a caller waits for a load if nothing can stand in; it then gets
    /// [`LoadError::TimedOut`](crate::LoadError::TimedOut) and the load goes on, to serve the
    /// next caller. Default: none: as long as the load may take.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub hard_timeout: Option<Duration>,
    /// How long one process may load a key while others that share the store wait for its value.
    /// Default: none: each process loads for itself, which costs the source at most one load a
    /// process and no round trip. Worth it for loads that take longer than a few milliseconds.
    /// Loads of many keys at once do not wait for each other.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub load_lock: Option<Duration>,
    /// How this process learns what others removed. Only with a shared layer.
    pub coherence: Coherence,
    /// How values are written in the shared layer. Default: postcard, the shortest and fastest.
    pub encoding: Encoding,
    /// Whether long values are compressed in the shared layer. Default: no.
    pub compression: Compression,
    /// Longest encoded value that goes to the shared layer, in bytes; a longer one stays in
    /// memory only. Default: 1 MiB, as one larger answer delays all behind it on the connection.
    pub max_value_bytes: usize,
    /// Version of the value type's shape. Raise it whenever a field is added, removed or moved:
    /// the default codec writes no field names and cannot see it. Default: 0.
    pub schema_version: u32,
}

impl CacheConfig {
    /// The defaults under a name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// The first field whose value breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self {
            name,
            ttl,
            absent_ttl,
            stale: _,
            stale_while_revalidate: _,
            stale_throttle,
            early_refresh,
            memory,
            shared_ttl,
            jitter,
            load_timeout,
            soft_timeout,
            hard_timeout,
            load_lock,
            coherence,
            encoding: _,
            compression,
            max_value_bytes,
            schema_version: _,
        } = self;
        check_name("name", name)?;
        check_duration("ttl", *ttl)?;
        check_duration("absent_ttl", *absent_ttl)?;
        check_duration("stale_throttle", *stale_throttle)?;
        let rule = "beta must be from 0.01 to 100, share from 0.1 to 1";
        check("early_refresh", early_refresh, early_refresh.is_valid(), rule)?;
        check("memory.capacity", memory.capacity, memory.capacity > 0, "must be at least 1")?;
        check_duration("memory.ttl", memory.ttl)?;
        check_duration("shared_ttl", *shared_ttl)?;
        check("jitter", jitter, (0.0..=0.5).contains(jitter), "must be from 0 to 0.5")?;
        check_duration("load_timeout", *load_timeout)?;
        check_duration("soft_timeout", soft_timeout.unwrap_or(Duration::MAX))?;
        check_duration("hard_timeout", hard_timeout.unwrap_or(Duration::MAX))?;
        check_duration("load_lock", load_lock.unwrap_or(Duration::MAX))?;
        check_duration("coherence.heartbeat", coherence.heartbeat)?;
        compression.validate()?;
        let fits = (1..=MAX_VALUE_BYTES).contains(max_value_bytes);
        check("max_value_bytes", max_value_bytes, fits, "must be from 1 to 536870912")
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            ttl: Duration::from_secs(5 * 60),
            absent_ttl: Duration::from_secs(30),
            stale: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            stale_throttle: Duration::from_secs(10),
            early_refresh: EarlyRefresh::XFetch { beta: 1.0 },
            memory: Memory::default(),
            shared_ttl: Duration::from_secs(60),
            jitter: 0.1,
            load_timeout: Duration::from_secs(30),
            soft_timeout: None,
            hard_timeout: None,
            load_lock: None,
            coherence: Coherence::default(),
            encoding: Encoding::default(),
            compression: Compression::default(),
            max_value_bytes: 1024 * 1024,
            schema_version: 0,
        }
    }
}

impl From<&str> for CacheConfig {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for CacheConfig {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

/// Settings of the layer in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Memory {
    /// Most entries, or bytes, held; past it the least valuable leave, and a value found in the
    /// shared layer comes in only if its key was asked for shortly before. Default: 1,000 entries,
    /// the documented system's: some megabytes of ordinary values.
    pub capacity: u64,
    /// What [`capacity`](Self::capacity) counts. Default: entries.
    pub unit: Unit,
    /// What decides which entries stay. Default: moka.
    pub engine: Engine,
    /// Lifetime of a copy in memory. Default: 10 min, the documented system's.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub ttl: Duration,
}

impl Memory {
    /// Room for `capacity` entries, the other settings at their defaults.
    #[must_use]
    pub fn entries(capacity: u64) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// Room for `bytes` of keys and values, as weighed by
    /// [`CacheBuilder::weigher`](crate::CacheBuilder::weigher), plus 128 for each entry.
    #[must_use]
    pub fn bytes(bytes: u64) -> Self {
        Self { capacity: bytes, unit: Unit::Bytes, ..Self::default() }
    }

    /// Sets what decides which entries stay.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Sets the lifetime of a copy in memory.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            capacity: 1_000,
            unit: Unit::Entries,
            engine: Engine::Moka,
            ttl: Duration::from_secs(10 * 60),
        }
    }
}

/// What the capacity of memory counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Unit {
    /// Entries, whatever their size.
    #[default]
    Entries,
    /// Bytes, as weighed by [`CacheBuilder::weigher`](crate::CacheBuilder::weigher).
    Bytes,
}

/// What decides which entries stay in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Engine {
    /// moka: TinyLFU, the most widely used.
    #[default]
    Moka,
    /// quick_cache: S3-FIFO and CLOCK, several times faster and as good at choosing.
    #[cfg(feature = "quick_cache")]
    QuickCache,
}

/// How a process learns what others removed from the shared layer, and so from its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Coherence {
    /// By what. Default: messages.
    pub by: Tidings,
    /// How often the number of the last message is compared with what arrived, which bounds how
    /// long a lost message goes unnoticed. Default: 1 s: one small request a second.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub heartbeat: Duration,
    /// What memory is good for while nothing is heard. Default: keep.
    pub while_deaf: WhileDeaf,
}

impl Coherence {
    /// The defaults, by `tidings`.
    #[must_use]
    pub fn by(tidings: Tidings) -> Self {
        Self { by: tidings, ..Self::default() }
    }

    /// Sets [`heartbeat`](Self::heartbeat).
    #[must_use]
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// Sets [`while_deaf`](Self::while_deaf).
    #[must_use]
    pub fn while_deaf(mut self, policy: WhileDeaf) -> Self {
        self.while_deaf = policy;
        self
    }
}

/// By what a process learns what others removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Tidings {
    /// Not at all: another process's removal is noticed when the copy in memory expires.
    None,
    /// Numbered messages between the caches: one for each removal.
    #[default]
    Messages,
    /// Messages, and the store's own word for each key that anybody changed, be it by hand
    /// (Redis: `CLIENT TRACKING` in broadcast mode). The store's work grows with processes times
    /// writes.
    Tracking,
}

/// What memory is good for while the messages of other processes do not arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum WhileDeaf {
    /// Serve it: available, and possibly removed elsewhere in the meantime.
    #[default]
    Keep,
    /// Serve it for at most this long after the messages stopped, then ask the shared layer or
    /// the source.
    Shorten(#[cfg_attr(feature = "serde", serde(with = "humantime_serde"))] Duration),
    /// Ask the shared layer, or the source, each time: never older than what they have.
    Bypass,
}

impl Default for Coherence {
    fn default() -> Self {
        Self {
            by: Tidings::Messages,
            heartbeat: Duration::from_secs(1),
            while_deaf: WhileDeaf::Keep,
        }
    }
}

/// A setting that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value}: {rule}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The field, with its path.
    pub field: &'static str,
    /// The value it had; never a secret.
    pub value: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

/// The longest bulk string Redis takes.
const MAX_VALUE_BYTES: usize = 512 * 1024 * 1024;

pub(crate) fn check(
    field: &'static str,
    value: impl std::fmt::Debug,
    keeps: bool,
    rule: &'static str,
) -> Result<(), ConfigError> {
    if keeps { Ok(()) } else { Err(ConfigError { field, value: format!("{value:?}"), rule }) }
}

pub(crate) fn check_duration(field: &'static str, value: Duration) -> Result<(), ConfigError> {
    check(field, value, !value.is_zero(), "must be longer than zero")
}

pub(crate) fn check_name(field: &'static str, value: &str) -> Result<(), ConfigError> {
    check(field, value, (1..=64).contains(&value.len()), "must be 1 to 64 bytes long")
}
