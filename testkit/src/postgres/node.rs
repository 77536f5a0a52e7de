//! One PostgreSQL server of a cluster: its files, its configuration, its process.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;

use crate::Error;
use crate::greeting;
use crate::ports;
use crate::postgres::tools::Tools;
use crate::redis::Certificates;
use crate::server::{Plan, Server};
use crate::shared_memory;
use crate::wait;

/// How long an immediate shutdown may take before SIGKILL follows.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// A server of a [`PgCluster`](crate::PgCluster).
#[derive(Debug)]
pub struct PgNode {
    server: Server,
    tools: Tools,
    data: PathBuf,
    /// Lines that are the same in all nodes of the cluster.
    settings: String,
    /// The port of the server that this one streams from when it is a standby.
    upstream: Mutex<Option<u16>>,
}

impl PgNode {
    /// `postgres://postgres@127.0.0.1:PORT/postgres`: a superuser, no password, no TLS.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.addr())
    }

    /// Where the server listens; it stays the same over restarts.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The port of [`addr`](Self::addr).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr().port()
    }

    /// `n0` for the first primary, `n1`, `n2`, .. for the standbys: its `cluster_name`, and its
    /// `application_name` in `pg_stat_replication`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.server.name()
    }

    /// The process id of the postmaster, `None` while the node is down.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    pub(crate) fn new(tools: &Tools, dir: &Path, name: &str, port: u16, settings: &str) -> Self {
        let data = dir.join(name);
        let (runner, folder) = (tools.clone(), data.clone());
        let plan = Plan {
            name: name.to_owned(),
            addr: ports::loopback(port),
            log: dir.join(format!("{name}.log")),
            patience: wait::PATIENCE,
            greeting: greeting::postgres,
            command: Box::new(move || runner.postgres(&folder)),
        };
        Self {
            server: Server::new(plan),
            tools: tools.clone(),
            data,
            settings: settings.to_owned(),
            upstream: Mutex::new(None),
        }
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Fills the data folder with a copy of the template.
    pub(crate) fn fill(&self, template: &Path) -> Result<(), Error> {
        self.tools.copy(template, &self.data)
    }

    /// Puts rules in front of those of the template.
    pub(crate) fn allow(&self, rules: &str) -> Result<(), Error> {
        if rules.is_empty() {
            return Ok(());
        }
        let failed = || Error::io(format!("write the rules of access to {}", self.name()));
        let own = fs::read_to_string(self.data.join("pg_hba.conf")).map_err(failed())?;
        self.write("pg_hba.conf", &format!("{rules}\n{own}")).map_err(failed())
    }

    /// Writes certificates and key, under the names that the configuration knows.
    pub(crate) fn write_certificates(&self, certificates: &Certificates) -> Result<(), Error> {
        for (file, text) in [
            ("server.pem", &certificates.server),
            ("authority.pem", &certificates.authority),
            ("server.key", &certificates.server_key),
        ] {
            let failed = || Error::io(format!("write {file} of {}", self.name()));
            self.write(file, text).map_err(failed())?;
            // PostgreSQL refuses a key that others may read.
            let private = fs::Permissions::from_mode(0o600);
            fs::set_permissions(self.data.join(file), private).map_err(failed())?;
        }
        Ok(())
    }

    /// Makes this node, when it starts next, a primary (`None`) or a standby of that port.
    pub(crate) fn set_upstream(&self, upstream: Option<u16>) -> Result<(), Error> {
        *self.upstream.lock() = upstream;
        let failed = || Error::io(format!("write the configuration of {}", self.name()));
        self.write("postgresql.conf", &self.configuration(upstream)).map_err(failed())?;
        // ALTER SYSTEM on the node that this one was rewound to may have written here.
        self.write("postgresql.auto.conf", "").map_err(failed())?;
        if upstream.is_some() {
            return self.write("standby.signal", "").map_err(failed());
        }
        match fs::remove_file(self.data.join("standby.signal")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed()(error)),
            _ => Ok(()),
        }
    }

    /// Points a running standby at another primary; PostgreSQL 13 and later need no restart.
    pub(crate) fn follow(&self, upstream: u16) -> Result<(), Error> {
        self.set_upstream(Some(upstream))?;
        self.server.signal(Signal::HUP)
    }

    /// The promoted node is nobody's standby, also after a restart.
    pub(crate) fn promote(&self) -> Result<(), Error> {
        let seconds = wait::PATIENCE.as_secs();
        if self.sql(&format!("select pg_promote(true, {seconds})"))? != "t" {
            let awaited = format!("the promotion of {}", self.name());
            return Err(Error::Timeout { awaited, waited: wait::PATIENCE });
        }
        self.set_upstream(None)
    }

    /// Rewinds the stopped node to where it parted from `new`, as whose standby it starts next.
    pub(crate) fn rewind(&self, new: &Self) -> Result<(), Error> {
        self.server.stop(Signal::QUIT, SHUTDOWN)?;
        // Until its next checkpoint the new primary's control file names the old timeline, and
        // pg_rewind would see nothing to do.
        new.sql("checkpoint")?;
        self.tools.rewind(&self.data, new.port())?;
        self.set_upstream(Some(new.port()))
    }

    pub(crate) fn sql(&self, text: &str) -> Result<String, Error> {
        self.tools.sql(self.port(), text)
    }

    /// Waits until this node sends its log to that many standbys of this name (`%` for any).
    pub(crate) fn await_streaming(&self, name: &str, count: usize) -> Result<(), Error> {
        let query = format!(
            "select count(*) from pg_stat_replication \
             where state = 'streaming' and application_name like '{name}'"
        );
        let wanted = count.to_string();
        if wait::until(wait::PATIENCE, || Ok::<_, Error>(self.sql(&query)? == wanted))? {
            return Ok(());
        }
        let awaited = format!("{count} x {name} to stream from {}", self.name());
        Err(Error::Timeout { awaited, waited: wait::PATIENCE })
    }

    /// Ends the node at once. Its data is lost anyway, so SIGQUIT (immediate shutdown) will do.
    pub(crate) fn end(&self) {
        let _ = self.server.stop(Signal::QUIT, SHUTDOWN);
        shared_memory::free(&self.data);
    }

    /// Writes a file into the data folder, whose owner may be another user.
    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let path = self.data.join(file);
        fs::write(&path, text)?;
        self.tools.account().own(&path)
    }

    fn configuration(&self, upstream: Option<u16>) -> String {
        let mut lines = self.settings.clone();
        let _ = writeln!(lines, "port = {}\ncluster_name = '{}'", self.port(), self.name());
        if let Some(upstream) = upstream {
            let _ = writeln!(
                lines,
                "primary_conninfo = 'host=127.0.0.1 port={upstream} user=postgres \
                 application_name={}'",
                self.name()
            );
        }
        lines
    }
}
