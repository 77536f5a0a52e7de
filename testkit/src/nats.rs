//! A NATS server of its own, with JetStream.

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

/// A `nats-server` with JetStream on a free loopback port, without password, killed on drop.
#[derive(Debug)]
pub struct Nats {
    // Declared before the folder: the server ends before its folder goes.
    server: Arc<Server>,
    _dir: RunDir,
}

impl Nats {
    /// Starts a server and waits for its `INFO` line.
    ///
    /// # Errors
    /// When `nats-server` is missing or does not answer.
    pub async fn start() -> Result<Self, Error> {
        Self::start_from(Search::default()).await
    }

    /// Starts it with the programs of this search.
    pub(crate) async fn start_from(search: Search) -> Result<Self, Error> {
        wait::blocking(move || {
            let program = search.find("nats-server", "nats-server")?;
            let dir = RunDir::new()?;
            let server = Server::start_on_free_port(|port| {
                let (search, program) = (search.clone(), program.clone());
                let folder = dir.path().to_owned();
                Plan {
                    name: "nats-server".to_owned(),
                    addr: ports::loopback(port),
                    log: dir.path().join("nats.log"),
                    patience: wait::PATIENCE,
                    greeting: greeting::nats,
                    command: Box::new(move || {
                        let mut command = guarded(&search, Account::Own, &program)?;
                        command.current_dir(&folder).args(["--addr", "127.0.0.1", "--port"]);
                        command.arg(port.to_string()).args(["--jetstream", "--store_dir"]);
                        command.arg(&folder);
                        Ok(command)
                    }),
                }
            })?;
            Ok(Self { server: Arc::new(server), _dir: dir })
        })
        .await
    }

    /// `nats://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.addr())
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

    /// Starts a killed server again on the same port with the streams it had stored, or kills
    /// and starts a running one.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn restart(&self) -> Result<(), Error> {
        let server = Arc::clone(&self.server);
        wait::blocking(move || server.restart()).await
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        // A restart under way on a blocking thread may still hold the server.
        let _ = self.server.kill();
    }
}
