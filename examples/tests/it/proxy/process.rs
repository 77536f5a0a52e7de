//! The process, stopped when the test ends, however it ends.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::client::{Answer, Client};

/// Longest time that anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    process: Child,
}

/// The binary with a clean environment, on a free port.
pub(crate) fn command(origin: SocketAddr, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cache-proxy"));
    command.env_clear().kill_on_drop(true);
    command.arg("--origin").arg(format!("http://{origin}"));
    if !options.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command.args(options).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

impl Proxy {
    /// With the options of one line.
    pub(crate) async fn start(origin: SocketAddr, options: &str) -> Self {
        let options: Vec<&str> = options.split_whitespace().collect();
        let mut process = command(origin, &options).spawn().expect("spawn");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("a line");
        let line = line.expect("the proxy ended before it listened");
        let address = line.strip_prefix("listening on http://").expect("address").parse();
        Self { address: address.expect("address"), process }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// One `GET` on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.client().await.get(path, &[]).await
    }

    /// Asks it to stop, as an operator would.
    pub(crate) fn terminate(&self) {
        let id = self.process.id().expect("running");
        let id = Pid::from_raw(i32::try_from(id).expect("pid")).expect("pid");
        kill_process(id, Signal::TERM).expect("signalled");
    }

    /// Waits for the end that [`terminate`](Self::terminate) asked for.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        timeout(PATIENCE, self.process.wait()).await.expect("stops in time").expect("waited")
    }
}
