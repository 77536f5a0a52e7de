//! The process with its file, stopped when the test ends, however it ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};

use super::{Client, PATIENCE};

/// What every test's file begins with: free ports, and no lame duck.
const HEAD: &str = r#"
listen = "127.0.0.1:0"
management = "127.0.0.1:0"
threads = 2
"#;
const SERVER: &str = r#"
[server]
lame_duck = "0s"
"#;

/// A running gateway.
pub(super) struct Gateway {
    pub(super) address: SocketAddr,
    pub(super) management: SocketAddr,
    folder: TempDir,
    process: Child,
    _output: BufReader<ChildStdout>,
}

/// The binary with a clean environment.
pub(super) fn command(file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().kill_on_drop(true).arg("--config").arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

impl Gateway {
    /// With this below listener and times; `[server]` settings come from
    /// [`start_with`](Self::start_with).
    pub(super) async fn start(rest: &str) -> Self {
        Self::start_with("", "", rest).await
    }

    /// With top-level settings, settings of `[server]`, and the rest.
    pub(super) async fn start_with(top: &str, server: &str, rest: &str) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("gateway.toml");
        std::fs::write(&file, format!("{HEAD}{top}{SERVER}{server}\n{rest}")).expect("write");
        let mut process = command(&file).spawn().expect("spawn");
        let mut output = BufReader::new(process.stdout.take().expect("piped"));
        let address = told(&mut output, "listening on http://").await;
        let management = told(&mut output, "management on http://").await;
        Self { address, management, folder, process, _output: output }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.path().join("gateway.toml")
    }

    /// Replaces a text in the file, as an operator's editor would: whole, by a rename.
    pub(super) fn edit(&self, old: &str, new: &str) {
        let text = std::fs::read_to_string(self.file()).expect("read");
        assert!(text.contains(old), "{old} is not in {text}");
        let beside = self.folder.path().join("new");
        std::fs::write(&beside, text.replace(old, new)).expect("write");
        std::fs::rename(&beside, self.file()).expect("rename");
    }

    pub(super) fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.id()).expect("pid")).expect("pid");
        kill_process(id, signal).expect("signalled");
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id().expect("running")
    }

    pub(super) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    pub(super) async fn stats(&self) -> Value {
        let answer = Client::connect(self.management).await.get("/stats", &[]).await;
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// The figures once they are as wanted.
    pub(super) async fn stats_when(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats = self.stats().await;
            if wanted(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "{stats:#}");
            tokio::task::yield_now().await;
        }
    }

    /// Waits until a new file is in use (or refused) after SIGHUP.
    pub(super) async fn reload(&self) -> Value {
        let loads = |stats: &Value| {
            let file = &stats["file"];
            file["generation"].as_u64().expect("a count")
                + file["refused_total"].as_u64().expect("a count")
        };
        let before = loads(&self.stats().await);
        self.signal(Signal::HUP);
        self.stats_when(|stats| loads(stats) > before).await["file"].clone()
    }

    /// Asks it to stop, as an operator would, and waits.
    pub(super) async fn terminate(self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits for it to end by itself.
    pub(super) async fn ended(mut self) -> ExitStatus {
        timeout(PATIENCE, self.process.wait()).await.expect("stops in time").expect("waited")
    }

    /// The most memory it has had so far, in bytes.
    pub(super) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("proc");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
        kib * 1024
    }
}

async fn told(output: &mut BufReader<ChildStdout>, what: &str) -> SocketAddr {
    let mut line = String::new();
    let read = timeout(PATIENCE, output.read_line(&mut line)).await.expect("in time");
    assert!(read.expect("read") > 0, "the gateway ended before it listened");
    let address = line.trim_end().strip_prefix(what).expect("what it says");
    address.parse().expect("address")
}
