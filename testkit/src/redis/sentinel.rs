//! A primary with a replica, watched by three sentinels.

use std::net::SocketAddr;

use super::{Kind, Redis, cli};
use crate::search::Search;
use crate::{Error, wait};

/// A primary, its replica and three sentinels (two of which must agree), killed on drop.
///
/// A primary that does not answer for half a second is replaced.
#[derive(Debug)]
pub struct RedisSentinel {
    servers: Vec<Redis>,
    sentinels: Vec<Redis>,
}

/// The name under which the sentinels watch the primary.
const NAME: &str = "main";

/// In milliseconds. A sentinel that a busy machine has let stand for two seconds does nothing for the
/// next thirty, after which the replica is too old for it; and a former primary is made a replica
/// after four announcements without that. (Before Redis 7 this is refused, and all is as slow.)
const PERIODS: [&str; 8] =
    ["SENTINEL", "DEBUG", "tilt-period", "1000", "info-period", "1000", "publish-period", "500"];

impl RedisSentinel {
    /// Starts them all and waits until the sentinels could replace the primary.
    ///
    /// # Errors
    /// When a program is missing, or they do not come together.
    pub async fn start() -> Result<Self, Error> {
        let primary = Redis::start().await?;
        let (ip, port) = (primary.addr().ip().to_string(), primary.addr().port().to_string());
        let replica = Redis::builder()
            .option("--replicaof", [ip.clone(), port.clone()])
            .option("--repl-diskless-sync-delay", ["0".to_owned()]);
        let servers = vec![primary, replica.start().await?];
        let lines = format!(
            "sentinel monitor {NAME} {ip} {port} 2\n\
             sentinel down-after-milliseconds {NAME} 500\n\
             sentinel failover-timeout {NAME} 3000\n"
        );
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let kind = Kind::Sentinel(lines.clone());
            sentinels.push(Redis::builder().kind(kind).start().await?);
        }
        for sentinel in &sentinels {
            sentinel.cli(&PERIODS).await?;
        }
        let replica = servers[1].addr();
        let (search, addrs) = (servers[0].search.clone(), addrs(&sentinels));
        wait::blocking(move || ready(&search, replica, &addrs)).await?;
        Ok(Self { servers, sentinels })
    }

    /// The name under which the sentinels watch the primary.
    #[must_use]
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// `redis://127.0.0.1:PORT` of each sentinel.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(Redis::url).collect()
    }

    /// The two servers; the first began as the primary.
    #[must_use]
    pub fn servers(&self) -> &[Redis] {
        &self.servers
    }

    /// The sentinels.
    #[must_use]
    pub fn sentinels(&self) -> &[Redis] {
        &self.sentinels
    }

    /// Waits until all sentinels name this server (0 or 1) as the primary.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn until_primary(&self, server: usize) -> Result<(), Error> {
        let port = self.servers[server].addr().port().to_string();
        let (search, addrs) = (self.servers[0].search.clone(), addrs(&self.sentinels));
        wait::blocking(move || {
            await_all(&addrs, "another primary", |addr| {
                let named = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
                Ok(cli(&search, addr, None, &named)?.lines().any(|line| line == port))
            })
        })
        .await
    }
}

fn addrs(servers: &[Redis]) -> Vec<SocketAddr> {
    servers.iter().map(Redis::addr).collect()
}

/// Waits until the replica follows and the sentinels know it and each other.
fn ready(search: &Search, replica: SocketAddr, sentinels: &[SocketAddr]) -> Result<(), Error> {
    await_all(&[replica], "the replica", |addr| {
        let info = cli(search, addr, None, &["INFO", "replication"])?;
        Ok(info.contains("master_link_status:up"))
    })?;
    await_all(sentinels, "the sentinels", |addr| {
        let quorum = cli(search, addr, None, &["SENTINEL", "CKQUORUM", NAME])?;
        let replicas = cli(search, addr, None, &["SENTINEL", "REPLICAS", NAME])?;
        Ok(quorum.contains("OK 3 usable") && replicas.contains("master-link-status\nok"))
    })
}

fn await_all(
    addrs: &[SocketAddr],
    awaited: &str,
    done: impl Fn(SocketAddr) -> Result<bool, Error>,
) -> Result<(), Error> {
    let all = wait::until(wait::PATIENCE, || {
        for addr in addrs {
            if !done(*addr)? {
                return Ok(false);
            }
        }
        Ok::<_, Error>(true)
    })?;
    if all {
        return Ok(());
    }
    Err(Error::Timeout { awaited: awaited.to_owned(), waited: wait::PATIENCE })
}
