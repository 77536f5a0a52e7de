//! The shared store on Redis: one pipelining connection, a hard timeout and a breaker.

mod backoff;
mod config;
mod connector;
mod feed;
mod gate;
mod hub;
mod link;
mod scripts;
mod server;
mod tls;

use std::fmt;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, FromRedisValue, RedisWrite as _, Value};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use config::{RedisConfig, Topology};
use connector::Connector;
use gate::Gate;
pub use gate::RedisStats;
use hub::Hub;
use link::Link;
use server::{Server, Share};
pub use tls::RedisTls;

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
    /// A file with certificates cannot be read.
    #[error("the certificates for redis cannot be read")]
    Certificates(#[source] io::Error),
    /// Redis refused the user or the password, or the user may not do what is needed.
    #[error("redis refused the user")]
    Denied(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Redis could not be reached or refused the connection.
    #[error("redis cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Redis did not answer within [`connect_timeout`](RedisConfig::connect_timeout).
    #[error("redis did not answer in time")]
    TimedOut,
}

/// A shared store on Redis: one server, the primary that Sentinel names, or a cluster. Clones
/// share the connections.
///
/// All operations share one connection (in a cluster, one to each node) and are pipelined on it
/// as they come. Each is given [`operation_timeout`](RedisConfig::operation_timeout); after
/// [`failures`](RedisConfig::failures) in a row Redis is left alone for a pause, then one
/// operation tries it again. Subscriptions share one further connection, made with the first of
/// them and ended with the last. A lost connection is made anew in the background, for as long
/// as the store or one of its subscriptions lives.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

struct Inner {
    server: Server,
    hub: Arc<Hub>,
    config: RedisConfig,
    /// Namespace, escaped, with its colon.
    prefix: String,
    gate: Gate,
    _keeper: Option<Keeper>,
}

impl RedisStore {
    /// Connects and makes sure that the server answers.
    ///
    /// Later faults are no errors of anyone; only this first contact is, since a wrong address
    /// or password is better known at once.
    ///
    /// # Errors
    /// When a setting is not valid, or the server refuses the connection or does not answer in
    /// time.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time and I/O.
    pub async fn connect(config: impl Into<RedisConfig>) -> Result<Self, ConnectError> {
        let config = config.into();
        config.validate()?;
        let mut prefix = String::new();
        key::push_escaped(&config.namespace, &mut prefix);
        prefix.push(':');
        let hub = Arc::new(Hub::new(prefix.clone()));
        let (server, keeper) = match &config.topology {
            Topology::Cluster => (open_cluster(&config).await?, None),
            Topology::Standalone | Topology::Sentinel { .. } => {
                let (link, keeper) = open_link(&config, &hub).await?;
                (Server::One(link), Some(keeper))
            }
        };
        let gate = Gate::new(&config);
        let inner = Inner { server, hub, config, prefix, gate, _keeper: keeper };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What this connection has done so far.
    #[must_use]
    pub fn stats(&self) -> RedisStats {
        self.inner.gate.stats()
    }
}

async fn open_cluster(config: &RedisConfig) -> Result<Server, ConnectError> {
    let client = connector::cluster(config)?;
    let nodes = u32::try_from(config.nodes.len()).unwrap_or(u32::MAX);
    // Each node that is named may be away before one answers, and then all others are asked.
    let patience = config.connect_timeout.saturating_mul(nodes.saturating_add(1));
    tokio::time::timeout(patience, client.get_async_connection())
        .await
        .map_err(|_| ConnectError::TimedOut)?
        .map(Server::Cluster)
        .map_err(connector::unreachable)
}

async fn open_link(
    config: &RedisConfig,
    hub: &Arc<Hub>,
) -> Result<(Arc<Link>, Keeper), ConnectError> {
    let connector = Connector::new(config)?;
    let link = Arc::new(Link::new(hub));
    let keep = link::keep(Arc::clone(&link), Arc::clone(hub), connector, config.keepalive);
    let keeper = Keeper(tokio::spawn(keep));
    link.opened().await.map_err(connector::unreachable)?;
    if config.tracking {
        // Changes nothing yet, and shows whether this user may.
        let mut off = ::redis::cmd("CLIENT");
        off.arg("TRACKING").arg("OFF");
        let allowed = tokio::time::timeout(config.connect_timeout, link.query::<Value>(&off));
        let answer = allowed.await.map_err(|_| ConnectError::TimedOut)?;
        answer.map_err(connector::unreachable)?;
    }
    Ok((link, keeper))
}

/// The task that keeps the connection, ended with the store.
struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("topology", &self.inner.config.topology)
            .field("prefix", &self.inner.prefix)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl SharedStore for RedisStore {
    fn get_many<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, Vec<Option<Vec<u8>>>> {
        Box::pin(async move {
            let prefix = &self.inner.prefix;
            let length: usize = keys.iter().map(|key| prefix.len() + key.len()).sum();
            let mut get = Cmd::with_capacity(1 + keys.len(), MGET.len() + length);
            get.arg(MGET);
            for key in keys {
                // In place: a string of both would be copied once more.
                let mut arg = get.writer_for_next_arg();
                for part in [prefix, key] {
                    arg.write_all(part.as_bytes()).map_err(StoreError::failed)?;
                }
            }
            // Redis takes no MGET of nothing.
            if keys.is_empty() { Ok(Vec::new()) } else { self.inner.run(get).await }
        })
    }

    fn set<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        ttl: Option<Duration>,
        when: When,
    ) -> StoreFuture<'a, bool> {
        let key = self.inner.key(key);
        let ttl = ttl.map(|ttl| {
            u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, MAX_TTL_MS).to_string()
        });
        Box::pin(async move {
            if let When::StartsWith(start) = when {
                let ttl = ttl.unwrap_or_default();
                let arguments = [start.as_slice(), value.as_slice(), ttl.as_bytes()];
                let set = scripts::SET_IF_STARTS_WITH.run(&self.inner.server, &key, &arguments);
                return self.inner.gate.pass(set).await;
            }
            let mut set = ::redis::cmd("SET");
            set.arg(key).arg(value);
            if when == When::Absent {
                set.arg("NX");
            }
            if let Some(ttl) = ttl {
                set.arg("PX").arg(ttl);
            }
            // Nil: something stood there.
            Ok(self.inner.run::<Value>(set).await? != Value::Nil)
        })
    }

    fn remove<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            for chunk in keys.chunks(UNLINK_CHUNK) {
                let mut unlink = ::redis::cmd("UNLINK");
                for key in chunk {
                    unlink.arg(self.inner.key(key));
                }
                self.inner.run::<()>(unlink).await?;
            }
            Ok(())
        })
    }

    fn remove_matching<'a>(&'a self, prefix: &'a str, pattern: &'a Pattern) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let prefix = self.inner.key(prefix);
            // One server need not be asked; what asks nobody must not pass for an answer.
            let shares = match &self.inner.server {
                Server::One(_) => vec![Share::All],
                cluster @ Server::Cluster(_) => self.inner.gate.pass(cluster.shares()).await?,
            };
            for share in shares {
                self.inner.remove_matching(&share, &prefix, pattern).await?;
            }
            Ok(())
        })
    }

    fn publish<'a>(&'a self, channel: &'a str, body: Vec<u8>) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            let (channel, key) = (self.inner.key(channel), self.inner.sequence_key(channel));
            let arguments = [channel.as_bytes(), body.as_slice()];
            let publish = scripts::PUBLISH.run(&self.inner.server, &key, &arguments);
            self.inner.gate.pass(publish).await
        })
    }

    fn sequence<'a>(&'a self, channel: &'a str) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            let mut get = ::redis::cmd("GET");
            get.arg(self.inner.sequence_key(channel));
            Ok(self.inner.run::<Option<u64>>(get).await?.unwrap_or(0))
        })
    }

    /// Subscribes; with [`tracking`](RedisConfig::tracking) off, `tracked` is not heeded.
    fn subscribe(&self, channel: &str, tracked: Option<&str>) -> mpsc::Receiver<Signal> {
        let inner = &self.inner;
        let tracked = tracked.filter(|_| inner.config.tracking).map(|prefix| inner.key(prefix));
        let (receiver, start) = inner.hub.add(inner.key(channel), tracked);
        // The settings were good for a connection before.
        if start && let Ok(connector) = Connector::new(&inner.config) {
            inner.hub.spawn(feed::run(Arc::clone(inner), connector));
        }
        receiver
    }
}

