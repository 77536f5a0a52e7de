//! The layer that processes share: any store of bytes, behind frames that are checked.

#[cfg(feature = "redis")]
mod breaker;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod store;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::codec::Codec;
use crate::compression::Compression;
use crate::config::CacheConfig;
use crate::error::StoreError;
use crate::frame::{self, Format, Meta, Stored};
use crate::glob::Pattern;
use crate::key;
use crate::stats::SharedLayerStats;
pub use store::{SharedStore, Signal, StoreFuture, When};

/// The shared layer of one cache.
pub(crate) struct Shared<V> {
    store: Arc<dyn SharedStore>,
    format: Format<V>,
    /// Frame version and name of the cache, escaped: what follows is the text of the key, so
    /// that no two caches and no two keys share a name.
    prefix: String,
    ttl: Duration,
    /// Frames created up to this moment are not trusted: a removal or an overwrite after it
    /// could not reach the store. Milliseconds since 1970.
    floor_ms: AtomicU64,
    counts: Counts,
    #[cfg(feature = "tracing")]
    events: crate::events::FaultEvents,
}

#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    rejected: AtomicU64,
    distrusted: AtomicU64,
    writes: AtomicU64,
    oversized: AtomicU64,
    faults: AtomicU64,
    suspended: AtomicU64,
}

impl<V> Shared<V> {
    pub(crate) fn new(store: Arc<dyn SharedStore>, codec: Codec<V>, config: &CacheConfig) -> Self {
        let mut prefix = format!("{}:", frame::VERSION);
        key::push_escaped(&config.name, &mut prefix);
        prefix.push(':');
        let format = Format::new(
            codec,
            config.schema_version,
            Compression::default(),
            config.max_value_bytes,
        );
        Self {
            store,
            format,
            prefix,
            ttl: config.shared_ttl,
            floor_ms: AtomicU64::new(0),
            counts: Counts::default(),
            #[cfg(feature = "tracing")]
            events: crate::events::FaultEvents::new(&config.name),
        }
    }

    /// The value under `text` and how long it may still live.
    pub(crate) async fn get(&self, text: &str) -> Option<(V, Duration)> {
        let key = self.key(text);
        let found = match self.store.get_many(std::slice::from_ref(&key)).await {
            Ok(found) => found.first().and_then(Option::as_ref).and_then(|b| self.open(&key, b)),
            Err(error) => {
                self.note(&error);
                None
            }
        };
        raise(if found.is_some() { &self.counts.hits } else { &self.counts.misses });
        found
    }

    /// Writes a value that has `life` left, made at `created_ms`.
    ///
    /// # Errors
    /// When an older value may stand there still.
    pub(crate) async fn set(
        &self,
        text: &str,
        value: &V,
        created_ms: u64,
        life: Duration,
    ) -> Result<(), StoreError> {
        let key = self.key(text);
        let life = life.min(self.ttl);
        // Redis refuses a lifetime of zero; a shorter life is over before it could be read.
        if life < Duration::from_millis(1) {
            return self.unlink(&key).await;
        }
        let expires_ms = wall_ms().saturating_add(millis(life));
        let meta = Meta {
            created_ms,
            fresh_until_ms: expires_ms,
            stale_until_ms: expires_ms,
            ..Meta::default()
        };
        let Some(bytes) = self.format.seal(&key, &meta, Some(value)) else {
            raise(&self.counts.oversized);
            return self.unlink(&key).await;
        };
        let written = self.store.set(&key, bytes, Some(life), When::Always).await.map(drop);
        match &written {
            Ok(()) => raise(&self.counts.writes),
            Err(error) => self.note(error),
        }
        written
    }

    /// Removes one key.
    ///
    /// # Errors
    /// When the store could not be reached. Frames it holds by now are not trusted any more.
    pub(crate) async fn remove(&self, text: &str) -> Result<(), StoreError> {
        let removed = self.unlink(&self.key(text)).await;
        self.distrust_unless(&removed);
        removed
    }

    /// Removes all matching keys.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub(crate) async fn remove_matching(&self, pattern: &Pattern) -> Result<(), StoreError> {
        let removed = self.store.remove_matching(&self.prefix, pattern).await;
        if let Err(error) = &removed {
            self.note(error);
        }
        self.distrust_unless(&removed);
        removed
    }

    /// After a change that did not reach the store, this process loads anew instead of reading
    /// what the change should have taken away. Coarse, but bounded, and over when the frames of
    /// that time have expired.
    pub(crate) fn distrust_unless(&self, outcome: &Result<(), StoreError>) {
        if outcome.is_err() {
            self.floor_ms.fetch_max(wall_ms(), Ordering::AcqRel);
        }
    }

    pub(crate) fn stats(&self) -> SharedLayerStats {
        let Counts { hits, misses, rejected, distrusted, writes, oversized, faults, suspended } =
            &self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        SharedLayerStats {
            hits: read(hits),
            misses: read(misses),
            rejected: read(rejected),
            distrusted: read(distrusted),
            writes: read(writes),
            oversized: read(oversized),
            faults: read(faults),
            suspended: read(suspended),
        }
    }

    fn key(&self, text: &str) -> String {
        let mut key = String::with_capacity(self.prefix.len() + text.len());
        write!(key, "{}{text}", self.prefix).expect("writing to a String cannot fail");
        key
    }

    async fn unlink(&self, key: &str) -> Result<(), StoreError> {
        let removed = self.store.remove(&[key.to_owned()]).await;
        if let Err(error) = &removed {
            self.note(error);
        }
        removed
    }

    fn open(&self, key: &str, bytes: &[u8]) -> Option<(V, Duration)> {
        let opened = self.format.open(key, bytes).ok();
        let Some((meta, Stored::Value(value))) = opened.map(|o| (o.meta, o.content)) else {
            raise(&self.counts.rejected);
            return None;
        };
        if meta.created_ms <= self.floor_ms.load(Ordering::Acquire) {
            raise(&self.counts.distrusted);
            return None;
        }
        let left = meta.fresh_until_ms.checked_sub(wall_ms()).filter(|left| *left > 0)?;
        Some((value, Duration::from_millis(left)))
    }

    fn note(&self, error: &StoreError) {
        if matches!(error, StoreError::Suspended) {
            raise(&self.counts.suspended);
            return;
        }
        raise(&self.counts.faults);
        #[cfg(feature = "tracing")]
        self.events.fault(error);
    }
}

/// Milliseconds since 1970 by this machine's clock, the only one that processes share.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn raise(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}
