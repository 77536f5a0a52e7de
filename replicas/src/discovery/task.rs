//! The task that asks, and does to the set what the answers say.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::sleep;

use super::roster::{Roster, Task};
use super::{DiscoveryConfig, DiscoveryStats};
use crate::caught::caught;
use crate::shared::Shared;
use crate::{BoxError, ConfigError, Member, Replicas};

pub(super) type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where answers come from.
pub(super) trait Source<N>: Send + 'static {
    /// What tells a node from another one of the same name.
    type Address: Clone + Eq + Send;

    /// Asks once. The answer is whoever may be added; dropping the future is no harm.
    fn ask(&mut self) -> impl Future<Output = Result<Answer<Self::Address>, BoxError>> + Send;

    /// The member for a node that was found; `None` to leave it out.
    fn member(&mut self, name: &str, address: &Self::Address) -> Option<Member<N>>;
}

/// One answer.
#[derive(Debug)]
pub(super) struct Answer<A> {
    pub(super) found: BTreeMap<String, A>,
    /// Something was said that makes it worth asking the nodes themselves at once.
    pub(super) hint: bool,
}

/// The settings that all sources share.
pub(super) struct Settings {
    pub(super) config: DiscoveryConfig,
    pub(super) shutdown: Shutdown,
}

impl Default for Settings {
    fn default() -> Self {
        Self { config: DiscoveryConfig::default(), shutdown: Box::pin(pending()) }
    }
}

/// The handle of a discovery; clones share everything, and dropping them ends nothing. The discovery
/// ends when the set is dropped or its shutdown comes.
#[derive(Clone)]
pub struct Discovery {
    stats: Arc<Mutex<DiscoveryStats>>,
    asked: watch::Receiver<Asked>,
}

/// How far a discovery has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Never,
    Once,
    Ended,
}

impl Discovery {
    /// What was found so far.
    #[must_use]
    pub fn stats(&self) -> DiscoveryStats {
        *self.stats.lock()
    }

    /// Waits for the first answer that names a node, or for the end of the discovery.
    pub async fn answered(&self) {
        let _ = self.asked.clone().wait_for(|asked| *asked != Asked::Never).await;
    }

    /// Waits until the discovery has ended.
    pub async fn ended(&self) {
        // An error means that its task is gone, with the runtime.
        let _ = self.asked.clone().wait_for(|asked| *asked == Asked::Ended).await;
    }

    pub(super) fn start<N, S>(
        set: &Replicas<N>,
        source: S,
        settings: Settings,
    ) -> Result<Self, ConfigError>
    where
        N: Send + Sync + 'static,
        S: Source<N>,
    {
        let Settings { config, shutdown } = settings;
        config.validate()?;
        let runtime = Handle::try_current().map_err(|error| {
            let rule = "be started inside a tokio runtime, on which it will run";
            ConfigError::new("discovery", error.to_string(), rule)
        })?;
        let (sender, asked) = watch::channel(Asked::Never);
        let stats = Arc::<Mutex<DiscoveryStats>>::default();
        let runner = Runner {
            set: Arc::downgrade(set.shared()),
            source,
            roster: Roster::new(),
            names: BTreeMap::new(),
            config,
            stats: Arc::clone(&stats),
            asked: sender,
        };
        runtime.spawn(runner.run(shutdown));
        Ok(Self { stats, asked })
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

struct Runner<N, S: Source<N>> {
    set: Weak<Shared<N>>,
    source: S,
    roster: Roster<S::Address>,
    /// What the members call the nodes that were found; not what the source calls them.
    names: BTreeMap<String, String>,
    config: DiscoveryConfig,
    stats: Arc<Mutex<DiscoveryStats>>,
    asked: watch::Sender<Asked>,
}

impl<N: Send + Sync + 'static, S: Source<N>> Runner<N, S> {
    async fn run(mut self, shutdown: Shutdown) {
        tokio::select! {
            () = self.follow() => {}
            () = shutdown => {}
        }
        self.asked.send_replace(Asked::Ended);
    }

    /// Ends with the set, within an interval.
    async fn follow(&mut self) {
        loop {
            let answer = caught(self.source.ask()).await;
            let answer = answer.unwrap_or_else(|| Err("the caller's function panicked".into()));
            let Some(set) = self.set.upgrade() else { return };
            match answer {
                Ok(answer) if !answer.found.is_empty() => {
                    self.stats.lock().answers_total += 1;
                    self.take(&set, &answer);
                    self.asked.send_if_modified(|asked| {
                        let first = *asked == Asked::Never;
                        *asked = Asked::Once;
                        first
                    });
                }
                // A source that knows of nobody has forgotten its nodes, not lost them.
                Ok(_) => self.fail(&"an answer without any node".into()),
                Err(error) => self.fail(&error),
            }
            drop(set);
            // Somewhere in the upper half, so that many processes do not ask in step.
            sleep(self.config.interval.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    fn take(&mut self, set: &Shared<N>, answer: &Answer<S::Address>) {
        for task in self.roster.compare(&answer.found, self.config.missing_answers) {
            // One by one: a node that is refused keeps nobody else out.
            match self.perform(set, &task, &answer.found) {
                Ok(()) => {
                    self.roster.done(&task, &answer.found);
                    announce(&task);
                }
                Err(error) => {
                    self.stats.lock().refused_total += 1;
                    report(&error.into());
                }
            }
        }
        self.stats.lock().nodes = self.names.len() as u64;
        if answer.hint {
            for seat in &set.topology.load().seats {
                seat.node.kick.notify_one();
            }
        }
    }

    fn perform(
        &mut self,
        set: &Shared<N>,
        task: &Task,
        found: &BTreeMap<String, S::Address>,
    ) -> Result<(), ConfigError> {
        let (key, removed) = match task {
            Task::Add(key) => (key, None),
            Task::Replace(key) | Task::Remove(key) => (key, self.names.get(key).cloned()),
        };
        let member = match (task, found.get(key)) {
            (Task::Add(_) | Task::Replace(_), Some(address)) => self.make(key, address),
            _ => None,
        };
        let name = member.as_ref().map(|member| member.name.clone());
        set.change(|members| {
            if let Some(removed) = &removed {
                // Its user may have removed it before.
                let _ = members.remove(removed);
            }
            member.map_or(Ok(()), |member| members.add(member))
        })?;
        let mut stats = self.stats.lock();
        stats.added_total += u64::from(name.is_some());
        stats.removed_total += u64::from(removed.is_some());
        match name {
            Some(name) => drop(self.names.insert(key.clone(), name)),
            None => drop(self.names.remove(key)),
        }
        Ok(())
    }

    /// A panic in the caller's function leaves the node out; it must not end the task.
    fn make(&mut self, key: &str, address: &S::Address) -> Option<Member<N>> {
        catch_unwind(AssertUnwindSafe(|| self.source.member(key, address))).ok().flatten()
    }

    fn fail(&self, error: &BoxError) {
        self.stats.lock().failures_total += 1;
        report(error);
    }
}

#[cfg(feature = "tracing")]
fn announce(task: &Task) {
    match task {
        Task::Add(node) => tracing::info!(node, "node found"),
        Task::Replace(node) => tracing::info!(node, "node found at another address"),
        Task::Remove(node) => tracing::info!(node, "node no longer found"),
    }
}

#[cfg(not(feature = "tracing"))]
fn announce(_: &Task) {}

#[cfg(feature = "tracing")]
fn report(error: &BoxError) {
    tracing::warn!(error = %error, "discovery failed");
}

#[cfg(not(feature = "tracing"))]
fn report(_: &BoxError) {}
