//! Rate limits on a real Redis.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod failures;
#[cfg(feature = "axum")]
mod layer;
mod processes;

use std::time::Duration;

use escala_cluster::{RedisRateConfig, RedisRateStore};

pub(super) const TIMEOUT: Duration = Duration::from_millis(100);
/// What a busy machine may take to run a task whose time has come.
pub(super) const SLACK: Duration = Duration::from_millis(400);

/// A store whose breaker tries Redis again soon.
pub(super) fn store(url: &str) -> RedisRateStore {
    let config = RedisRateConfig::new(url).timeout(TIMEOUT);
    let pause = Duration::from_millis(200);
    let breaker = config.breaker.clone().open_for(pause).open_for_max(pause);
    RedisRateStore::new(config.breaker(breaker)).unwrap()
}
