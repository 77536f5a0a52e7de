//! Nodes by the members of a Patroni cluster.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

use super::task::{Answer, Settings, Source};
use super::{Discovery, DiscoveryConfig};
use crate::{BoxError, ConfigError, Member, Replicas};

/// A member takes some 200 bytes; a set has 64 nodes at most.
const MAX_BODY: usize = 256 * 1024;

type Fetch = Arc<dyn Fn(String) -> Fetching + Send + Sync>;
type Fetching = Pin<Box<dyn Future<Output = Result<Bytes, BoxError>> + Send>>;

/// Follows the members of a Patroni cluster by `GET /cluster`.
///
/// Patroni's word on who leads is only a hint, on which the servers themselves are asked at once:
/// it is some seconds old. So this is to be used with a [`Monitor`](crate::postgres::Monitor).
#[must_use = "a discovery does nothing before `start`"]
pub struct Patroni<M> {
    endpoints: Vec<String>,
    fetch: Fetch,
    member: M,
    settings: Settings,
}

/// A member as Patroni describes it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[non_exhaustive]
pub struct PatroniMember {
    /// Its name, unique in its cluster.
    pub name: String,
    /// Where its PostgreSQL is reached.
    pub host: String,
    /// The same.
    pub port: u16,
    /// `leader`, `replica`, `sync_standby`, `standby_leader`, ..
    #[serde(default)]
    pub role: String,
    /// `running`, `streaming`, `stopped`, `starting`, ..
    #[serde(default)]
    pub state: String,
    /// Its timeline, if it runs.
    #[serde(default)]
    pub timeline: Option<u32>,
    /// Its tags that matter to a router.
    #[serde(default)]
    pub tags: PatroniTags,
}

/// Some of a member's tags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[non_exhaustive]
pub struct PatroniTags {
    /// Its owner wants no reads on it.
    #[serde(default)]
    pub noloadbalance: bool,
}

/// What a node is made from: with another one it is another node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
    tags: PatroniTags,
}

impl PatroniMember {
    fn address(&self) -> Address {
        Address { host: self.host.clone(), port: self.port, tags: self.tags }
    }

    fn leads(&self) -> bool {
        // As it was called until Patroni 4.
        matches!(self.role.as_str(), "leader" | "master" | "standby_leader")
    }

    /// One that does not run yet is no node yet; one that was a node stays it, and its monitor says
    /// how it is.
    fn runs(&self) -> bool {
        matches!(self.state.as_str(), "running" | "streaming" | "in archive recovery")
    }
}

/// What `GET /cluster` answers, as far as it matters.
#[derive(Debug, serde::Deserialize)]
struct Cluster {
    members: Vec<serde_json::Value>,
}

impl<M> Patroni<M> {
    /// Asks these REST interfaces, such as `http://10.0.0.1:8008`, one after the other until one
    /// answers; give those of several members. `member` makes a node's member of what Patroni says, or
    /// `None` to leave it out. It is asked again when the member has another address or other tags; the
    /// node that it was drains then, and what is made takes its place.
    pub fn new<N>(endpoints: impl IntoIterator<Item = impl Into<String>>, member: M) -> Self
    where
        M: FnMut(&PatroniMember) -> Option<Member<N>> + Send + 'static,
    {
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let fetch = move |url| Box::pin(get(client.clone(), url)) as Fetching;
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            fetch: Arc::new(fetch),
            member,
            settings: Settings::default(),
        }
    }

    /// Fetches a URL by a function of one's own: with TLS, or with a password. Its future is dropped
    /// when the [time](DiscoveryConfig::timeout) is up; it should bound what it reads.
    pub fn fetch_with<F, R>(mut self, fetch: F) -> Self
    where
        F: Fn(String) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Bytes, BoxError>> + Send + 'static,
    {
        self.fetch = Arc::new(move |url| Box::pin(fetch(url)));
        self
    }

    /// The figures; [`DiscoveryConfig::default`] if not said.
    pub fn config(mut self, config: DiscoveryConfig) -> Self {
        self.settings.config = config;
        self
    }

    /// Ends the discovery when this future does. The set keeps its nodes.
    pub fn shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.settings.shutdown = Box::pin(signal);
        self
    }

    /// Starts following.
    ///
    /// # Errors
    /// No endpoint; a figure that breaks its rule; outside of a tokio runtime.
    pub fn start<N>(self, set: &Replicas<N>) -> Result<Discovery, ConfigError>
    where
        N: Send + Sync + 'static,
        M: FnMut(&PatroniMember) -> Option<Member<N>> + Send + 'static,
    {
        let Self { endpoints, fetch, member, settings } = self;
        if endpoints.is_empty() {
            return Err(ConfigError::new("endpoints", "none", "be at least one"));
        }
        let limit = settings.config.timeout;
        let source = PatroniSource {
            endpoints,
            at: 0,
            fetch,
            member,
            limit,
            leader: None,
            seen: BTreeMap::new(),
        };
        Discovery::start(set, source, settings)
    }
}

