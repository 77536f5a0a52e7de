//! Rate limits on a real Redis.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod failures;
#[cfg(feature = "axum")]
mod layer;
mod processes;

use std::time::Duration;

use escala_cluster::{RedisRateConfig, RedisRateStore};

/// Of the stores that are to run out of it.
pub(super) const TIMEOUT: Duration = Duration::from_millis(100);
/// What a busy machine may take to run a task whose time has come: a server that stands still
/// would keep its clients waiting for longer.
pub(super) const SLACK: Duration = Duration::from_secs(5);

/// A store with which Redis is well, however busy the machine is.
pub(super) fn store(url: &str) -> RedisRateStore {
    with_timeout(url, Duration::from_secs(10))
}

/// A store that soon runs out of patience.
pub(super) fn hasty(url: &str) -> RedisRateStore {
    with_timeout(url, TIMEOUT)
}

/// A store whose breaker tries Redis again soon.
fn with_timeout(url: &str, timeout: Duration) -> RedisRateStore {
    let config = RedisRateConfig::new(url).timeout(timeout);
    let pause = Duration::from_millis(200);
    let breaker = config.breaker.clone().open_for(pause).open_for_max(pause);
    RedisRateStore::new(config.breaker(breaker)).unwrap()
}
