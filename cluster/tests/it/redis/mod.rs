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
    let patience = Duration::from_secs(10);
    let config = config(url).timeout(patience).connect_timeout(patience);
    // What is known to be refused is refused without asking, however long a test takes.
    RedisRateStore::new(config.denial_max(Duration::from_secs(3_600))).unwrap()
}

/// A store that soon runs out of patience.
pub(super) fn hasty(url: &str) -> RedisRateStore {
    RedisRateStore::new(config(url).timeout(TIMEOUT)).unwrap()
}

/// For a store whose breaker tries Redis again soon.
fn config(url: &str) -> RedisRateConfig {
    let config = RedisRateConfig::new(url);
    let pause = Duration::from_millis(200);
    let breaker = config.breaker.clone().open_for(pause).open_for_max(pause);
    config.breaker(breaker)
}
