//! The cluster as a test sees it: its nodes, and what can be done to them.

use std::sync::Arc;

use rustix::process::Signal;

use crate::Error;
use crate::postgres::builder::{PgBuilder, for_each};
use crate::postgres::node::PgNode;
use crate::run_dir::RunDir;
use crate::wait;

/// How a walreceiver calls itself in the list of processes.
const WALRECEIVER: &str = "walreceiver";

/// A PostgreSQL primary and its streaming standbys on free loopback ports.
///
/// Nodes keep their names whatever their role becomes: [`primary`](Self::primary) is the node
/// that was the primary at the start, also after a standby has been promoted.
///
/// Dropping the cluster ends all nodes, frozen ones too, and removes their data.
///
/// # Panics
/// Methods panic when there is no standby of the number they are given, or when the node they
/// are given belongs to another cluster.
#[derive(Debug)]
pub struct PgCluster {
    cluster: Arc<Cluster>,
}

/// The nodes and their folder; the nodes are ended before the folder goes.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<PgNode>,
    pub(crate) dir: RunDir,
}

impl PgCluster {
    /// Starts a primary and `standbys` standbys with the default settings.
    ///
    /// # Errors
    /// See [`PgBuilder::start`].
    pub async fn start(standbys: usize) -> Result<Self, Error> {
        Self::builder().standbys(standbys).start().await
    }

