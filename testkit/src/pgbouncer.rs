//! A PgBouncer of its own.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::Error;
use crate::account::Account;
use crate::greeting;
use crate::ports;
use crate::run_dir::RunDir;
use crate::search::Search;
use crate::server::{Plan, Server, guarded};
use crate::wait;

/// A `pgbouncer` in front of one PostgreSQL server, on a free loopback port, killed on drop.
///
/// It lets everybody in as `postgres` without a password, and shares its server connections in
/// transaction mode: two statements of one client may run in two sessions.
#[derive(Debug)]
pub struct PgBouncer {
    // Declared before the folder: the server ends before its folder goes.
    server: Arc<Server>,
    _dir: RunDir,
}

impl PgBouncer {
    /// Options for a start in front of a server.
    #[must_use]
    pub fn builder(upstream: SocketAddr) -> PgBouncerBuilder {
        PgBouncerBuilder { upstream, settings: Vec::new(), search: Search::default() }
    }

    /// `postgres://postgres@127.0.0.1:PORT/postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.addr())
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }
}

/// Options for [`PgBouncer`].
#[derive(Debug, Clone)]
pub struct PgBouncerBuilder {
    upstream: SocketAddr,
    settings: Vec<(String, String)>,
    search: Search,
}

impl PgBouncerBuilder {
    /// A line of the section `[pgbouncer]`; it wins over the kit's own.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Looks for the program elsewhere.
    #[cfg(test)]
    pub(crate) fn search(mut self, search: Search) -> Self {
        self.search = search;
        self
    }

    /// Starts it and waits until it lets a client through to PostgreSQL.
    ///
    /// # Errors
    /// When `pgbouncer` is missing, refuses a setting (its words are in the error) or does not
    /// answer.
    pub async fn start(self) -> Result<PgBouncer, Error> {
        wait::blocking(move || self.start_blocking()).await
    }

    fn start_blocking(self) -> Result<PgBouncer, Error> {
        let program = self.search.find("pgbouncer", "pgbouncer")?;
        // It refuses to run as root, as PostgreSQL does.
        let account = Account::for_postgres()?;
        let dir = RunDir::new()?;
        let server = Server::start_on_free_port(|port| {
            let (search, program) = (self.search.clone(), program.clone());
            let (folder, text) = (dir.path().to_owned(), self.text(port, dir.path()));
            Plan {
                name: "pgbouncer".to_owned(),
                addr: ports::loopback(port),
                log: dir.path().join("pgbouncer.log"),
                patience: wait::PATIENCE,
                greeting: greeting::postgres,
                command: Box::new(move || {
                    let configuration = folder.join("pgbouncer.ini");
                    write(&folder.join("users.txt"), "\"postgres\" \"\"\n")?;
                    write(&configuration, &text)?;
                    let mut command = guarded(&search, account, &program)?;
                    command.current_dir(&folder).arg(configuration);
                    Ok(command)
                }),
            }
        })?;
        Ok(PgBouncer { server: Arc::new(server), _dir: dir })
    }

    fn text(&self, port: u16, folder: &Path) -> String {
        let upstream = self.upstream;
        let mut text = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\n\
             pool_mode = transaction\ndefault_pool_size = 1\nmax_client_conn = 200\n",
            upstream.ip(),
            upstream.port(),
            folder.join("users.txt").display(),
        );
        for (name, value) in &self.settings {
            let _ = writeln!(text, "{name} = {value}");
        }
        text
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}
