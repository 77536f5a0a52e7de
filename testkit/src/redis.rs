//! A Redis server of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::Error;
use crate::account::Account;
use crate::greeting;
use crate::ports;
use crate::run_dir::RunDir;
use crate::search::Search;
use crate::server::{Plan, Server, guarded};
use crate::wait;

/// A `redis-server` on a free loopback port, without password, killed on drop.
#[derive(Debug)]
pub struct Redis {
    // Declared before the folder: the server ends before its folder goes.
    server: Arc<Server>,
    _dir: RunDir,
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

/// Options for [`Redis`].
#[derive(Debug, Clone, Default)]
pub struct RedisBuilder {
    append_only: bool,
    search: Search,
}

impl RedisBuilder {
    /// Writes every change to an append-only file before it is answered, so that the data
    /// survives [`Redis::kill`] and [`Redis::restart`]. Off by default.
    #[must_use]
    pub fn append_only(mut self, on: bool) -> Self {
        self.append_only = on;
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
        let append_only = if self.append_only { "yes" } else { "no" };
        let server = Server::start_on_free_port(|port| {
            let (search, program) = (self.search.clone(), program.clone());
            let folder = dir.path().to_owned();
            Plan {
                name: "redis-server".to_owned(),
                addr: ports::loopback(port),
                log: dir.path().join("redis.log"),
                patience: wait::PATIENCE,
                greeting: greeting::redis,
                command: Box::new(move || {
                    let mut command = guarded(&search, Account::Own, &program)?;
                    command.current_dir(&folder).args(["--bind", "127.0.0.1", "--port"]);
                    command.arg(port.to_string()).args(["--save", "", "--appendonly"]);
                    command.arg(append_only);
                    Ok(command)
                }),
            }
        })?;
        Ok(Redis { server: Arc::new(server), _dir: dir })
    }
}
