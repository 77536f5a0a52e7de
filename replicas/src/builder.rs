//! How a set is put together and checked.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::health::Policy;
use crate::member::check_set;
use crate::probe::Probe;
use crate::shared::Shared;
use crate::{BoxError, ConfigError, Member, Replicas, ReplicasConfig, Selection, Strategy};

/// Collects nodes and settings; [`build`](Self::build) checks them.
#[must_use = "a builder does nothing before `build`"]
pub struct ReplicasBuilder<N> {
    members: Vec<Member<N>>,
    selection: Selection,
    config: ReplicasConfig,
    probe: Option<Probe<N>>,
}

impl<N> ReplicasBuilder<N> {
    pub(crate) fn new() -> Self {
        Self {
            members: Vec::new(),
            selection: Strategy::default().into(),
            config: ReplicasConfig::default(),
            probe: None,
        }
    }

    /// Adds a replica: the short form of [`member`](Self::member) for one with a name and a weight.
    pub fn replica(self, name: impl Into<String>, weight: u32, node: N) -> Self {
        self.member(Member::replica(name, node).weight(weight))
    }

    /// Adds a node.
    pub fn member(mut self, member: Member<N>) -> Self {
        self.members.push(member);
        self
    }

    /// How reads are spread: a [`Strategy`], or a [`Balancer`](crate::Balancer) in an `Arc`.
    /// [`Strategy::LeastLoaded`] if not said.
    pub fn strategy(mut self, strategy: impl Into<Selection>) -> Self {
        self.selection = strategy.into();
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
        let policy = Policy::new(self.config, self.probe.is_some());
        let shared = Shared::new(self.members, self.selection, policy, self.probe.zip(runtime));
        shared.watch_all();
        Ok(Replicas::from_shared(shared))
    }

    fn validate_nodes(&self) -> Result<(), ConfigError> {
        check_set(self.members.iter().map(|member| member.role))?;
        let mut names = HashSet::new();
        for (position, member) in self.members.iter().enumerate() {
            let field = format!("member[{position}]");
            member.validate(&field)?;
            if !names.insert(&member.name) {
                let rule = "differ from every other node's name";
                return Err(ConfigError::new(format!("{field}.name"), &member.name, rule));
            }
        }
        Ok(())
    }
}

impl<N> fmt::Debug for ReplicasBuilder<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicasBuilder")
            .field("members", &self.members)
            .field("strategy", &self.selection)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
