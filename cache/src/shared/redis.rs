//! The shared store on Redis: one pipelining connection, a hard timeout and a breaker.

mod config;
mod gate;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::io::tcp::TcpSettings;
use ::redis::{Client, Cmd, FromRedisValue, IntoConnectionInfo, RedisError};
use tokio::sync::mpsc;

pub use config::RedisConfig;
use gate::Gate;
pub use gate::RedisStats;

use super::{SharedStore, Signal, StoreFuture, When};
use crate::config::ConfigError;
use crate::error::StoreError;
use crate::glob::Pattern;
use crate::key;

/// Why no connection could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A setting breaks its rule.
    #[error("the settings for redis are not valid")]
    Config(#[from] ConfigError),
    /// Redis could not be reached or refused the connection.
    #[error("redis cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Redis did not answer within [`connect_timeout`](RedisConfig::connect_timeout).
    #[error("redis did not answer in time")]
    TimedOut,
}

/// A shared store on one Redis server; clones share the connection.
///
/// All operations share one connection and are pipelined on it as they come. Each is given
/// [`operation_timeout`](RedisConfig::operation_timeout); after
/// [`failures`](RedisConfig::failures) in a row Redis is left alone for a pause, then one
/// operation tries it again. A lost connection is made anew in the background.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

struct Inner {
    connection: ConnectionManager,
    /// Namespace, escaped, with its colon.
    prefix: String,
    gate: Gate,
}

impl RedisStore {
    /// Connects and makes sure that the server answers.
    ///
    /// Later faults are no errors of anyone; only this first contact is, since a wrong address
    /// is better known at once.
    ///
    /// # Errors
    /// When a setting is not valid or the server does not answer in time.
    pub async fn connect(config: impl Into<RedisConfig>) -> Result<Self, ConnectError> {
        let config = config.into();
        config.validate()?;
        let unreachable = |error: RedisError| ConnectError::Unreachable(error.into());
        let info = config.url.as_str().into_connection_info().map_err(unreachable)?;
        let client = Client::open(info.set_tcp_settings(tcp_settings())).map_err(unreachable)?;
        let connect = ConnectionManager::new_with_config(client, manager_config(&config));
        let connection = tokio::time::timeout(config.connect_timeout, connect)
            .await
            .map_err(|_| ConnectError::TimedOut)?
            .map_err(unreachable)?;
        let mut prefix = String::new();
        key::push_escaped(&config.namespace, &mut prefix);
        prefix.push(':');
        let gate = Gate::new(&config);
        Ok(Self { inner: Arc::new(Inner { connection, prefix, gate }) })
    }

    /// What this connection has done so far.
    #[must_use]
    pub fn stats(&self) -> RedisStats {
        self.inner.gate.stats()
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.inner.prefix)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl SharedStore for RedisStore {
    fn get_many<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, Vec<Option<Vec<u8>>>> {
        let mut get = ::redis::cmd("MGET");
        for key in keys {
            get.arg(self.inner.key(key));
        }
        Box::pin(self.inner.run(get))
    }

    fn set<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        ttl: Option<Duration>,
        _when: When,
    ) -> StoreFuture<'a, bool> {
        let ttl = ttl.map_or(MAX_TTL_MS, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let mut set = ::redis::cmd("SET");
        set.arg(self.inner.key(key)).arg(value).arg("PX").arg(ttl.clamp(1, MAX_TTL_MS));
        Box::pin(async move { self.inner.run::<()>(set).await.map(|()| true) })
    }

    fn remove<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
        let mut unlink = ::redis::cmd("UNLINK");
        for key in keys {
            unlink.arg(self.inner.key(key));
        }
        Box::pin(self.inner.run(unlink))
    }

    fn remove_matching<'a>(&'a self, prefix: &'a str, pattern: &'a Pattern) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let prefix = self.inner.key(prefix);
            let glob = pattern.to_redis(&prefix);
            let mut cursor = 0_u64;
            loop {
                let mut scan = ::redis::cmd("SCAN");
                scan.arg(cursor).arg("MATCH").arg(&glob).arg("COUNT").arg(SCAN_COUNT);
                let (next, mut keys): (u64, Vec<Vec<u8>>) = self.inner.run(scan).await?;
                // Redis may have been asked for more than the pattern means.
                keys.retain(|key| {
                    let text = key.strip_prefix(prefix.as_bytes()).map(std::str::from_utf8);
                    text.is_some_and(|text| text.is_ok_and(|text| pattern.matches(text)))
                });
                for chunk in keys.chunks(UNLINK_CHUNK) {
                    let mut unlink = ::redis::cmd("UNLINK");
                    unlink.arg(chunk);
                    self.inner.run::<()>(unlink).await?;
                }
                if next == 0 {
                    return Ok(());
                }
                cursor = next;
            }
        })
    }

    fn publish<'a>(&'a self, _channel: &'a str, _body: Vec<u8>) -> StoreFuture<'a, u64> {
        Box::pin(async { Err(StoreError::Suspended) })
    }

    fn sequence<'a>(&'a self, _channel: &'a str) -> StoreFuture<'a, u64> {
        Box::pin(async { Err(StoreError::Suspended) })
    }

    fn subscribe(&self, _channel: &str, _tracked: Option<&str>) -> mpsc::Receiver<Signal> {
        mpsc::channel(1).1
    }
}

impl Inner {
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    async fn run<T: FromRedisValue>(&self, command: Cmd) -> Result<T, StoreError> {
        let mut connection = self.connection.clone();
        self.gate.pass(command.query_async(&mut connection)).await
    }
}

/// Keys that Redis looks at in one step of a scan: long enough that round trips do not dominate,
/// short enough (some 100 us) that nobody waits behind it.
const SCAN_COUNT: u32 = 500;

/// Keys in one UNLINK.
const UNLINK_CHUNK: usize = 500;

/// Ten years; Redis refuses what overflows its clock.
const MAX_TTL_MS: u64 = 10 * 365 * 24 * 3_600 * 1_000;

/// Answers are small and waited for, so Nagle's algorithm (on by default in this client) would
/// only hold them back. Data without an acknowledgement for two seconds ends the connection: a
/// way that swallows packets otherwise stays open for a quarter of an hour.
fn tcp_settings() -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(Duration::from_secs(2));
    settings
}

fn manager_config(config: &RedisConfig) -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_connection_timeout(Some(config.connect_timeout))
        // The one timeout is ours, around each operation.
        .set_response_timeout(None)
        // Few attempts and short pauses: the breaker's probes start the next round, and a
        // server that is back must not wait out a long one.
        .set_number_of_retries(3)
        .set_min_delay(Duration::from_millis(50))
        .set_max_delay(Duration::from_millis(500))
        // The client's 50 make callers wait for room at a hundred at once.
        .set_pipeline_buffer_size(1024)
}
