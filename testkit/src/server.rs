//! One server process: started and awaited by its greeting, frozen, killed and started again on
//! the same port.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;

use crate::Error;
use crate::account::Account;
use crate::greeting::Greeting;
use crate::ports;
use crate::process::{Process, last_lines};
use crate::search::Search;
use crate::wait;

/// A command whose process dies with this one.
///
/// `setpriv` sets the parent death signal, then becomes the program itself: same process id, no
/// unsafe code here. The environment starts empty, so that a developer's `PGHOST` or
/// `RABBITMQ_NODENAME` cannot reach a test.
pub(crate) fn guarded(search: &Search, account: Account, program: &Path) -> Result<Command, Error> {
    let mut command = Command::new(search.find("setpriv", "util-linux")?);
    command.args(["--pdeathsig", "KILL"]);
    account.apply(&mut command);
    command.arg("--").arg(program);
    command.env_clear().env("PATH", search.as_path()).env("LC_ALL", "C");
    Ok(command)
}

/// What a server is: all that a start needs, again and again.
pub(crate) struct Plan {
    /// The name in errors.
    pub(crate) name: String,
    /// Where it will listen.
    pub(crate) addr: SocketAddr,
    /// Its log: standard output and standard error.
    pub(crate) log: PathBuf,
    /// How long a start may take.
    pub(crate) patience: Duration,
    /// How it says that it is ready.
    pub(crate) greeting: Greeting,
    /// Builds its command; see [`guarded`].
    pub(crate) command: Box<dyn Fn() -> Result<Command, Error> + Send + Sync>,
}

/// A server that may run or not. Dropping it kills it.
pub(crate) struct Server {
    plan: Plan,
    process: Mutex<Option<Process>>,
}

impl Server {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan, process: Mutex::new(None) }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.plan.addr
    }

    pub(crate) fn name(&self) -> &str {
        &self.plan.name
    }

    /// Starts the process without waiting for it.
    pub(crate) fn spawn(&self) -> Result<(), Error> {
        let mut process = self.process.lock();
        if let Some(process) = process.as_mut()
            && process.ended().map_err(self.doing("look after"))?.is_none()
        {
            return Err(Error::Running { server: self.plan.name.clone() });
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.plan.log);
        let log = log.map_err(self.doing("open the log of"))?;
        let twin = log.try_clone().map_err(self.doing("open the log of"))?;
        let mut command = (self.plan.command)()?;
        command.stdin(Stdio::null()).stdout(log).stderr(twin);
        *process = Some(Process::spawn(command).map_err(self.doing("start"))?);
        Ok(())
    }

    /// Waits until the server greets. One that does not in time is killed.
    pub(crate) fn await_ready(&self) -> Result<(), Error> {
        let ready = wait::until(self.plan.patience, || {
            // The order matters: another server on our port could answer after ours has failed.
            let greets = (self.plan.greeting)(self.plan.addr).unwrap_or(false);
            let status = self.with(Process::ended)?;
            match status {
                None => Ok(greets),
                Some(status) => Err(Error::Exited {
                    server: self.plan.name.clone(),
                    status: status.to_string(),
                    log: self.log(),
                }),
            }
        })?;
        if ready {
            return Ok(());
        }
        self.kill()?;
        Err(Error::StartTimeout {
            server: self.plan.name.clone(),
            waited: self.plan.patience,
            log: self.log(),
        })
    }

    /// Starts a server on a free port, and on another one when somebody takes it in between.
    pub(crate) fn start_on_free_port(plan: impl Fn(u16) -> Plan) -> Result<Self, Error> {
        ports::retry(|| {
            let server = Self::new(plan(ports::free()?));
            server.start()?;
            Ok(server)
        })
    }

    /// Starts the server and waits until it greets.
    pub(crate) fn start(&self) -> Result<(), Error> {
        self.spawn()?;
        self.await_ready()
    }

    /// Kills the server if it runs, and starts it.
    pub(crate) fn restart(&self) -> Result<(), Error> {
        self.kill()?;
        self.start()
    }

    /// Stops the process and its descendants with SIGSTOP.
    pub(crate) fn freeze(&self) -> Result<(), Error> {
        self.with(|process| process.freeze().map(drop))
    }

    /// Lets them go on with SIGCONT.
    pub(crate) fn thaw(&self) -> Result<(), Error> {
        self.with(|process| process.thaw())
    }

    /// Kills the process and its descendants. One that is down already is no failure.
    pub(crate) fn kill(&self) -> Result<(), Error> {
        match self.process.lock().take() {
            Some(mut process) => process.kill().map_err(self.doing("kill")),
            None => Ok(()),
        }
    }

    /// Asks the process to end, and kills it when it does not.
    pub(crate) fn stop(&self, signal: Signal, patience: Duration) -> Result<(), Error> {
        match self.process.lock().take() {
            Some(mut process) => process.stop(signal, patience).map_err(self.doing("stop")),
            None => Ok(()),
        }
    }

    /// Sends a signal to the process alone.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.with(|process| process.signal(signal))
    }

    /// Sends a signal to the descendant whose command line contains the text.
    pub(crate) fn signal_descendant(&self, text: &str, signal: Signal) -> Result<(), Error> {
        if self.with(|process| process.signal_descendant(text, signal))? {
            return Ok(());
        }
        Err(Error::NotRunning { server: format!("{text} of {}", self.plan.name) })
    }

    /// Sends a signal to the descendant with this process id, and to nobody else.
    pub(crate) fn signal_descendant_id(&self, id: i32, signal: Signal) -> Result<(), Error> {
        if self.with(|process| process.signal_descendant_id(id, signal))? {
            return Ok(());
        }
        Err(Error::NotRunning { server: format!("process {id} of {}", self.plan.name) })
    }

    /// The process id while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        let raw = self.with(|process| Ok(process.pid())).ok()?.as_raw_nonzero().get();
        u32::try_from(raw).ok()
    }

    /// Does something with the running process.
    fn with<T>(&self, act: impl FnOnce(&mut Process) -> io::Result<T>) -> Result<T, Error> {
        match self.process.lock().as_mut() {
            Some(process) => act(process).map_err(self.doing("signal")),
            None => Err(Error::NotRunning { server: self.plan.name.clone() }),
        }
    }

    fn log(&self) -> String {
        last_lines(&String::from_utf8_lossy(&fs::read(&self.plan.log).unwrap_or_default()))
    }

    fn doing(&self, what: &str) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(format!("{what} {}", self.plan.name))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.plan.name)
            .field("addr", &self.plan.addr)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}