    /// Options for a start.
    #[must_use]
    pub fn builder() -> PgBuilder {
        PgBuilder::default()
    }

    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }

    /// The node that was the primary at the start.
    #[must_use]
    pub fn primary(&self) -> &PgNode {
        &self.cluster.nodes[0]
    }

    /// The standby number `i`, counted from 0.
    #[must_use]
    pub fn standby(&self, i: usize) -> &PgNode {
        &self.standbys()[i]
    }

    /// All nodes that were standbys at the start.
    #[must_use]
    pub fn standbys(&self) -> &[PgNode] {
        &self.cluster.nodes[1..]
    }

    /// Runs SQL on a node by `psql`, as a superuser; the rows come back as lines, their columns
    /// parted by `|`. Several statements in one text are one transaction.
    ///
    /// # Errors
    /// When the node does not answer or PostgreSQL refuses the statement.
    pub async fn sql(&self, node: &PgNode, text: &str) -> Result<String, Error> {
        let text = text.to_owned();
        self.on(node, move |_, node| node.sql(&text)).await
    }

    /// Makes standby `i` receive changes without applying them: it lags from here on.
    ///
    /// # Errors
    /// When the node is not a running standby.
    pub async fn pause_replay(&self, i: usize) -> Result<(), Error> {
        self.sql(self.standby(i), "select pg_wal_replay_pause()").await.map(drop)
    }

    /// Makes standby `i` apply changes again.
    ///
    /// # Errors
    /// When the node is not a running standby.
    pub async fn resume_replay(&self, i: usize) -> Result<(), Error> {
        self.sql(self.standby(i), "select pg_wal_replay_resume()").await.map(drop)
    }

    /// Stops the walreceiver of standby `i` (SIGSTOP): it lags and does not know it.
    ///
    /// # Errors
    /// When the node is down or has no walreceiver.
    pub fn freeze(&self, i: usize) -> Result<(), Error> {
        self.standby(i).server().signal_descendant(WALRECEIVER, Signal::STOP)
    }

    /// Lets the walreceiver of standby `i` go on.
    ///
    /// # Errors
    /// When the node is down or has no walreceiver.
    pub fn thaw(&self, i: usize) -> Result<(), Error> {
        self.standby(i).server().signal_descendant(WALRECEIVER, Signal::CONT)
    }

    /// Stops the process of one session (SIGSTOP), whose id `pg_backend_pid()` tells: it hangs, all
    /// others go on.
    ///
    /// # Errors
    /// When the node is down or has no such process.
    pub fn freeze_session(&self, node: &PgNode, id: i32) -> Result<(), Error> {
        node.server().signal_descendant_id(id, Signal::STOP)
    }

    /// Lets the process of one session go on.
    ///
    /// # Errors
    /// When the node is down or has no such process.
    pub fn thaw_session(&self, node: &PgNode, id: i32) -> Result<(), Error> {
        node.server().signal_descendant_id(id, Signal::CONT)
    }

    /// Stops all processes of a node (SIGSTOP): sessions hang, and new connections are made by
    /// the kernel but never answered.
    ///
    /// # Errors
    /// When the node is down.
    pub fn freeze_node(&self, node: &PgNode) -> Result<(), Error> {
        node.server().freeze()
    }

    /// Lets all processes of a node go on.
    ///
    /// # Errors
    /// When the node is down.
    pub fn thaw_node(&self, node: &PgNode) -> Result<(), Error> {
        node.server().thaw()
    }

    /// Kills all processes of standby `i` (SIGKILL) and returns when they are gone.
    ///
    /// # Errors
    /// When the system refuses the signal.
    pub fn kill_standby(&self, i: usize) -> Result<(), Error> {
        self.standby(i).server().kill()
    }

    /// Starts standby `i` again, in the role it had, and waits until it answers.
    ///
    /// It streams some 200 ms after its primary is up; to wait for that, ask the primary's
    /// `pg_stat_replication`.
    ///
    /// # Errors
    /// When it runs already or does not answer.
    pub async fn start_standby(&self, i: usize) -> Result<(), Error> {
        self.on(self.standby(i), |_, node| node.server().start()).await
    }

    /// Shuts a node down in order (SIGINT): it ends its sessions, and a primary sends its standbys
    /// all it has. They start again by [`start_primary`](Self::start_primary) and
    /// [`start_standby`](Self::start_standby).
    ///
    /// # Errors
    /// When the system refuses the signal.
    pub async fn stop(&self, node: &PgNode) -> Result<(), Error> {
        self.on(node, |_, node| node.server().stop(Signal::INT, wait::PATIENCE)).await
    }

    /// Kills all processes of the first primary (SIGKILL) and returns when they are gone.
    ///
    /// # Errors
    /// When the system refuses the signal.
    pub fn kill_primary(&self) -> Result<(), Error> {
        self.primary().server().kill()
    }

    /// Starts the first primary again, in the role it had, and waits until it answers.
    ///
    /// After a promotion that makes two primaries, on purpose; [`rejoin`](Self::rejoin) makes
    /// it a standby instead.
    ///
    /// # Errors
    /// When it runs already or does not answer.
    pub async fn start_primary(&self) -> Result<(), Error> {
        self.on(self.primary(), |_, node| node.server().start()).await
    }

    /// Makes standby `i` a primary and waits until it takes writes.
    ///
    /// The other nodes are left alone: see [`kill_primary`](Self::kill_primary) and
    /// [`follow`](Self::follow).
    ///
    /// # Errors
    /// When the node is not a running standby or takes too long.
    pub async fn promote(&self, i: usize) -> Result<(), Error> {
        self.on(self.standby(i), |_, node| node.promote()).await
    }

    /// Makes standby `i` stream from another node, without a restart, and waits until it does.
    ///
    /// # Errors
    /// When one of the two is down, or the standby has changes that the other has not.
    pub async fn follow(&self, i: usize, new_primary: &PgNode) -> Result<(), Error> {
        let new = new_primary.port();
        self.on(self.standby(i), move |cluster, standby| {
            standby.follow(new)?;
            cluster.node(new).await_streaming(standby.name(), 1)
        })
        .await
    }

    /// Makes an old primary a standby of the new one by `pg_rewind`, and waits until it streams.
    /// An old primary that still runs is stopped first; what only it had is lost.
    ///
    /// # Errors
    /// When the new primary is down or `pg_rewind` fails.
    pub async fn rejoin(&self, old: &PgNode, new: &PgNode) -> Result<(), Error> {
        let new = new.port();
        self.on(old, move |cluster, old| {
            let new = cluster.node(new);
            old.rewind(new)?;
            old.server().start()?;
            new.await_streaming(old.name(), 1)
        })
        .await
    }

    /// Runs blocking work on a node.
    async fn on<T: Send + 'static>(
        &self,
        node: &PgNode,
        work: impl FnOnce(&Cluster, &PgNode) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (cluster, port) = (Arc::clone(&self.cluster), node.port());
        wait::blocking(move || work(&cluster, cluster.node(port))).await
    }
}

impl Drop for PgCluster {
    fn drop(&mut self) {
        // Work under way on a blocking thread may hold the nodes longer than the test does.
        self.cluster.end();
    }
}

impl Cluster {
    /// The node with this port.
    fn node(&self, port: u16) -> &PgNode {
        let of_this_cluster = "nodes are borrowed from the cluster whose method they are given to";
        self.nodes.iter().find(|node| node.port() == port).expect(of_this_cluster)
    }

    fn end(&self) {
        let _ = for_each(&self.nodes, |node| {
            node.end();
            Ok(())
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}
