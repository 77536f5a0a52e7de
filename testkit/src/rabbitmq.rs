//! A RabbitMQ broker of its own, with a port mapper of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::account::Account;
use crate::greeting;
use crate::ports;
use crate::run_dir::RunDir;
use crate::search::Search;
use crate::server::{Plan, Server, guarded};
use crate::wait;

/// Where Debian keeps the broker's own script. The one in `PATH` changes to the user `rabbitmq`
/// and to the system's data.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";

/// How long a start may take: Erlang loads slowly on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A RabbitMQ broker on a free loopback port, without plugins, killed on drop.
///
/// Its user is `guest` with the password `guest`, whom RabbitMQ admits from this machine only.
#[derive(Debug)]
pub struct RabbitMq {
    // Ended in this order: the broker, its port mapper, then their folder goes.
    broker: Arc<Server>,
    _port_mapper: Server,
    _dir: RunDir,
}

impl RabbitMq {
    /// Starts a broker and waits until it answers the AMQP header. That takes some seconds.
    ///
    /// # Errors
    /// When `rabbitmq-server` is missing or does not answer.
    pub async fn start() -> Result<Self, Error> {
        Self::start_from(Search::default().first_in(PathBuf::from(SCRIPTS))).await
    }

    /// Starts it with the programs of this search.
    pub(crate) async fn start_from(search: Search) -> Result<Self, Error> {
        wait::blocking(move || {
            let script = search.find("rabbitmq-server", "rabbitmq-server")?;
            let epmd = search.find("epmd", "erlang-base")?;
            ports::retry(|| {
                let dir = RunDir::new()?;
                let port_mapper = port_mapper(&search, &epmd, dir.path())?;
                port_mapper.start()?;
                let node = Node {
                    search: search.clone(),
                    script: script.clone(),
                    folder: dir.path().to_owned(),
                    port: ports::free()?,
                    distribution_port: ports::free()?,
                    port_mapper: port_mapper.addr(),
                };
                let broker = broker(node);
                broker.start()?;
                Ok(Self { broker: Arc::new(broker), _port_mapper: port_mapper, _dir: dir })
            })
        })
        .await
    }

    /// `amqp://guest:guest@127.0.0.1:PORT/%2f`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.addr())
    }

    /// Where the broker listens; it stays the same over [`restart`](Self::restart).
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.broker.addr()
    }

    /// Stops the process (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    /// When the broker does not run.
    pub fn freeze(&self) -> Result<(), Error> {
        self.broker.freeze()
    }

    /// Lets a frozen process go on.
    ///
    /// # Errors
    /// When the broker does not run.
    pub fn thaw(&self) -> Result<(), Error> {
        self.broker.thaw()
    }

    /// Kills the process (SIGKILL) and returns when it is gone.
    ///
    /// # Errors
    /// When the system refuses the signal.
    pub fn kill(&self) -> Result<(), Error> {
        self.broker.kill()
    }

    /// Starts a killed broker again on the same port with its durable queues, or kills and
    /// starts a running one.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn restart(&self) -> Result<(), Error> {
        let broker = Arc::clone(&self.broker);
        wait::blocking(move || broker.restart()).await
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        // A restart under way on a blocking thread may still hold the broker.
        let _ = self.broker.kill();
    }
}

/// Erlang's port mapper in the foreground. Left to itself the broker would start one as a
/// daemon that outlives it, or share the one of the machine.
fn port_mapper(search: &Search, epmd: &Path, folder: &Path) -> Result<Server, Error> {
    let (search, epmd, home) = (search.clone(), epmd.to_owned(), folder.to_owned());
    let port = ports::free()?;
    Ok(Server::new(Plan {
        name: "epmd".to_owned(),
        addr: ports::loopback(port),
        log: folder.join("epmd.log"),
        patience: wait::PATIENCE,
        greeting: greeting::epmd,
        command: Box::new(move || {
            let mut command = guarded(&search, Account::Own, &epmd)?;
            command.current_dir(&home).args(["-address", "127.0.0.1", "-port"]);
            command.arg(port.to_string());
            Ok(command)
        }),
    }))
}

/// What a broker is told.
struct Node {
    search: Search,
    script: PathBuf,
    folder: PathBuf,
    port: u16,
    distribution_port: u16,
    port_mapper: SocketAddr,
}

fn broker(node: Node) -> Server {
    Server::new(Plan {
        name: "rabbitmq-server".to_owned(),
        addr: ports::loopback(node.port),
        log: node.folder.join("rabbitmq.log"),
        patience: PATIENCE,
        greeting: greeting::amqp,
        command: Box::new(move || node.command()),
    })
}

impl Node {
    fn command(&self) -> Result<Command, Error> {
        let mut command = guarded(&self.search, Account::Own, &self.script)?;
        // All files here, among them Erlang's cookie (in HOME), and none from /etc.
        let files = [
            ("HOME", ""),
            ("RABBITMQ_CONF_ENV_FILE", "rabbitmq-env.conf"),
            ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
            ("RABBITMQ_CONFIG_FILES", "conf.d"),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
            ("RABBITMQ_GENERATED_CONFIG_DIR", "generated"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
            ("RABBITMQ_LOG_BASE", "log"),
            ("RABBITMQ_MNESIA_BASE", "mnesia"),
            ("RABBITMQ_PID_FILE", "rabbitmq.pid"),
        ];
        command.current_dir(&self.folder);
        command.envs(files.map(|(name, file)| (name, self.folder.join(file))));
        command.envs([
            ("RABBITMQ_NODENAME", "escala@localhost"),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1"),
            ("RABBITMQ_LOGS", "-"),
            // The script becomes the broker then, instead of waiting for it as its parent.
            ("RUNNING_UNDER_SYSTEMD", "true"),
            ("ERL_EPMD_ADDRESS", "127.0.0.1"),
            ("ERL_CRASH_DUMP_SECONDS", "0"),
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
            ),
        ]);
        let numbers = [
            ("RABBITMQ_NODE_PORT", self.port),
            ("RABBITMQ_DIST_PORT", self.distribution_port),
            ("ERL_EPMD_PORT", self.port_mapper.port()),
        ];
        command.envs(numbers.map(|(name, port)| (name, port.to_string())));
        Ok(command)
    }
}