impl Inner {
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Keys of caches begin with the version of their frames, which is a number: no removal of
    /// a cache's keys takes this one along.
    fn sequence_key(&self, channel: &str) -> String {
        format!("{}sequence:{channel}", self.prefix)
    }

    async fn run<T: FromRedisValue>(&self, command: Cmd) -> Result<T, StoreError> {
        self.gate.pass(self.server.query(&command)).await
    }

    async fn remove_matching(
        &self,
        share: &Share,
        prefix: &str,
        pattern: &Pattern,
    ) -> Result<(), StoreError> {
        let glob = pattern.to_redis(prefix);
        let mut cursor = 0_u64;
        loop {
            let mut scan = ::redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&glob).arg("COUNT").arg(SCAN_COUNT);
            let step = self.server.query_share(share, &scan);
            let (next, mut keys): (u64, Vec<Vec<u8>>) = self.gate.pass(step).await?;
            // Redis may have been asked for more than the pattern means.
            keys.retain(|key| {
                let text = key.strip_prefix(prefix.as_bytes()).map(std::str::from_utf8);
                text.is_some_and(|text| text.is_ok_and(|text| pattern.matches(text)))
            });
            for chunk in keys.chunks(UNLINK_CHUNK) {
                let mut unlink = ::redis::cmd("UNLINK");
                unlink.arg(chunk);
                self.run::<()>(unlink).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

/// Keys that Redis looks at in one step of a scan: long enough that round trips do not dominate,
/// short enough (some 100 us) that nobody waits behind it.
const SCAN_COUNT: u32 = 500;

/// Many values in one command.
const MGET: &str = "MGET";

/// Keys in one UNLINK.
const UNLINK_CHUNK: usize = 500;

/// Ten years; Redis refuses what overflows its clock.
const MAX_TTL_MS: u64 = 10 * 365 * 24 * 3_600 * 1_000;
