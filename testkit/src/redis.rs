//! Redis servers of one's own: alone, with certificates, watched by sentinels, as a cluster.

mod certificates;
mod cluster;
mod sentinel;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::Error;
use crate::account::Account;
use crate::greeting;
use crate::ports;
use crate::run_dir::RunDir;
use crate::search::Search;
use crate::server::{Plan, Server, guarded};
use crate::{process, wait};

pub use certificates::Certificates;
pub use cluster::RedisCluster;
pub use sentinel::RedisSentinel;

/// A `redis-server` on a free loopback port, killed on drop.
#[derive(Debug)]
pub struct Redis {
    // Declared before the folder: the server ends before its folder goes.
    server: Arc<Server>,
    search: Search,
    password: Option<String>,
    tls: Option<(SocketAddr, Certificates)>,
    dir: RunDir,
}

impl Redis {
    /// Starts a server that keeps its data in memory only.
    ///
    /// # Errors
    /// When `redis-server` is missing or does not answer.
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// Options for a start.
    #[must_use]
    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    /// `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// Where the server listens; it stays the same over [`restart`](Self::restart).
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// `unix://PATH` of a socket that the server listens on as well.
    #[must_use]
    pub fn unix_url(&self) -> String {
        format!("unix://{}", self.dir.path().join(SOCKET).display())
    }

    /// `rediss://127.0.0.1:PORT` of a server that was started with [`RedisBuilder::tls`].
    #[must_use]
    pub fn tls_url(&self) -> Option<String> {
        self.tls.as_ref().map(|(addr, _)| format!("rediss://{addr}"))
    }

    /// The certificates of a server that was started with [`RedisBuilder::tls`].
    #[must_use]
    pub fn certificates(&self) -> Option<&Certificates> {
        self.tls.as_ref().map(|(_, certificates)| certificates)
    }

    /// Sends one command by `redis-cli` and returns its answer as text.
    ///
    /// # Errors
    /// When `redis-cli` is missing or cannot connect. An error of Redis is an answer.
    pub async fn cli(&self, arguments: &[&str]) -> Result<String, Error> {
        let arguments: Vec<String> = arguments.iter().map(|part| (*part).to_owned()).collect();
        let (search, addr, password) = (self.search.clone(), self.addr(), self.password.clone());
        wait::blocking(move || cli(&search, addr, password.as_deref(), &arguments)).await
    }

    /// Stops the process (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    /// When the server does not run.
    pub fn freeze(&self) -> Result<(), Error> {
        self.server.freeze()
    }

    /// Lets a frozen process go on.
    ///
    /// # Errors
    /// When the server does not run.
    pub fn thaw(&self) -> Result<(), Error> {
        self.server.thaw()
    }

    /// Kills the process (SIGKILL) and returns when it is gone.
    ///
    /// # Errors
    /// When the system refuses the signal.
    pub fn kill(&self) -> Result<(), Error> {
        self.server.kill()
    }

    /// Starts a killed server again on the same port, or kills and starts a running one.
    ///
    /// Without [`RedisBuilder::append_only`] it comes back empty.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn restart(&self) -> Result<(), Error> {
        let server = Arc::clone(&self.server);
        wait::blocking(move || server.restart()).await
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // A restart under way on a blocking thread may still hold the server.
        let _ = self.server.kill();
    }
}

/// The name of the socket in the folder of a server.
const SOCKET: &str = "redis.sock";

/// Asks a server by `redis-cli`.
fn cli(
    search: &Search,
    addr: SocketAddr,
    password: Option<&str>,
    arguments: &[impl AsRef<str>],
) -> Result<String, Error> {
    let mut command = Command::new(search.find("redis-cli", "redis-tools")?);
    command.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string()]);
    if let Some(password) = password {
        command.env("REDISCLI_AUTH", password);
    }
    command.args(arguments.iter().map(AsRef::as_ref));
    process::run("redis-cli", &mut command)
}

/// Options for [`Redis`].
#[derive(Debug, Clone, Default)]
pub struct RedisBuilder {
    append_only: bool,
    password: Option<String>,
    tls: Option<TlsClients>,
    kind: Kind,
    /// Further options, each with its values.
    options: Vec<Vec<String>>,
    search: Search,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TlsClients {
    Anybody,
    WithCertificate,
}

/// What a `redis-server` is.
#[derive(Debug, Clone, Default)]
enum Kind {
    #[default]
    Server,
    /// A node of a cluster, which listens for the others on a second port.
    Node,
    /// A sentinel, with the lines of its configuration.
    Sentinel(String),
}

impl RedisBuilder {
    /// Writes every change to an append-only file before it is answered, so that the data
    /// survives [`Redis::kill`] and [`Redis::restart`]. Off by default.
    #[must_use]
    pub fn append_only(mut self, on: bool) -> Self {
        self.append_only = on;
        self
    }

