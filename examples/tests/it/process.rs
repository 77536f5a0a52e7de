//! `enterprise` as a process of its own, stopped when the test ends, however it ends.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// A running server.
pub(crate) struct Enterprise {
    pub(crate) address: SocketAddr,
    process: Child,
}

/// The binary with a clean environment, its database in `folder`, on a free port.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_enterprise"));
    command.env_clear().env("PORT", "0").env("DATA_DIR", folder).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Enterprise {
    pub(crate) async fn start(mut command: Command) -> Self {
        // Nobody reads it here, and a full pipe would stop the server.
        let mut process = command.stderr(Stdio::inherit()).spawn().expect("spawn");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("a line");
        let line = line.expect("the server ended before it listened");
        let address = line.strip_prefix("listening on http://").expect("address").parse();
        Self { address: address.expect("address"), process }
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let (status, body) = escala_examples::load::get(self.address, path).await.expect(path);
        (status.as_u16(), serde_json::from_str(&body).unwrap_or(serde_json::Value::String(body)))
    }

    /// Stops it as an operator would.
    pub(crate) async fn terminate(self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits for it to end by itself.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        timeout(PATIENCE, self.process.wait()).await.expect("stops in time").expect("waited")
    }

    /// `kill -9`.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.expect("killed");
    }

    fn signal(&self, signal: Signal) {
        let id = self.process.id().expect("running");
        let id = Pid::from_raw(i32::try_from(id).expect("pid")).expect("pid");
        kill_process(id, signal).expect("signalled");
    }
}

/// Runs to its end: status, standard output, standard error.
pub(crate) async fn output(mut command: Command) -> (ExitStatus, String, String) {
    let mut process = command.spawn().expect("spawn");
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) =
        (process.stdout.take().expect("piped"), process.stderr.take().expect("piped"));
    let read = async {
        let (a, b) = tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err));
        a.and(b).expect("utf-8");
        process.wait().await.expect("waited")
    };
    let status = timeout(PATIENCE, read).await.expect("ends in time");
    (status, out, err)
}
