//! The tasks: one per node that asks it, and one that starts them as nodes come.

use std::collections::BTreeMap;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::MonitorConfig;
use super::desk::{Desk, Report};
use super::monitor::{Connect, Shutdown};
use super::roles::Name;
use super::sample::{self, Sample};
use crate::BoxError;
use crate::caught::caught;
use crate::node::{Node, Notice};
use crate::shared::Shared;

/// Questions on demand are at least so far apart: who waits for a position sees it within a round
/// trip and this, and no number of them can make a server answer more than 500 a second.
const KICK_PAUSE: Duration = Duration::from_millis(2);

/// The same after a failure: a connection costs a server a process.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Failed attempts that are closer count as one failed probe.
const FAILURE_SPACING: Duration = Duration::from_millis(500);

/// Where the growth of pauses after failures ends: that late it is noticed that a server is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// So long after the connection was lost, at most, it is noticed: the server may have crashed, and show
/// less than it did.
const LOOK: Duration = Duration::from_millis(50);

/// Starts a task for every node that joins the set.
pub(super) struct Supervisor<N> {
    set: Weak<Shared<N>>,
    /// Told when nodes come or go.
    changed: Arc<Notify>,
    desk: Arc<Desk>,
    connect: Connect<N>,
    config: Arc<MonitorConfig>,
}

impl<N: Send + Sync + 'static> Supervisor<N> {
    pub(super) fn new(
        set: &Arc<Shared<N>>,
        desk: &Arc<Desk>,
        connect: Connect<N>,
        config: MonitorConfig,
    ) -> Self {
        Self {
            set: Arc::downgrade(set),
            changed: Arc::clone(&set.members_changed),
            desk: Arc::clone(desk),
            connect,
            config: Arc::new(config),
        }
    }

    /// Ends with the set or by the signal, and all node tasks with it.
    pub(super) async fn run(self, shutdown: Shutdown) {
        let end = EndOnDrop { desk: Arc::clone(&self.desk), set: Weak::clone(&self.set) };
        tokio::select! {
            () = self.supervise() => {}
            () = shutdown => {}
        }
        drop(end);
    }

    async fn supervise(self) {
        let mut tasks = JoinSet::new();
        let mut known = BTreeMap::new();
        let patience = self.config.settle_timeout;
        let mut settle_at = Some(Instant::now() + patience);
        loop {
            {
                let Some(set) = self.set.upgrade() else { return };
                known = self.seat(&set, &known, &mut tasks);
            }
            tokio::select! {
                () = self.changed.notified() => {}
                // One that ended by itself: its node was removed, or the set is gone.
                Some(_) = tasks.join_next() => {}
                () = at(settle_at) => {
                    let Some(set) = self.set.upgrade() else { return };
                    settle_at = self.desk.settle(&set, patience);
                }
            }
        }
    }

    /// Takes in who is there, and starts a task for each that is new.
    fn seat(
        &self,
        set: &Shared<N>,
        known: &BTreeMap<Name, u64>,
        tasks: &mut JoinSet<()>,
    ) -> BTreeMap<Name, u64> {
        let topology = set.topology.load_full();
        let nodes = topology.seats.iter().map(|seat| &seat.node);
        let seats: BTreeMap<Name, u64> =
            nodes.clone().map(|node| (Name::from(node.name.as_str()), node.id)).collect();
        self.desk.seat(set, &seats);
        for node in nodes {
            let name = Name::from(node.name.as_str());
            if known.get(&name) != Some(&node.id) {
                tasks.spawn(self.watcher(name, node).run());
            }
        }
        seats
    }

    fn watcher(&self, name: Name, node: &Arc<Node<N>>) -> Watcher<N> {
        Watcher {
            name,
            id: node.id,
            kick: Arc::clone(&node.kick),
            notice: node.notice.subscribe(),
            set: Weak::clone(&self.set),
            node: Arc::downgrade(node),
            desk: Arc::clone(&self.desk),
            connect: Arc::clone(&self.connect),
            config: Arc::clone(&self.config),
            client: None,
            failed_at: None,
        }
    }
}

/// Says that the monitor has ended, also when its task is aborted with the runtime.
struct EndOnDrop<N> {
    desk: Arc<Desk>,
    set: Weak<Shared<N>>,
}

impl<N> Drop for EndOnDrop<N> {
    fn drop(&mut self) {
        if let Some(set) = self.set.upgrade() {
            set.end_monitoring();
        }
        self.desk.end();
    }
}