impl<M> fmt::Debug for Patroni<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the endpoints: they may hold a password.
        f.debug_struct("Patroni").field("config", &self.settings.config).finish_non_exhaustive()
    }
}

struct PatroniSource<M> {
    endpoints: Vec<String>,
    /// The one that answered last.
    at: usize,
    fetch: Fetch,
    member: M,
    limit: Duration,
    leader: Option<String>,
    /// By name, those that ran at least once since they were first told of, at this address.
    seen: BTreeMap<String, PatroniMember>,
}

impl<M> PatroniSource<M> {
    async fn fetch(&mut self) -> Result<Vec<PatroniMember>, BoxError> {
        let mut last = BoxError::from("no endpoint");
        for _ in 0..self.endpoints.len() {
            let url = format!("{}/cluster", self.endpoints[self.at].trim_end_matches('/'));
            let result = match timeout(self.limit, (self.fetch)(url)).await {
                Ok(result) => result.and_then(|body| read(&body)),
                Err(elapsed) => Err(elapsed.into()),
            };
            match result {
                Ok(members) => return Ok(members),
                Err(error) => last = error,
            }
            self.at = (self.at + 1) % self.endpoints.len();
        }
        Err(last)
    }

    /// What of an answer concerns the set.
    fn digest(&mut self, members: Vec<PatroniMember>) -> Answer<Address> {
        let leader = members.iter().find(|member| member.leads()).map(|m| m.name.clone());
        // Without a leader there is an election: whoever wins is seen by its own word.
        let hint = leader != self.leader;
        self.leader = leader;
        let mut found = BTreeMap::new();
        for member in members {
            let was_node = self
                .seen
                .get(&member.name)
                .is_some_and(|seen| (&seen.host, seen.port) == (&member.host, member.port));
            if was_node || member.runs() {
                found.insert(member.name.clone(), member.address());
                self.seen.insert(member.name.clone(), member);
            }
        }
        self.seen.retain(|name, _| found.contains_key(name));
        Answer { found, hint }
    }
}

impl<N, M> Source<N> for PatroniSource<M>
where
    N: Send + Sync + 'static,
    M: FnMut(&PatroniMember) -> Option<Member<N>> + Send + 'static,
{
    type Address = Address;

    async fn ask(&mut self) -> Result<Answer<Address>, BoxError> {
        let members = self.fetch().await?;
        Ok(self.digest(members))
    }

    fn member(&mut self, name: &str, _: &Address) -> Option<Member<N>> {
        (self.member)(self.seen.get(name)?)
    }
}

/// Reads an answer. A member that is not described well enough to be reached is left out.
fn read(body: &[u8]) -> Result<Vec<PatroniMember>, BoxError> {
    let cluster: Cluster = serde_json::from_slice(body)?;
    let members = cluster.members.into_iter();
    Ok(members.filter_map(|member| serde_json::from_value(member).ok()).collect())
}

async fn get(client: Client<HttpConnector, Empty<Bytes>>, url: String) -> Result<Bytes, BoxError> {
    let response = client.get(url.parse()?).await?;
    if !response.status().is_success() {
        return Err(format!("the answer is {}", response.status()).into());
    }
    Ok(Limited::new(response.into_body(), MAX_BODY).collect().await?.to_bytes())
}

#[cfg(test)]
mod tests;
