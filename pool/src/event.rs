//! What happens inside a pool, told to the hook and to `tracing`.
//!
//! Without the feature the functions that tell `tracing` are empty, so that the logic carries no
//! `cfg`.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Cause, PoolError};
use crate::stats::CloseReason;

/// Something that happened in a pool.
///
/// The hook of [`PoolBuilder::on_event`](crate::PoolBuilder::on_event) gets these outside of all
/// locks, on the task they happened in; so it must not block.
#[derive(Debug)]
#[non_exhaustive]
pub enum PoolEvent<'a> {
    /// A caller got a lease.
    Acquired {
        /// From its first poll on.
        waited: Duration,
        /// Where it was asked for.
        place: &'static Location<'static>,
    },
    /// A caller got none. (One that left is only counted.)
    AcquireFailed {
        /// From its first poll on.
        waited: Duration,
        /// Where it was asked for.
        place: &'static Location<'static>,
        /// What the caller is told.
        error: &'a PoolError,
    },
    /// A lease came back. A dirty connection comes back when it was recovered or given up.
    Returned {
        /// From the acquire on.
        held: Duration,
        /// Where it was asked for.
        place: &'static Location<'static>,
    },
    /// A lease is out for longer than `leak_threshold`. Told once for each.
    LeakSuspected {
        /// So far.
        held: Duration,
        /// Where it was asked for.
        place: &'static Location<'static>,
    },
    /// A lease came back that was suspected to be lost.
    LeakReturned {
        /// From the acquire on.
        held: Duration,
        /// Where it was asked for.
        place: &'static Location<'static>,
    },
    /// A connection was made.
    Connected {
        /// The whole handshake.
        took: Duration,
    },
    /// A connection could not be made.
    ConnectFailed {
        /// The whole handshake, as far as it came.
        took: Duration,
        /// Why.
        error: &'a (dyn Error + Send + Sync + 'static),
        /// For how long the pool leaves the server alone now.
        backoff: Duration,
    },
    /// A connection was closed.
    Closed {
        /// Why.
        reason: CloseReason,
        /// Since it was made.
        age: Duration,
    },
    /// A connection was cleaned that its user left in the middle of something.
    Recovered {
        /// Whether it could be done in time. If not, the connection is closed.
        fit: bool,
        /// How long it took.
        took: Duration,
    },
    /// The number of connections for ordinary callers was changed.
    Resized {
        /// The former number.
        from: usize,
        /// The new one.
        to: usize,
    },
    /// Callers are held back from now on.
    Paused,
    /// Callers are served again.
    Resumed,
}

/// The hook of a pool.
pub(crate) type Hook = Arc<dyn Fn(&PoolEvent<'_>) + Send + Sync>;

/// A server that is away fails a connect every second; one line in this time tells it all.
#[cfg(feature = "tracing")]
const QUIET: Duration = Duration::from_secs(10);

/// Who is told.
pub(crate) struct Observer {
    hook: Option<Hook>,
    /// When a failed connect was last warned of.
    #[cfg(feature = "tracing")]
    warned: parking_lot::Mutex<Option<tokio::time::Instant>>,
}

impl Observer {
    pub(crate) fn new(hook: Option<Hook>) -> Self {
        Self {
            hook,
            #[cfg(feature = "tracing")]
            warned: parking_lot::Mutex::default(),
        }
    }

    /// Tells the hook. If it panics, nobody else is harmed.
    pub(crate) fn tell(&self, event: &PoolEvent<'_>) {
        self.trace(event);
        if let Some(hook) = &self.hook
            && catch_unwind(AssertUnwindSafe(|| hook(event))).is_err()
        {
            hook_panicked();
        }
    }

    /// What an operator wants to read. The rest would be a line for each acquire.
    #[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody to tell"))]
    #[inline]
    fn trace(&self, event: &PoolEvent<'_>) {
        #[cfg(feature = "tracing")]
        match event {
            PoolEvent::ConnectFailed { error, backoff, .. } => {
                if self.is_news() {
                    tracing::warn!(?error, ?backoff, "a connection could not be made");
                } else {
                    tracing::debug!(?error, ?backoff, "a connection could not be made");
                }
            }
            PoolEvent::LeakSuspected { held, place } => {
                tracing::warn!(?held, %place, "a lease is out for longer than the leak threshold");
            }
            PoolEvent::LeakReturned { held, place } => {
                tracing::info!(?held, %place, "a lease came back that was suspected to be lost");
            }
            PoolEvent::Closed { reason, age } => {
                tracing::debug!(%reason, ?age, "a connection was closed");
            }
            PoolEvent::Recovered { fit, took } => {
                tracing::debug!(fit, ?took, "a lease came back dirty");
            }
            PoolEvent::Resized { from, to } => tracing::info!(from, to, "the pool was resized"),
            PoolEvent::Paused => tracing::info!("the pool is paused"),
            PoolEvent::Resumed => tracing::info!("the pool is resumed"),
            _ => {}
        }
    }

    /// Whether nobody was warned of a failed connect for some time.
    #[cfg(feature = "tracing")]
    fn is_news(&self) -> bool {
        let now = tokio::time::Instant::now();
        let mut warned = self.warned.lock();
        let news = warned.is_none_or(|last| now.duration_since(last) >= QUIET);
        if news {
            *warned = Some(now);
        }
        news
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&self.hook.is_some()).finish()
    }
}

fn hook_panicked() {
    #[cfg(feature = "tracing")]
    tracing::error!("the event hook of a pool panicked");
}

/// The upkeep of a pool met a panic of the driver; it goes on.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody to tell"))]
pub(crate) fn upkeep_panicked(message: &str) {
    #[cfg(feature = "tracing")]
    tracing::error!(message, "the upkeep of a pool panicked");
}

/// A test before use or by the keepalive failed.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody to tell"))]
pub(crate) fn test_failed(cause: &Cause) {
    #[cfg(feature = "tracing")]
    tracing::info!(error = ?cause, "a connection failed its test");
}

/// A pool was closed while leases were out.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody to tell"))]
pub(crate) fn abandoned(leases: usize) {
    #[cfg(feature = "tracing")]
    tracing::warn!(leases, "the pool closed while leases were still out");
}

/// A listener could not connect again.
#[cfg(feature = "postgres")]
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody to tell"))]
pub(crate) fn listener_lost(error: &crate::error::PoolError) {
    #[cfg(feature = "tracing")]
    tracing::warn!(?error, "a listener could not connect again");
}

/// The session that cancels for others could not be opened (then with the error), or was of no use.
#[cfg(feature = "postgres")]
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody to tell"))]
pub(crate) fn signaller_dismissed(error: Option<&(dyn std::error::Error + Send + Sync)>) {
    #[cfg(feature = "tracing")]
    tracing::info!(?error, "each cancel takes a connection of its own for a while");
}

/// The server or the network ended a connection.
#[cfg(feature = "postgres")]
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody to tell"))]
pub(crate) fn connection_lost(error: &tokio_postgres::Error) {
    #[cfg(feature = "tracing")]
    tracing::info!(?error, "a connection was lost");
}
