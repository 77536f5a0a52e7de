//! Options of a cluster, and its start.

use std::fmt::Write as _;
use std::sync::Arc;
use std::thread;

use crate::Error;
use crate::ports;
use crate::postgres::cluster::{Cluster, PgCluster};
use crate::postgres::node::PgNode;
use crate::postgres::template;
use crate::postgres::tools::{self, Tools};
use crate::redis::Certificates;
use crate::run_dir::RunDir;
use crate::search::Search;
use crate::wait;

/// Settings of every node.
///
/// The delays of streaming replication are seconds instead of PostgreSQL's minutes, so that a
/// test sees a lost standby come back. Nothing is written safely: the data is thrown away.
const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
wal_level = replica
hot_standby = on
hot_standby_feedback = off
wal_log_hints = on
wal_keep_size = 64MB
min_wal_size = 8MB
max_wal_size = 64MB
wal_receiver_timeout = 5s
wal_sender_timeout = 5s
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 200ms
shared_buffers = 16MB
max_parallel_workers = 0
fsync = off
autovacuum = off
logging_collector = off
log_min_messages = warning
";

/// The files are those of [`PgNode::write_certificates`].
const TLS: &str = "\
ssl = on
ssl_cert_file = 'server.pem'
ssl_key_file = 'server.key'
ssl_ca_file = 'authority.pem'
";

/// Options for [`PgCluster`]: 1 primary, no standby and 120 connections unless told otherwise.
#[derive(Debug, Clone)]
pub struct PgBuilder {
    standbys: usize,
    max_connections: u32,
    settings: Vec<(String, String)>,
    access: String,
    certificates: Option<Certificates>,
    own_system: bool,
    search: Search,
}

impl Default for PgBuilder {
    fn default() -> Self {
        Self {
            standbys: 0,
            // Enough for a pool of a hundred, few enough that an idle node stays at 17 MB.
            max_connections: 120,
            settings: Vec::new(),
            access: String::new(),
            certificates: None,
            own_system: false,
            search: Search::default().then_in(tools::version_folders()),
        }
    }
}

impl PgBuilder {
    /// How many streaming standbys the primary gets.
    #[must_use]
    pub fn standbys(mut self, count: usize) -> Self {
        self.standbys = count;
        self
    }

    /// How many sessions each node admits (`max_connections`). Three of them are kept for
    /// superusers, and [`PgNode::url`] names one.
    #[must_use]
    pub fn max_connections(mut self, count: u32) -> Self {
        self.max_connections = count;
        self
    }

    /// A line for the `postgresql.conf` of every node; it wins over the kit's own, except over
    /// `port`, `cluster_name` and `primary_conninfo`.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Lines of `pg_hba.conf` in front of the kit's own, which let everybody in from this machine.
    /// The kit itself comes as `postgres`, without a password, by TCP and without TLS.
    #[must_use]
    pub fn access(mut self, rules: impl Into<String>) -> Self {
        self.access = rules.into();
        self
    }

    /// Offers TLS with these certificates, and trusts clients that show one by their authority.
    #[must_use]
    pub fn tls(mut self, certificates: Certificates) -> Self {
        self.certificates = Some(certificates);
        self
    }

    /// Runs `initdb` for this cluster alone, so that its `system_identifier` is no other's. The
    /// others are copies of one template.
    #[must_use]
    pub fn own_system(mut self) -> Self {
        self.own_system = true;
        self
    }

    /// Looks for the programs elsewhere.
    #[cfg(test)]
    pub(crate) fn search(mut self, search: Search) -> Self {
        self.search = search;
        self
    }

    /// Starts all nodes and waits until they answer and all standbys stream.
    ///
    /// The first start on a machine runs `initdb`; later ones copy its result.
    ///
    /// # Errors
    /// When PostgreSQL is not installed (the message names the Debian package), or a node does
    /// not start or stream. What was started is stopped again.
    pub async fn start(self) -> Result<PgCluster, Error> {
        wait::blocking(move || {
            let tools = Tools::find(&self.search)?;
            let template = template::folder(&tools)?;
            let cluster = ports::retry(|| {
                let cluster = self.lay_out(&tools)?;
                let template = match self.own_system {
                    true => template::make(&tools, &cluster.dir.path().join("origin"))?,
                    false => template.clone(),
                };
                for_each(&cluster.nodes, |node| {
                    node.fill(&template)?;
                    node.allow(&self.access)?;
                    if let Some(certificates) = &self.certificates {
                        node.write_certificates(certificates)?;
                    }
                    let primary = cluster.nodes[0].port();
                    node.set_upstream((node.port() != primary).then_some(primary))?;
                    node.server().start()
                })?;
                cluster.nodes[0].await_streaming("%", self.standbys)?;
                Ok(cluster)
            })?;
            Ok(PgCluster::new(Arc::new(cluster)))
        })
        .await
    }

    /// A cluster whose nodes have names and ports and nothing else yet.
    fn lay_out(&self, tools: &Tools) -> Result<Cluster, Error> {
        let dir = RunDir::new()?;
        tools.account().own(dir.path()).map_err(Error::io("hand over a temporary folder"))?;
        let settings = self.lines();
        let nodes: Result<Vec<PgNode>, Error> = (0..=self.standbys)
            .map(|i| {
                let (name, port) = (format!("n{i}"), ports::free()?);
                Ok(PgNode::new(tools, dir.path(), &name, port, &settings))
            })
            .collect();
        Ok(Cluster { nodes: nodes?, dir })
    }

    fn lines(&self) -> String {
        let mut lines = SETTINGS.to_owned();
        // Room for pg_rewind, pg_basebackup and a standby that comes back before it is missed.
        let senders = self.standbys * 2 + 8;
        let _ = writeln!(lines, "max_wal_senders = {senders}\nmax_replication_slots = {senders}");
        let _ = writeln!(lines, "max_connections = {}", self.max_connections);
        if self.certificates.is_some() {
            lines.push_str(TLS);
        }
        for (name, value) in &self.settings {
            let _ = writeln!(lines, "{name} = '{}'", value.replace('\'', "''"));
        }
        lines
    }
}

/// Does something with all nodes at once and reports the first failure.
pub(crate) fn for_each<T: Sync>(
    nodes: &[T],
    act: impl Fn(&T) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    thread::scope(|scope| {
        let act = &act;
        let threads: Vec<_> = nodes.iter().map(|node| scope.spawn(move || act(node))).collect();
        let results = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        // All are joined before the first failure is reported.
        results.collect::<Vec<_>>().into_iter().collect()
    })
}
