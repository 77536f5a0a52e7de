//! A PostgreSQL cluster that manages itself: Patroni, with etcd as its memory.

mod etcd;
mod member;

use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::ports;
use crate::postgres::for_each;
use crate::postgres::tools::{self, Tools};
use crate::run_dir::RunDir;
use crate::search::Search;
use crate::server::Server;
use crate::wait;

pub use member::PatroniMember;

/// How long the first member may take to make its data and the others to copy it; and how long
/// a member may take to come back, for which it may have to copy everything again.
const PATIENCE: Duration = Duration::from_secs(60);

/// PostgreSQL servers of which Patroni makes one the primary, and another one when that dies.
///
/// A failover takes about five seconds: that long the dead leader's claim in etcd lives on.
/// Dropping the cluster ends everything and removes the data.
///
/// # Panics
/// Methods panic when there is no member of the number they are given.
#[derive(Debug)]
pub struct PatroniCluster {
    cluster: Arc<Cluster>,
}

/// Ended in this order: the members, their memory, then the folder goes.
#[derive(Debug)]
struct Cluster {
    members: Vec<PatroniMember>,
    _etcd: Server,
    _dir: RunDir,
}

impl PatroniCluster {
    /// Starts this many members and waits until one leads and the others stream from it. That
    /// takes some seconds.
    ///
    /// # Errors
    /// When Patroni, etcd or PostgreSQL is not installed (the message names the Debian package),
    /// or something does not start.
    pub async fn start(members: usize) -> Result<Self, Error> {
        Self::start_from(members, Search::default()).await
    }

    /// Starts them with the programs of this search.
    pub(crate) async fn start_from(members: usize, search: Search) -> Result<Self, Error> {
        wait::blocking(move || {
            let patroni = search.find("patroni", "patroni")?;
            let tools = Tools::find(&search.clone().then_in(tools::version_folders()))?;
            let cluster = ports::retry(|| {
                let dir = RunDir::new()?;
                tools.account().own(dir.path()).map_err(Error::io("hand over a folder"))?;
                let etcd = etcd::start(&search, dir.path())?;
                let members: Result<_, _> = (0..members)
                    .map(|i| {
                        PatroniMember::new(&search, &patroni, &tools, dir.path(), i, etcd.addr())
                    })
                    .collect();
                let cluster = Cluster { members: members?, _etcd: etcd, _dir: dir };
                for_each(&cluster.members, |member| member.server().start())?;
                for_each(&cluster.members, |member| member.await_running(PATIENCE))?;
                Ok(cluster)
            })?;
            Ok(Self { cluster: Arc::new(cluster) })
        })
        .await
    }

    /// All members.
    #[must_use]
    pub fn members(&self) -> &[PatroniMember] {
        &self.cluster.members
    }

    /// The member number `i`, counted from 0.
    #[must_use]
    pub fn member(&self, i: usize) -> &PatroniMember {
        &self.cluster.members[i]
    }

    /// Waits until a member leads, other than those of `except`, and returns its number.
    ///
    /// # Errors
    /// When none does for a long time.
    pub async fn leader(&self, except: &[usize]) -> Result<usize, Error> {
        let (cluster, except) = (Arc::clone(&self.cluster), except.to_owned());
        wait::blocking(move || {
            let mut leader = None;
            let found = wait::until(PATIENCE, || {
                let members = cluster.members.iter().enumerate();
                let mut others = members.filter(|(i, _)| !except.contains(i));
                leader = others.find(|(_, member)| member.leads()).map(|(i, _)| i);
                Ok::<_, Error>(leader.is_some())
            })?;
            let awaited = || "a member that leads".to_owned();
            match leader {
                Some(leader) if found => Ok(leader),
                _ => Err(Error::Timeout { awaited: awaited(), waited: PATIENCE }),
            }
        })
        .await
    }

    /// Runs SQL on a member by `psql`, as [`PgCluster::sql`](crate::PgCluster::sql) does.
    ///
    /// # Errors
    /// When the member does not answer or PostgreSQL refuses the statement.
    pub async fn sql(&self, i: usize, text: &str) -> Result<String, Error> {
        let text = text.to_owned();
        self.on(i, move |member| member.sql(&text)).await
    }

    /// Kills the Patroni of a member and its PostgreSQL (SIGKILL), as a machine that loses power.
    ///
    /// # Errors
    /// When the system refuses the signal.
    pub async fn kill(&self, i: usize) -> Result<(), Error> {
        self.on(i, PatroniMember::kill).await
    }

    /// Starts a killed member again and waits until it serves. If another one leads by then,
    /// Patroni makes it follow that one.
    ///
    /// # Errors
    /// When it runs already or does not come back.
    pub async fn restart(&self, i: usize) -> Result<(), Error> {
        self.on(i, |member| {
            member.server().start()?;
            member.await_running(PATIENCE)
        })
        .await
    }

    /// Runs blocking work on a member.
    async fn on<T: Send + 'static>(
        &self,
        i: usize,
        work: impl FnOnce(&PatroniMember) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let cluster = Arc::clone(&self.cluster);
        wait::blocking(move || work(&cluster.members[i])).await
    }
}

impl Drop for PatroniCluster {
    fn drop(&mut self) {
        // Work under way on a blocking thread may still hold the cluster. A member that resists
        // is ended by the next start on the machine.
        let _ = for_each(&self.cluster.members, PatroniMember::kill);
    }
}
