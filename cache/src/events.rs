//! Events on the `tracing` facade, no more of them than someone wants to read.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::StoreError;

/// A store that is away fails hundreds of times a second; one line in this time tells it all.
const QUIET: Duration = Duration::from_secs(10);

/// Warns of faults of the shared layer, at most once in ten seconds a cache.
#[derive(Debug)]
pub(crate) struct FaultEvents {
    cache: String,
    last: Mutex<Option<Instant>>,
    suppressed: std::sync::atomic::AtomicU64,
}

impl FaultEvents {
    pub(crate) fn new(cache: &str) -> Self {
        Self { cache: cache.to_owned(), last: Mutex::new(None), suppressed: 0.into() }
    }

    pub(crate) fn fault(&self, error: &StoreError) {
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        let now = Instant::now();
        {
            let mut last = self.last.lock();
            if last.is_some_and(|last| now.duration_since(last) < QUIET) {
                self.suppressed.fetch_add(1, relaxed);
                return;
            }
            *last = Some(now);
        }
        let cause = std::error::Error::source(error).map(ToString::to_string);
        let suppressed = self.suppressed.swap(0, relaxed);
        tracing::warn!(
            cache = self.cache,
            error = %error,
            cause,
            suppressed,
            "the shared layer failed and was passed over"
        );
    }
}

/// Says that a load panicked. The key is left out: it may name a person.
pub(crate) fn load_panicked(cache: &Arc<str>, message: &str) {
    tracing::warn!(cache = %cache, message, "a load panicked");
}
