//! Nodes by the addresses of a name.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::net::lookup_host;
use tokio::time::timeout;

use super::task::{Answer, Settings, Source};
use super::{Discovery, DiscoveryConfig};
use crate::{BoxError, ConfigError, Member, Replicas};

type Lookup = Box<dyn Fn() -> Resolving + Send + Sync>;
type Resolving = Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>>;

/// Follows the addresses of a DNS name: each is a node.
///
/// The name is looked up by the system's resolver again and again, whatever the records' time to
/// live. Nodes of the set that it has not added are left alone.
///
/// ```
/// # use escala_replicas::{Member, Replicas};
/// use escala_replicas::discovery::Dns;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let set = Replicas::builder("db-0.internal:5432".to_owned()).build()?;
/// let replica = |addr| Member::replica(format!("{addr}"), format!("{addr}"));
/// let discovery = Dns::new("localhost:5432", replica).start(&set)?;
/// discovery.answered().await;
/// assert!(discovery.stats().added_total > 0);
/// # Ok(())
/// # }
/// ```
#[must_use = "a discovery does nothing before `start`"]
pub struct Dns<M> {
    lookup: Lookup,
    member: M,
    settings: Settings,
}

impl<M> Dns<M> {
    /// Follows `host:port`; `member` makes a node's member of its address. It may give it any name,
    /// but to each address another one.
    pub fn new<N>(host_and_port: impl Into<String>, member: M) -> Self
    where
        M: FnMut(SocketAddr) -> Member<N> + Send + 'static,
    {
        let name = host_and_port.into();
        Self::with_resolver(
            move || {
                let name = name.clone();
                async move { Ok(lookup_host(name).await?.collect()) }
            },
            member,
        )
    }

    /// Follows what a resolver of one's own says.
    pub fn with_resolver<N, R, F>(resolver: R, member: M) -> Self
    where
        M: FnMut(SocketAddr) -> Member<N> + Send + 'static,
        R: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = std::io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        let lookup = Box::new(move || Box::pin(resolver()) as Resolving);
        Self { lookup, member, settings: Settings::default() }
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
    /// A figure that breaks its rule; outside of a tokio runtime.
    pub fn start<N>(self, set: &Replicas<N>) -> Result<Discovery, ConfigError>
    where
        N: Send + Sync + 'static,
        M: FnMut(SocketAddr) -> Member<N> + Send + 'static,
    {
        let Self { lookup, member, settings } = self;
        let source = DnsSource { lookup, member, limit: settings.config.timeout };
        Discovery::start(set, source, settings)
    }
}

impl<M> fmt::Debug for Dns<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").field("config", &self.settings.config).finish_non_exhaustive()
    }
}

struct DnsSource<M> {
    lookup: Lookup,
    member: M,
    limit: std::time::Duration,
}

impl<N, M> Source<N> for DnsSource<M>
where
    N: Send + Sync + 'static,
    M: FnMut(SocketAddr) -> Member<N> + Send + 'static,
{
    type Address = SocketAddr;

    async fn ask(&mut self) -> Result<Answer<SocketAddr>, BoxError> {
        let found = timeout(self.limit, (self.lookup)()).await??;
        let found: BTreeMap<_, _> =
            found.into_iter().map(|addr| (addr.to_string(), addr)).collect();
        Ok(Answer { found, hint: false })
    }

    fn member(&mut self, _: &str, address: &SocketAddr) -> Option<Member<N>> {
        Some((self.member)(*address))
    }
}
