//! How a set is put together and checked.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::health::Policy;
use crate::node::Node;
use crate::probe::{self, Probe};
use crate::select::MAX_NODES;
use crate::shared::Shared;
use crate::{BoxError, ConfigError, Replicas, ReplicasConfig, Role, Strategy};

/// The primary's name in picks and statistics.
const PRIMARY: &str = "primary";
/// Far above any useful ratio; it bounds the table of turns.
const MAX_WEIGHT: u32 = 1_000;
/// Names become metric labels.
const MAX_NAME: usize = 64;

/// Collects nodes and settings; [`build`](Self::build) checks them.
#[must_use = "a builder does nothing before `build`"]
pub struct ReplicasBuilder<N> {
    primary: Option<N>,
    replicas: Vec<(String, u32, N)>,
    strategy: Strategy,
    config: ReplicasConfig,
    probe: Option<Probe<N>>,
}

impl<N> ReplicasBuilder<N> {
    pub(crate) fn new(primary: Option<N>) -> Self {
        Self {
            primary,
            replicas: Vec::new(),
            strategy: Strategy::default(),
            config: ReplicasConfig::default(),
            probe: None,
        }
    }

    /// Adds a replica that takes reads in proportion to its weight, 1 to 1,000. Its name appears in
    /// picks and statistics: 1 to 64 bytes, no control characters, not taken.
    pub fn replica(mut self, name: impl Into<String>, weight: u32, node: N) -> Self {
        self.replicas.push((name.into(), weight, node));
        self
    }

    /// How reads are spread; [`Strategy::LeastLoaded`] if not said.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// The figures of health checking; [`ReplicasConfig::default`] if not said.
    pub fn config(mut self, config: ReplicasConfig) -> Self {
        self.config = config;
        self
    }

    /// Asks each node every [`health_interval`](ReplicasConfig::health_interval) whether it is
    /// well, in a background task per node that ends with the set. Give the probe a connection of
    /// its own, not one of a pool that load may exhaust.
    ///
    /// With a probe, an ejected node returns by one probe that succeeds after its time is up.
    /// Without, one request at a time is risked on it.
    pub fn probe<P, F>(mut self, probe: P) -> Self
    where
        N: Clone,
        P: Fn(N) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.probe = Some(Arc::new(move |node: &N| Box::pin(probe(node.clone()))));
        self
    }

    /// Checks everything and starts the probes.
    ///
    /// # Errors
    /// The first setting that breaks its rule: a figure of the configuration, no node at all or
    /// more than 64, a name or a weight out of bounds, a name given twice, a probe outside of
    /// a tokio runtime.
    pub fn build(self) -> Result<Replicas<N>, ConfigError>
    where
        N: Send + Sync + 'static,
    {
        self.config.validate()?;
        self.validate_nodes()?;
        let runtime = match &self.probe {
            Some(_) => Some(tokio::runtime::Handle::try_current().map_err(|error| {
                let rule = "be built inside a tokio runtime, on which it will run";
                ConfigError::new("probe", error.to_string(), rule)
            })?),
            None => None,
        };
        let now = Instant::now();
        let primary = self.primary.map(|node| (PRIMARY.to_owned(), Role::Primary, 1, node));
        let replicas = self.replicas.into_iter();
        let replicas = replicas.map(|(name, weight, node)| (name, Role::Replica, weight, node));
        let nodes = primary.into_iter().chain(replicas);
        let nodes =
            nodes.map(|(name, role, weight, node)| Node::new(node, name, role, weight, now));
        let policy = Policy { config: self.config, probed: self.probe.is_some() };
        let shared = Shared::new(nodes.collect(), self.strategy, policy);
        if let (Some(probe), Some(runtime)) = (self.probe, runtime) {
            probe::spawn_all(&shared, &probe, &runtime);
        }
        Ok(Replicas::from_shared(shared))
    }

    fn validate_nodes(&self) -> Result<(), ConfigError> {
        let count = self.replicas.len() + usize::from(self.primary.is_some());
        if count == 0 || count > MAX_NODES {
            let rule = "be from 1 to 64, the primary included";
            return Err(ConfigError::new("number of nodes", count.to_string(), rule));
        }
        let mut names: HashSet<&str> = self.primary.iter().map(|_| PRIMARY).collect();
        for (position, (name, weight, _)) in self.replicas.iter().enumerate() {
            let field = |part| format!("replica[{position}].{part}");
            if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
                let rule = "have 1 to 64 bytes and no control characters";
                return Err(ConfigError::new(field("name"), name, rule));
            }
            if !names.insert(name) {
                let rule = "differ from every other node's name";
                return Err(ConfigError::new(field("name"), name, rule));
            }
            if !(1..=MAX_WEIGHT).contains(weight) {
                let rule = "be from 1 to 1000; leave the replica out to give it nothing";
                return Err(ConfigError::new(field("weight"), weight.to_string(), rule));
            }
        }
        Ok(())
    }
}

impl<N> fmt::Debug for ReplicasBuilder<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names, not nodes: those may hold a password.
        let names = self.replicas.iter().map(|(name, ..)| name.as_str());
        f.debug_struct("ReplicasBuilder")
            .field("replicas", &names.collect::<Vec<_>>())
            .field("strategy", &self.strategy)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
