//! What can be set on an HTTP cache, and the rules each value must keep.

use std::time::Duration;

use crate::config::{ConfigError, check, check_duration, check_name};

/// Settings of one [`HttpCache`](crate::http::HttpCache), whatever routes it stands before. What differs
/// by route is said to the [`HttpCacheLayer`](crate::http::HttpCacheLayer).
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct HttpCacheConfig {
    /// What the cache calls itself in `Cache-Status`, and its label in statistics. 1 to 64 bytes.
    /// Default: `escala`.
    pub name: String,
    /// Whether the host a request is for is part of its key. Default: yes, as an answer may
    /// depend on it and anyone can send any `Host`. Turn it off if the application never looks at
    /// the host, and each name of the server shall share the entries.
    pub key_by_host: bool,
    /// Longest body that is stored, in bytes; a longer one is served and not stored. Bounds what
    /// one body under way takes too. Default: 1 MiB, as most pages are shorter and a thousand
    /// entries of it are a gigabyte.
    pub max_body_bytes: usize,
    /// How far the slowest client of a shared body that turned out too long may be behind the
    /// origin, in bytes. Default: 256 KiB: some packets in flight for everyone.
    pub window_bytes: usize,
    /// Whether requests that miss one key together wait for one answer of the origin. Default:
    /// yes.
    pub collapse: bool,
    /// Longest time a request waits for the head of another's answer, or, if it may have a stale
    /// response instead, for its own; and longest time between two pieces of a body that others
    /// may still join. Default: 5 s, as nginx's `proxy_cache_lock_timeout`.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub collapse_wait: Duration,
    /// How long requests for a key whose answer was not cacheable go to the origin without
    /// waiting for each other. Default: 120 s, as Varnish's hit-for-miss.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub hit_for_miss: Duration,
    /// Longest time a body is fetched for the store alone, after the last client has gone.
    /// Default: 30 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub fill_timeout: Duration,
    /// Most revalidations in the background at once; past it stale responses are served without.
    /// Default: 64, as each is a request the origin did not expect.
    pub revalidations: usize,
    /// Longest time a revalidation in the background may wait for the head of its answer.
    /// Default: 30 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub revalidation_timeout: Duration,
    /// Whether `Surrogate-Key` is taken off the answers to clients. Default: yes: it is a message
    /// to the cache and may name what clients should not know. `Cache-Tag` is left on.
    pub strip_surrogate_key: bool,
}

impl HttpCacheConfig {
    /// The defaults under a name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Sets [`key_by_host`](Self::key_by_host).
    #[must_use]
    pub fn key_by_host(mut self, by_host: bool) -> Self {
        self.key_by_host = by_host;
        self
    }

    /// Sets [`max_body_bytes`](Self::max_body_bytes).
    #[must_use]
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// Sets [`window_bytes`](Self::window_bytes).
    #[must_use]
    pub fn window_bytes(mut self, bytes: usize) -> Self {
        self.window_bytes = bytes;
        self
    }

    /// Sets [`collapse`](Self::collapse).
    #[must_use]
    pub fn collapse(mut self, collapse: bool) -> Self {
        self.collapse = collapse;
        self
    }

    /// Sets [`collapse_wait`](Self::collapse_wait).
    #[must_use]
    pub fn collapse_wait(mut self, wait: Duration) -> Self {
        self.collapse_wait = wait;
        self
    }

    /// Sets [`hit_for_miss`](Self::hit_for_miss).
    #[must_use]
    pub fn hit_for_miss(mut self, life: Duration) -> Self {
        self.hit_for_miss = life;
        self
    }

    /// Sets [`fill_timeout`](Self::fill_timeout).
    #[must_use]
    pub fn fill_timeout(mut self, timeout: Duration) -> Self {
        self.fill_timeout = timeout;
        self
    }

    /// Sets [`revalidations`](Self::revalidations).
    #[must_use]
    pub fn revalidations(mut self, most: usize) -> Self {
        self.revalidations = most;
        self
    }

    /// Sets [`revalidation_timeout`](Self::revalidation_timeout).
    #[must_use]
    pub fn revalidation_timeout(mut self, timeout: Duration) -> Self {
        self.revalidation_timeout = timeout;
        self
    }

    /// Sets [`strip_surrogate_key`](Self::strip_surrogate_key).
    #[must_use]
    pub fn strip_surrogate_key(mut self, strip: bool) -> Self {
        self.strip_surrogate_key = strip;
        self
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// The first field whose value breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self {
            name,
            key_by_host: _,
            max_body_bytes,
            window_bytes,
            collapse: _,
            collapse_wait,
            hit_for_miss: _,
            fill_timeout,
            revalidations,
            revalidation_timeout,
            strip_surrogate_key: _,
        } = self;
        check_name("name", name)?;
        let printable = name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        check("name", name, printable, "must be printable ASCII")?;
        let rule = "must be from 1 to 1073741824";
        check("max_body_bytes", max_body_bytes, (1..=1 << 30).contains(max_body_bytes), rule)?;
        check("window_bytes", window_bytes, (1..=1 << 30).contains(window_bytes), rule)?;
        check_duration("collapse_wait", *collapse_wait)?;
        check_duration("fill_timeout", *fill_timeout)?;
        let few = *revalidations <= 65_536;
        check("revalidations", revalidations, few, "must be at most 65536")?;
        check_duration("revalidation_timeout", *revalidation_timeout)
    }
}

impl Default for HttpCacheConfig {
    fn default() -> Self {
        Self {
            name: "escala".to_owned(),
            key_by_host: true,
            max_body_bytes: 1024 * 1024,
            window_bytes: 256 * 1024,
            collapse: true,
            collapse_wait: Duration::from_secs(5),
            hit_for_miss: Duration::from_secs(120),
            fill_timeout: Duration::from_secs(30),
            revalidations: 64,
            revalidation_timeout: Duration::from_secs(30),
            strip_surrogate_key: true,
        }
    }
}