/// Asks one node, again and again, on a connection of its own.
struct Watcher<N> {
    name: Name,
    id: u64,
    kick: Arc<Notify>,
    /// Closes when the node is dropped, which ends the task, as its removal does.
    notice: watch::Receiver<Notice>,
    set: Weak<Shared<N>>,
    node: Weak<Node<N>>,
    desk: Arc<Desk>,
    connect: Connect<N>,
    config: Arc<MonitorConfig>,
    client: Option<Client>,
    /// When a failure last counted as a failed probe.
    failed_at: Option<Instant>,
}

impl<N> Watcher<N> {
    async fn run(mut self) {
        let mut notice = self.notice.clone();
        tokio::select! {
            () = self.watch() => {}
            // An error means that the node was dropped.
            _ = notice.wait_for(|notice| notice.removed) => {}
        }
    }

    async fn watch(&mut self) {
        let mut failures = 0_u32;
        loop {
            let Some(report) = self.ask().await else { return };
            let answers = report.result.is_ok();
            failures = if answers { 0 } else { failures.saturating_add(1) };
            {
                let (Some(set), Some(node)) = (self.set.upgrade(), self.node.upgrade()) else {
                    return;
                };
                let counts = match &report.result {
                    Ok(_) => true,
                    Err(error) => !is_for_want_of_room(error.as_ref()) && self.counts_as_failure(),
                };
                if counts {
                    node.probed(answers);
                }
                self.desk.report(&set, &self.name, self.id, &report);
            }
            let now = Instant::now();
            let (longest, on_demand) = match failures {
                0 => (self.desk.interval(&self.name, &self.config), KICK_PAUSE),
                _ => (pause_after(failures), RETRY_PAUSE),
            };
            // Somewhere in the upper half, so that many processes do not ask in step.
            let pause = longest.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::select! {
                () = self.rest(pause) => {}
                () = self.kick.notified() => sleep_until(now + on_demand).await,
            }
        }
    }

    /// Ends early when the connection is lost.
    async fn rest(&self, pause: Duration) {
        let end = Instant::now() + pause;
        loop {
            let now = Instant::now();
            if now >= end {
                return;
            }
            sleep_until(end.min(now + LOOK)).await;
            if self.client.as_ref().is_some_and(Client::is_closed) {
                if let Some(set) = self.set.upgrade() {
                    set.forget_node(self.id);
                }
                return;
            }
        }
    }

    /// Failures in quick succession are one failed probe: a server that restarts within a second is
    /// not to be ejected for half a minute.
    fn counts_as_failure(&mut self) -> bool {
        let now = Instant::now();
        let recent = self.failed_at.is_some_and(|at| now - at < FAILURE_SPACING);
        if !recent {
            self.failed_at = Some(now);
        }
        !recent
    }

    /// One question; `None` once the node is gone.
    async fn ask(&mut self) -> Option<Report> {
        let connected = self.client().await?;
        let asked = Instant::now();
        let result = match connected {
            Ok(client) => {
                question(&client, self.config.sample_timeout).await.map(|sample| (client, sample))
            }
            Err(error) => Err(error),
        };
        // A connection that failed is not used again: its next answer might be to this question.
        let result = result.map(|(client, sample)| {
            self.client = Some(client);
            sample
        });
        Some(Report { asked, result })
    }

    /// The connection, made anew if it is lost; `None` once the node is gone.
    async fn client(&mut self) -> Option<Result<Client, BoxError>> {
        if let Some(client) = self.client.take().filter(|client| !client.is_closed()) {
            return Some(Ok(client));
        }
        // A panic in the caller's function is a failed attempt; it must not end the task, for then
        // the node would never be asked again.
        let started = {
            let node = self.node.upgrade()?;
            catch_unwind(AssertUnwindSafe(|| (self.connect)(&self.name, &node.value)))
        };
        let limit = self.config.connect_timeout;
        let connected = match started {
            Ok(connecting) => timeout(limit, caught(connecting)).await,
            Err(_) => Ok(None),
        };
        Some(match connected {
            Ok(Some(result)) => result,
            Ok(None) => Err("the connect function panicked".into()),
            Err(_) => Err(format!("no connection within {limit:?}").into()),
        })
    }
}

/// Whether the server answers, but has no connection left. It serves those that it has, so its
/// health is left to them; with one node out, its load would fill the next one. A server that starts
/// or stops says something else, and fails requests as it fails the question.
fn is_for_want_of_room(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|error| {
        let error = error.downcast_ref::<tokio_postgres::Error>();
        error.and_then(|error| error.code()) == Some(&SqlState::TOO_MANY_CONNECTIONS)
    })
}

async fn question(client: &Client, limit: Duration) -> Result<Sample, BoxError> {
    match timeout(limit, sample::ask(client)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {limit:?}").into()),
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// The longest pause after the `failures`-th failure in a row.
fn pause_after(failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(10));
    (RETRY_PAUSE * 2 * doubled).min(LONGEST_PAUSE)
}
