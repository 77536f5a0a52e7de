//! Whoever carries out commands: one server (perhaps one of several in turn), or a cluster.

use std::collections::HashSet;
use std::sync::Arc;

use ::redis::cluster_async::ClusterConnection;
use ::redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use ::redis::{Cmd, FromRedisValue, RedisError, Value};

use super::link::Link;

pub(super) enum Server {
    One(Arc<Link>),
    Cluster(ClusterConnection),
}

/// A part of the keys: all of one server's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Share {
    All,
    Node { host: String, port: u16 },
}

impl Server {
    /// Sends a command to whoever holds its keys; in a cluster, one with several keys to each of
    /// their holders, and joins the answers.
    pub(super) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        match self {
            Self::One(link) => link.query(command).await,
            Self::Cluster(cluster) => command.query_async(&mut cluster.clone()).await,
        }
    }

    /// Sends a command without keys to the holder of a share.
    pub(super) async fn query_share<T: FromRedisValue>(
        &self,
        share: &Share,
        command: &Cmd,
    ) -> Result<T, RedisError> {
        match (self, share) {
            (Self::Cluster(cluster), Share::Node { host, port }) => {
                let node = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port };
                let routing = RoutingInfo::SingleNode(node);
                let answer = cluster.clone().route_command(command.clone(), routing).await?;
                Ok(::redis::from_redis_value(answer)?)
            }
            _ => self.query(command).await,
        }
    }

    /// The shares that together hold all keys.
    pub(super) async fn shares(&self) -> Result<Vec<Share>, RedisError> {
        let Self::Cluster(cluster) = self else { return Ok(vec![Share::All]) };
        let mut slots = ::redis::cmd("CLUSTER");
        let slots: Value = slots.arg("SLOTS").query_async(&mut cluster.clone()).await?;
        let ranges: Vec<Vec<Value>> = ::redis::from_redis_value(slots)?;
        let mut shares = HashSet::new();
        for range in ranges {
            // First and last slot, then the nodes, the primary first.
            let Some(Value::Array(primary)) = range.into_iter().nth(2) else { continue };
            let mut primary = primary.into_iter();
            let (Some(host), Some(port)) = (primary.next(), primary.next()) else { continue };
            let (host, port) = (::redis::from_redis_value(host)?, ::redis::from_redis_value(port)?);
            shares.insert(Share::Node { host, port });
        }
        Ok(shares.into_iter().collect())
    }
}