    /// Asks everybody for this password. None by default.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        let password = password.into();
        self.password = Some(password.clone());
        self.option("--requirepass", [password])
    }

    /// Adds an ACL user with these rules, such as `on`, `>password`, `~keys:*`, `+@all`.
    #[must_use]
    pub fn user(self, name: &str, rules: &[&str]) -> Self {
        let values = std::iter::once(name).chain(rules.iter().copied());
        self.option("--user", values.map(str::to_owned))
    }

    /// Listens for TLS on a second port, with certificates made for this server.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = Some(TlsClients::Anybody);
        self
    }

    /// As [`tls`](Self::tls), and refuses clients that show no certificate of the same authority.
    #[must_use]
    pub fn tls_with_client_certificates(mut self) -> Self {
        self.tls = Some(TlsClients::WithCertificate);
        self
    }

    fn option(mut self, name: &str, values: impl IntoIterator<Item = String>) -> Self {
        self.options.push(std::iter::once(name.to_owned()).chain(values).collect());
        self
    }

    fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Looks for the program elsewhere.
    #[cfg(test)]
    pub(crate) fn search(mut self, search: Search) -> Self {
        self.search = search;
        self
    }

    /// Starts the server and waits for its `+PONG`.
    ///
    /// # Errors
    /// When `redis-server` is missing or does not answer.
    pub async fn start(self) -> Result<Redis, Error> {
        wait::blocking(move || self.start_blocking()).await
    }

    fn start_blocking(self) -> Result<Redis, Error> {
        let program = self.search.find("redis-server", "redis-server")?;
        let dir = RunDir::new()?;
        let certificates = self.tls.map(|_| Certificates::new()).transpose()?;
        if let Some(certificates) = &certificates {
            certificates.write(dir.path())?;
        }
        // A second port is chosen anew with each attempt, and for good with the last.
        let mut second = None;
        let server = ports::retry(|| {
            second = Some(ports::free()?);
            let server = Server::new(self.plan(&program, &dir, ports::free()?, second));
            server.start()?;
            Ok(server)
        })?;
        let tls = second.map(ports::loopback).zip(certificates);
        let Self { search, password, .. } = self;
        Ok(Redis { server: Arc::new(server), search, password, tls, dir })
    }

    fn plan(&self, program: &Path, dir: &RunDir, port: u16, second: Option<u16>) -> Plan {
        let (search, program, kind) = (self.search.clone(), program.to_owned(), self.kind.clone());
        let folder = dir.path().to_owned();
        let arguments = self.arguments(port, second);
        Plan {
            name: "redis-server".to_owned(),
            addr: ports::loopback(port),
            log: dir.path().join("redis.log"),
            patience: wait::PATIENCE,
            greeting: greeting::redis,
            command: Box::new(move || {
                let mut command = guarded(&search, Account::Own, &program)?;
                command.current_dir(&folder);
                if let Kind::Sentinel(lines) = &kind {
                    // It keeps what it learns in this file; a restart finds it again.
                    let file = folder.join("sentinel.conf");
                    if !file.exists() {
                        fs::write(&file, lines).map_err(Error::io("write sentinel.conf"))?;
                    }
                    command.args(["sentinel.conf", "--sentinel"]);
                }
                command.args(&arguments);
                Ok(command)
            }),
        }
    }

    fn arguments(&self, port: u16, second: Option<u16>) -> Vec<String> {
        let append_only = if self.append_only { "yes" } else { "no" };
        let port = port.to_string();
        let second = second.unwrap_or_default().to_string();
        let mut arguments = vec!["--bind", "127.0.0.1", "--port", &port];
        if !matches!(self.kind, Kind::Sentinel(_)) {
            arguments.extend(["--unixsocket", SOCKET, "--save", "", "--appendonly", append_only]);
            // Written before each answer. With the default the write waits for a slow disk while
            // the answers go on, and a kill loses what was answered.
            arguments.extend(["--appendfsync", "no"]);
        }
        if matches!(self.kind, Kind::Node) {
            arguments.extend(["--cluster-enabled", "yes", "--cluster-port", &second]);
        }
        if let Some(clients) = self.tls {
            let asked = if clients == TlsClients::WithCertificate { "yes" } else { "no" };
            arguments.extend(["--tls-port", &second, "--tls-auth-clients", asked]);
            arguments.extend(certificates::OPTIONS);
        }
        let options = self.options.iter().flatten().map(String::as_str);
        arguments.into_iter().chain(options).map(str::to_owned).collect()
    }
}
