//! The monitor as its user sees it: how it is set up and started, and what it knows.

use std::fmt;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_postgres::Client;

use super::desk::{Desk, Phase};
use super::supervisor::Supervisor;
use super::{Event, MonitorConfig, MonitorStats};
use crate::{BoxError, ConfigError, Replicas};

/// How the monitor's own connections are made; once per attempt, so a box costs nothing.
pub(super) type Connect<N> = Arc<dyn Fn(&str, &N) -> Connecting + Send + Sync>;
pub(super) type Connecting = Pin<Box<dyn Future<Output = Result<Client, BoxError>> + Send>>;
pub(super) type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;
pub(super) type Hook = Arc<dyn Fn(&Event) + Send + Sync>;

/// Watches the PostgreSQL servers behind a set and tells the set who is the primary, who may be
/// read from, and who is well.
///
/// This is the handle; clones share everything, and dropping them ends nothing. The monitor ends
/// when the set is dropped or the [shutdown](MonitorBuilder::shutdown) comes.
#[derive(Clone)]
pub struct Monitor {
    desk: Arc<Desk>,
    phase: watch::Receiver<Phase>,
}

impl Monitor {
    /// A monitor that reaches a node as `connect` says: it is given the node's name and the node,
    /// and connects to that server and no other, past any pool or balancer in between. It is called
    /// again when a connection is lost, and its future is dropped when the
    /// [time](MonitorConfig::connect_timeout) is up; an error or a panic is a failed attempt.
    /// [`connect`](super::connect) does the rest for plain cases.
    pub fn builder<N, C, F>(connect: C) -> MonitorBuilder<N>
    where
        C: Fn(&str, &N) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Client, BoxError>> + Send + 'static,
    {
        MonitorBuilder {
            connect: Arc::new(move |name, node| Box::pin(connect(name, node))),
            config: MonitorConfig::default(),
            hook: None,
            shutdown: Box::pin(pending()),
        }
    }

    /// Waits until it is decided who is what, as far as can be known: milliseconds if all servers
    /// answer, [`settle_timeout`](MonitorConfig::settle_timeout) after the first if some do not, and
    /// if none does within that time, until then. Before the decision the set has no node for
    /// anybody.
    pub async fn settled(&self) {
        // The other end lives in the desk, which we hold.
        let _ = self.phase.clone().wait_for(|phase| *phase != Phase::Settling).await;
    }

    /// Waits until the monitor has ended.
    pub async fn ended(&self) {
        let _ = self.phase.clone().wait_for(|phase| *phase == Phase::Ended).await;
    }

    /// The cluster's `system_identifier`, once it is known.
    #[must_use]
    pub fn system(&self) -> Option<u64> {
        self.desk.system()
    }

    /// What is known at this moment.
    #[must_use]
    pub fn stats(&self) -> MonitorStats {
        self.desk.stats()
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("phase", &*self.phase.borrow()).finish_non_exhaustive()
    }
}

/// Collects the settings of a [`Monitor`]; [`start`](Self::start) checks them.
#[must_use = "a monitor does nothing before `start`"]
pub struct MonitorBuilder<N> {
    connect: Connect<N>,
    config: MonitorConfig,
    hook: Option<Hook>,
    shutdown: Shutdown,
}

impl<N: Send + Sync + 'static> MonitorBuilder<N> {
    /// The figures; [`MonitorConfig::default`] if not said.
    pub fn config(mut self, config: MonitorConfig) -> Self {
        self.config = config;
        self
    }

    /// Is told of every [`Event`], apart from locks, on the task that found out. It must not block.
    /// A panic in it is caught.
    pub fn on_event(mut self, hook: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// Ends the monitor when this future does. The set keeps what it was told last.
    pub fn shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = Box::pin(signal);
        self
    }

    /// Starts watching all nodes of a set, also those that join it later.
    ///
    /// From here on the servers' own word decides: every node has the role `None` until the monitor
    /// has [settled](Monitor::settled), whatever it was declared as. What the set was built with
    /// as its primary only helps to tell which system is meant. The monitor also takes the place
    /// of a [probe](crate::ReplicasBuilder::probe): a question that fails is a probe that fails, but
    /// for a server that has no connection left (53300), which is full and not sick.
    ///
    /// # Errors
    /// A figure that breaks its rule; a set that has a monitor already; outside of a tokio runtime.
    pub fn start(self, set: &Replicas<N>) -> Result<Monitor, ConfigError> {
        self.config.validate()?;
        let runtime = Handle::try_current().map_err(|error| {
            let rule = "be started inside a tokio runtime, on which it will run";
            ConfigError::new("monitor", error.to_string(), rule)
        })?;
        let Self { connect, config, hook, shutdown } = self;
        let shared = set.shared();
        let Some(declared) = shared.begin_monitoring() else {
            return Err(ConfigError::new("monitor", "a second one", "be the only one of its set"));
        };
        let desk = Arc::new(Desk::new(&config, declared.as_deref(), hook));
        let phase = desk.phase();
        let supervisor = Supervisor::new(shared, &desk, connect, config);
        runtime.spawn(supervisor.run(shutdown));
        Ok(Monitor { desk, phase })
    }
}

impl<N> fmt::Debug for MonitorBuilder<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitorBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Tells of events, one after the other.
pub(super) fn tell(hook: Option<&Hook>, events: &[Event]) {
    for event in events {
        super::event::log(event);
        if let Some(hook) = hook {
            // The caller's panic must not end the task that watches a server.
            let _ = catch_unwind(AssertUnwindSafe(|| hook(event)));
        }
    }
}
