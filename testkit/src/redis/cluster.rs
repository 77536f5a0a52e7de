//! A Redis Cluster of three primaries.

use std::net::SocketAddr;

use super::{Kind, Redis, cli};
use crate::search::Search;
use crate::{Error, wait};

/// Three `redis-server`s, each a primary with a third of the slots, killed on drop.
///
/// A node that is down takes its slots with it; the others go on.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

/// The slots of each node.
const SLOTS: [(&str, &str); 3] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];

impl RedisCluster {
    /// Starts the nodes and waits until each knows all slots.
    ///
    /// # Errors
    /// When a program is missing, or the nodes do not come together.
    pub async fn start() -> Result<Self, Error> {
        let mut nodes = Vec::new();
        for _ in SLOTS {
            let node = Redis::builder()
                .kind(Kind::Node)
                .option("--cluster-node-timeout", ["2000".to_owned()])
                .option("--cluster-require-full-coverage", ["no".to_owned()]);
            nodes.push(node.start().await?);
        }
        let addrs: Vec<SocketAddr> = nodes.iter().map(Redis::addr).collect();
        let search = nodes[0].search.clone();
        wait::blocking(move || join(&search, &addrs)).await?;
        Ok(Self { nodes })
    }

    /// The nodes, in the order of their slots.
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// `redis://127.0.0.1:PORT` of each node.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }
}

fn join(search: &Search, addrs: &[SocketAddr]) -> Result<(), Error> {
    let first = addrs[0];
    for (addr, (low, high)) in addrs.iter().zip(SLOTS) {
        cli(search, *addr, None, &["CLUSTER", "ADDSLOTSRANGE", low, high])?;
        let bus = cli(search, *addr, None, &["CONFIG", "GET", "cluster-port"])?;
        let bus = bus.lines().last().unwrap_or_default().to_owned();
        let (ip, port) = (addr.ip().to_string(), addr.port().to_string());
        cli(search, first, None, &["CLUSTER", "MEET", &ip, &port, &bus])?;
    }
    let together = wait::until(wait::PATIENCE, || {
        for addr in addrs {
            let info = cli(search, *addr, None, &["CLUSTER", "INFO"])?;
            let all = ["cluster_state:ok", "cluster_known_nodes:3", "cluster_slots_ok:16384"];
            if !all.iter().all(|line| info.contains(line)) {
                return Ok(false);
            }
        }
        Ok::<_, Error>(true)
    })?;
    if together {
        return Ok(());
    }
    Err(Error::Timeout { awaited: "the nodes to come together".into(), waited: wait::PATIENCE })
}
